"""Sums without seeing the addends: what every masking scheme takes, gives and promises.

A scheme is two state machines, one for a client and one for the server. Messages go in and come out as bytes;
transport, time and randomness are the caller's. The first scheme is :mod:`mibao.secagg.masking_pairwise`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Protocol, runtime_checkable

from jaxtyping import UInt64
from numpy import ndarray

from mibao.codec.fixed_point import MODULUS_BITS
from mibao.crypto.keys import SignerPublicKey
from mibao.errors import InputError
from mibao.events import SecureSumReleased
from mibao.types import RandomId

MAX_CLIENTS = 1024
MAX_CLIENT_NUMBER = (1 << 32) - 1
MAX_ROUND = (1 << 32) - 1
MAX_LENGTH = 1 << 27
TASK_HASH_BYTES = 32
COMPLETE_BELOW = 60


class Phase(Enum):
    """The message a client sends next, and the server collects now; ``CLOSED`` after success or refusal."""

    ADVERTISE = "advertise"
    SHARE = "share"
    MASK = "mask"
    CONFIRM = "confirm"
    REVEAL = "reveal"
    CLOSED = "closed"


class Trust(Enum):
    """What the server is trusted with; clients and committee act by it."""

    HONEST_SERVER = "honest-server"  # it keeps to the rules and remembers all
    MALICIOUS_SERVER = "malicious-server"  # it may do anything


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Session:
    """What all parties of one sum agree on beforehand; any difference makes every signature fail.

    Attributes:
        session_id: Names the training run or query.
        round: 0 or more; a client takes part in a (session, round) once, a resumed round gets a new number.
        roster: Every invited client's number and its pinned public key, never learned from the server.
        threshold: How many clients must reveal for the sum to come out; more than half of the roster.
        min_clients: The fewest addends a released sum may have, at least 2.
        length: Elements of a vector.
        modulus_bits: 32 or 64; sums are modulo ``2**modulus_bits``.
        task_hash: 32 bytes that stand for everything else that must look alike to all clients (task, clipping,
            noise, input model); zeros bind nothing.
        trust: With an honest server clients do not confirm the survivors to each other: four messages, not five.
        neighbours: With how many others a client shares and masks, an even number; ``None`` for all of them. Only
            for an honest server; take it from :func:`mibao.secagg.planning.plan_graph`.
        share_threshold: How many of a client's ``neighbours + 1`` shares open its secrets; ``None`` for ``threshold``.

    Raises:
        InputError: a value is out of range, or one key stands under two numbers.
    """

    session_id: RandomId
    round: int
    roster: Mapping[int, SignerPublicKey]
    threshold: int
    min_clients: int
    length: int
    modulus_bits: int
    task_hash: bytes = bytes(TASK_HASH_BYTES)
    trust: Trust = Trust.MALICIOUS_SERVER
    neighbours: int | None = None
    share_threshold: int | None = None

    def __post_init__(self) -> None:
        clients = len(self.roster)
        _check_range("clients", clients, 2, MAX_CLIENTS)
        _check_range("threshold", self.threshold, clients // 2 + 1, clients)
        _check_range("min_clients", self.min_clients, 2, clients)
        _check_range("round", self.round, 0, MAX_ROUND)
        _check_range("length", self.length, 1, MAX_LENGTH)
        for number in self.roster:
            _check_range("client number", number, 0, MAX_CLIENT_NUMBER)
        if self.modulus_bits not in MODULUS_BITS:
            raise InputError(f"session: expected a modulus of {MODULUS_BITS} bits, got {self.modulus_bits}")
        if len(self.task_hash) != TASK_HASH_BYTES:
            raise InputError(f"session: expected a task hash of 32 bytes, got {len(self.task_hash)}")
        if len({key.raw for key in self.roster.values()}) != clients:
            raise InputError("session: expected a signing key of its own for every client, got one twice")
        self._check_graph()
        object.__setattr__(self, "roster", MappingProxyType(dict(sorted(self.roster.items()))))

    def _check_graph(self) -> None:
        if self.neighbours is None or self.share_threshold is None:
            if self.neighbours is not self.share_threshold:
                raise InputError("session: expected neighbours and share_threshold together, or neither")
            return
        if self.trust is not Trust.HONEST_SERVER or self.neighbours % 2:
            raise InputError("session: expected an even number of neighbours, and an honest server")
        _check_range("clients of a sparse graph", len(self.roster), COMPLETE_BELOW, MAX_CLIENTS)
        _check_range("neighbours", self.neighbours, 2, len(self.roster) - 2)
        _check_range("share_threshold", self.share_threshold, 2, self.neighbours + 1)

    @property
    def secret_threshold(self) -> int:
        """How many shares of one client's secret open it."""
        return self.share_threshold or self.threshold

    @property
    def least_alive(self) -> int:
        """The fewest clients with which any phase up to the masked vectors may end."""
        return max(self.threshold, self.min_clients)

    @property
    def tolerated_colluders(self) -> int:
        """How many clients may conspire with a server that breaks the rules: ``2 * threshold - clients - 1``.

        0 where the server is trusted to keep to them.

        Source: Bonawitz et al., CCS 2017, on active adversaries; derived in ``docs/spec/secagg.md``.
        """
        if self.trust is Trust.HONEST_SERVER:
            return 0
        return 2 * self.threshold - len(self.roster) - 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SecureSum:
    """The sum over ``survivors``, all the server ever learns of their vectors.

    Attributes:
        total: The sum modulo ``2**modulus_bits``.
        survivors: The clients whose vectors are in it, ascending.
        upload_bytes: Bytes of every client message that the server accepted, all phases.
        event: The same without the sum, for the ledger.
    """

    total: UInt64[ndarray, " d"]
    survivors: tuple[int, ...]
    upload_bytes: int
    event: SecureSumReleased


@runtime_checkable
class MaskingClient(Protocol):
    """One client in one round. It works once: after success or refusal it answers nothing more."""

    @property
    def phase(self) -> Phase:
        """The message this client sends next."""
        ...

    def start(self) -> bytes:
        """The first message to the server. Raises ``ProtocolError`` when called again."""
        ...

    def answer(self, message: bytes) -> bytes:
        """The reply to the server's message of this phase.

        Raises:
            ProtocolError: the message is not the one due, or breaks a rule; the client closes and forgets.
        """
        ...


@runtime_checkable
class MaskingMember(Protocol):
    """Who answers the server in one round and has no vector of its own: a member of a committee, or a key holder."""

    def answer(self, message: bytes) -> bytes:
        """The reply to the server's message.

        Raises:
            ProtocolError: the message is not the one due, or breaks a rule; the member closes.
        """
        ...


@runtime_checkable
class MaskingServer(Protocol):
    """The server in one round: it collects a phase, closes it, and in the end knows one sum."""

    @property
    def phase(self) -> Phase:
        """The messages this server collects now."""
        ...

    @property
    def awaited(self) -> tuple[int, ...]:
        """Clients whose message of this phase has not come."""
        ...

    def receive(self, message: bytes) -> int:
        """Take in one client's message and return its number.

        Raises:
            ProtocolError: the message breaks a rule; it is not counted and changes nothing.
        """
        ...

    def advance(self) -> Mapping[int, bytes]:
        """Close the phase: what to send to whom. Clients whose message has not come count as dropped.

        Raises:
            ProtocolError: too few clients are left; the session closes and no sum comes out.
        """
        ...

    def release(self) -> SecureSum:
        """The sum, once enough clients have revealed.

        Raises:
            ProtocolError: too few have, or what they revealed does not fit together; the session closes.
        """
        ...


def default_threshold(clients: int) -> int:
    """``floor(2 * clients / 3) + 1``: safe against a server that breaks the rules with a third of the clients.

    Raises:
        InputError: fewer than 2 clients.

    Source: Bonawitz et al., CCS 2017, on active adversaries.
    """
    _check_range("clients", clients, 2, MAX_CLIENTS)
    return min(2 * clients // 3 + 1, clients)


def _check_range(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise InputError(f"session: expected {name} of {least} to {most}, got {value}")
