"""One message a client under a key-homomorphic mask: what all parties of a round agree on, and the masking itself.

A mask is a public matrix times a short secret, plus a small error. Masks add up as secrets do: who knows the sum of
the secrets can take off the sum of the masks, and a committee that was dealt shares of the secrets knows only that.

Sources: Bell et al. (ACORN), USENIX Security 2023; Karthikeyan and Polychroniadou (OPA), CRYPTO 2025; Bell-Clark et
al. (Willow), CRYPTO 2025; ``docs/spec/secagg.md``, sections 8 to 14.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np
from jaxtyping import Int64, UInt32, UInt64
from numpy import ndarray

from mibao.codec import canonical
from mibao.crypto import kdf
from mibao.crypto.kdf import domain_tag
from mibao.crypto.keys import RecipientPublicKey, RecipientSuite, SignerPublicKey
from mibao.errors import InputError
from mibao.secagg import ring
from mibao.secagg.masking import MAX_CLIENT_NUMBER, MAX_LENGTH, MAX_ROUND, TASK_HASH_BYTES, Trust
from mibao.secagg.packed_sharing import Packing
from mibao.secagg.rlwe_parameters import RING_DEGREE, ParameterSet, check_room, delta_bits
from mibao.secagg.roster import Roster
from mibao.types import RandomId

VERSION = 1
MAX_RLWE_CLIENTS = 1 << 14
MAX_INPUT_BITS = 39
MAX_MEMBERS = 64
CLIENT_RANDOMNESS_BYTES = 64
DEALER_CHECKS = 2
NO_TRANSCRIPT = bytes(32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One party of the committee: what verifies its answers, and what shares are sealed to."""

    signer: SignerPublicKey
    recipient: RecipientPublicKey


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Committee:
    """Named, pinned parties that together can undo the mask of a sum.

    Attributes:
        members: By number, 4 to 64 of them, with keys of their own.
        corrupt: How many of them may work against the others, t.
        packing: Numbers in one polynomial, l.

    Raises:
        InputError: a number is out of range, a key is no hybrid one or stands twice, or the honest members could not
            confirm a round alone.
    """

    members: Mapping[int, Member]
    corrupt: int = 10
    packing: int = 8

    def __post_init__(self) -> None:
        size = len(self.members)
        _check_range("members of the committee", size, 4, MAX_MEMBERS)
        for number, member in self.members.items():
            _check_range("member number", number, 0, MAX_CLIENT_NUMBER)
            if member.recipient.suite is not RecipientSuite.MLKEM768_X25519:
                raise InputError(f"committee: expected a hybrid key (mlkem768-x25519) of member {number}")
        for keys in ({m.signer.raw for m in self.members.values()}, {m.recipient.raw for m in self.members.values()}):
            if len(keys) != size:
                raise InputError("committee: expected keys of its own for every member, got one twice")
        Packing(holders=size, corrupt=self.corrupt, packed=self.packing)
        if self.quorum > size - self.corrupt:
            raise InputError(
                f"committee: expected the {size - self.corrupt} honest members to be enough, "
                f"a quorum is {self.quorum} of {size}"
            )
        object.__setattr__(self, "members", MappingProxyType(dict(sorted(self.members.items()))))

    @property
    def sharing(self) -> Packing:
        """How secrets are dealt."""
        return Packing(holders=len(self.members), corrupt=self.corrupt, packed=self.packing)

    @property
    def quorum(self) -> int:
        """How many must confirm before one releases: two quorums share an honest member."""
        return max(self.corrupt + self.packing, (len(self.members) + self.corrupt) // 2 + 1)

    def root(self) -> bytes:
        """32 bytes that stand for every number and key."""
        listed: list[canonical.Value] = [
            [n, m.signer.suite.value, m.signer.raw, m.recipient.suite.value, m.recipient.raw]
            for n, m in self.members.items()
        ]
        return hashlib.sha256(domain_tag("secagg/rlwe/committee", canonical.encode(listed))).digest()


@dataclass(frozen=True, kw_only=True, eq=False)
class CommitteeSession:
    """One round of the one-shot scheme; parties that differ in any field refuse each other's messages.

    Attributes:
        session_id: Names the training run or query.
        round: 0 or more; a resumed round has a new number.
        roster: Every invited client's number and key, pinned or certified; a :class:`Roster` is hashed once for all
            rounds that it is given to.
        committee: Who can undo the mask of the sum.
        parameters: Ring and modulus.
        trust: What the server is trusted with.
        min_clients: The fewest addends of a released sum; at least 2, and 2 more than may conspire.
        length: Elements of a vector.
        input_bits: Bits of an input, its sign and its noise among them.
        expires_s: Unix time after which nobody acts.
        clip: The norm that clients clip to, 0 for none.
        noise_multiplier: What noise clients add, 0 for none.
        task_hash: 32 bytes for whatever else must look alike to all.
        model_hash: 32 bytes for the model that clients start from.

    Raises:
        InputError: a value is out of range, one key stands under two numbers, or sums do not fit the modulus.
    """

    session_id: RandomId
    round: int
    roster: Mapping[int, SignerPublicKey]
    committee: Committee
    parameters: ParameterSet
    trust: Trust
    min_clients: int
    length: int
    input_bits: int
    expires_s: int
    clip: float = 0.0
    noise_multiplier: float = 0.0
    task_hash: bytes = bytes(TASK_HASH_BYTES)
    model_hash: bytes = bytes(TASK_HASH_BYTES)

    def __post_init__(self) -> None:
        clients = len(self.roster)
        _check_range("clients", clients, 2, MAX_RLWE_CLIENTS)
        _check_range("min_clients", self.min_clients, 2, clients)
        _check_range("round", self.round, 0, MAX_ROUND)
        _check_range("length", self.length, 1, MAX_LENGTH)
        _check_range("input_bits", self.input_bits, 1, MAX_INPUT_BITS)
        _check_range("expiry", self.expires_s, 0, (1 << 63) - 1)
        for name, value in (("clip", self.clip), ("noise multiplier", self.noise_multiplier)):
            if not 0.0 <= value < math.inf:
                raise InputError(f"session: expected a {name} of 0 or more, got {value:g}")
        if len(self.task_hash) != TASK_HASH_BYTES or len(self.model_hash) != TASK_HASH_BYTES:
            raise InputError("session: expected 32 bytes each for the task's and the model's hash")
        check_room(self.parameters, clients=clients, length=self.length, input_bits=self.input_bits)
        if not isinstance(self.roster, Roster):
            object.__setattr__(self, "roster", Roster(self.roster))

    @property
    def least_alive(self) -> int:
        """The fewest clients with which a sum comes out."""
        return self.min_clients

    @property
    def delta_bits(self) -> int:
        """Messages are multiplied by ``2**delta_bits``."""
        return delta_bits(self.parameters, clients=len(self.roster), length=self.length)

    @property
    def modulus_bits(self) -> int:
        """Vectors and sums are modulo ``2**modulus_bits``."""
        return self.parameters.modulus_bits - self.delta_bits

    @property
    def secrets(self) -> int:
        """Short secrets that mask one vector."""
        return ring.secrets_needed(self.length)

    @property
    def share_columns(self) -> int:
        """Field elements of one share of all secrets, without the blinds of the dealer check."""
        return self.secrets * RING_DEGREE // self.committee.packing

    @property
    def roster_root(self) -> bytes:
        """32 bytes that stand for every client's number and key."""
        return self.roster.root if isinstance(self.roster, Roster) else Roster(self.roster).root

    @cached_property
    def full_task_hash(self) -> bytes:
        """32 bytes that stand for the task with its clipping, noise and fewest clients."""
        content: dict[str, canonical.Value] = {
            "clip": float(self.clip),
            "input_bits": self.input_bits,
            "length": self.length,
            "min_clients": self.min_clients,
            "noise_multiplier": float(self.noise_multiplier),
            "session": self.session_id.value,
            "task": self.task_hash,
            "trust": self.trust.value,
        }
        return hashlib.sha256(domain_tag("secagg/rlwe/task", canonical.encode(content))).digest()


def agreed_fields(session: CommitteeSession) -> dict[str, canonical.Value]:
    """What every client signs of the session, field by field."""
    committee = session.committee
    return {
        "committee": committee.root(),
        "corrupt": committee.corrupt,
        "expiry": session.expires_s,
        "model": session.model_hash,
        "packing": committee.packing,
        "parameters": session.parameters.id,
        "quorum": committee.quorum,
        "reconstruct": committee.sharing.dimension,
        "roster": session.roster_root,
        "round": session.round,
        "task": session.full_task_hash,
        "version": VERSION,
    }


def session_binding(session: CommitteeSession) -> bytes:
    """32 bytes that stand for every field of the session."""
    return hashlib.sha256(domain_tag("secagg/rlwe/session", canonical.encode(agreed_fields(session)))).digest()


def matrix_seed(session: CommitteeSession) -> bytes:
    """What each party expands the public matrix from; never received."""
    parts = session.parameters.id.encode(), session.full_task_hash, _u32(session.round), session.roster_root
    return hashlib.sha256(domain_tag("secagg/rlwe/matrix", *parts)).digest()


def share_label(session: CommitteeSession, binding: bytes, *, client: int, member: int) -> bytes:
    """What a sealed share is bound to, as HPKE's info and as its associated data."""
    return domain_tag(
        "secagg/rlwe/share",
        session.parameters.id.encode(),
        session.full_task_hash,
        _u32(session.round),
        _u32(client),
        _u32(member),
        binding,
    )


def draw_secrets(session: CommitteeSession, seed: bytes) -> Int64[ndarray, "secrets 2048"]:
    """A client's short secrets, one for each 2**20 elements.

    Raises:
        InputError: their variance is not that of fresh random bytes.
    """
    seeds = (kdf.derive(seed, purpose="secagg/rlwe/secret", context=_u32(g)) for g in range(session.secrets))
    drawn = np.stack([ring.small_elements(one, RING_DEGREE, session.parameters) for one in seeds])
    _check_variance(float(np.mean(drawn.astype(np.float64) ** 2)), session.parameters, elements=drawn.size)
    return drawn


def mask(
    session: CommitteeSession,
    vector: UInt64[ndarray, " d"],
    *,
    secrets: Int64[ndarray, "secrets 2048"],
    error_seed: bytes,
) -> ring.Ring:
    """The vector, scaled up and masked: pseudo-random to whoever does not know the secrets.

    Raises:
        InputError: the errors' variance is not that of fresh random bytes.
    """
    parameters = session.parameters
    masked = vector.astype(ring.ring_type(parameters))
    np.left_shift(masked, masked.dtype.type(session.delta_bits), out=masked)
    per_secret, spread = 1 << 20, 0.0
    for group, start in enumerate(range(0, len(masked), per_secret)):
        part = masked[start : start + per_secret]
        seed = kdf.derive(error_seed, purpose="secagg/rlwe/error", context=_u32(group))
        spread += ring.add_error(part, seed, parameters) * len(part)
    _check_variance(spread / len(masked), parameters, elements=len(masked))
    ring.add_product(masked, matrix_seed=matrix_seed(session), secrets=secrets, parameters=parameters)
    return masked


def unmask(
    session: CommitteeSession, total: ring.Ring, secrets: Int64[ndarray, "secrets 2048"]
) -> UInt64[ndarray, " d"]:
    """The sum of vectors behind a sum of masked ones, modulo ``2**modulus_bits``; ``total`` is used up."""
    parameters, shift = session.parameters, session.delta_bits
    ring.add_product(total, matrix_seed=matrix_seed(session), secrets=secrets, parameters=parameters, negative=True)
    total += total.dtype.type(1 << (shift - 1))
    np.right_shift(total, total.dtype.type(shift), out=total)
    rounded: UInt64[ndarray, " d"] = total.astype(np.uint64)
    rounded &= np.uint64((1 << session.modulus_bits) - 1)
    return rounded


def check_vector(session: CommitteeSession, vector: UInt64[ndarray, " d"]) -> None:
    """Raises ``InputError`` unless each element is a number of ``input_bits``, signed or not, modulo the modulus."""
    if vector.shape != (session.length,) or vector.dtype != np.uint64:
        raise InputError(
            f"vector: expected {session.length} elements of type uint64, got {vector.shape}, {vector.dtype}"
        )
    bits, modulus = session.input_bits, 1 << session.modulus_bits
    # From -2**(b-1) on, modulo the modulus, up to 2**b.
    shifted = (vector + np.uint64(1 << (bits - 1))) & np.uint64(modulus - 1)
    if int(vector.max()) >= modulus or int(shifted.max()) >= (1 << bits) + (1 << (bits - 1)):
        raise InputError(f"vector: expected numbers of {bits} bits, modulo 2**{session.modulus_bits}")


def to_wire(masked: ring.Ring, parameters: ParameterSet) -> bytes:
    """4 or 6 bytes an element, little endian."""
    if parameters.element_bytes == masked.itemsize:
        return masked.astype("<u4").tobytes()
    halves = masked.astype("<u8").view("<u2").reshape(-1, 4)
    return halves[:, : parameters.element_bytes // 2].tobytes()


class MaskedSum:
    """Masked vectors as they come in, added up modulo ``q``."""

    def __init__(self, session: CommitteeSession) -> None:
        self._parameters, self._length = session.parameters, session.length
        # Of 48-bit numbers the three 16-bit parts are summed on their own: fewer than 2**16 clients never overflow.
        parts = session.length if session.parameters.modulus_bits == 32 else 3 * session.length
        self._sums: UInt32[ndarray, " parts"] = np.zeros(parts, dtype=np.uint32)

    def add(self, data: memoryview) -> None:
        """Add what :func:`to_wire` wrote."""
        self._sums += np.frombuffer(data, dtype="<u4" if self._parameters.modulus_bits == 32 else "<u2")

    def total(self) -> ring.Ring:
        """The sum, in words of :func:`mibao.secagg.ring.ring_type`."""
        if self._parameters.modulus_bits == 32:
            return self._sums
        total = np.zeros(self._length, dtype=np.uint64)
        for place, part in enumerate(self._sums.reshape(-1, 3).T):
            total += part.astype(np.uint64) << np.uint64(16 * place)
        return total


def _check_variance(found: float, parameters: ParameterSet, *, elements: int) -> None:
    # Over a thousand numbers this is eleven standard deviations away: only a broken generator comes here.
    if elements >= 1000 and not 0.5 <= found / parameters.variance <= 2.0:
        raise InputError("masking: expected fresh random bytes, got some from a generator that does not work")


def _u32(number: int) -> bytes:
    return number.to_bytes(4, "big")


def _check_range(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise InputError(f"session: expected {name} of {least} to {most}, got {value}")
