"""A whole round in one process: clients and server that only exchange bytes, with dropouts where one wants them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

import numpy as np
from jaxtyping import UInt64
from numpy import ndarray

from mibao.crypto.keys import SignerPrivateKey
from mibao.errors import InputError
from mibao.secagg.masking import MaskingClient, MaskingMember, MaskingServer, Phase, SecureSum, Session
from mibao.secagg.masking_pairwise import client_randomness_bytes
from mibao.secagg.masking_pairwise_client import PairwiseClient
from mibao.secagg.masking_pairwise_server import PairwiseServer

_NOBODY: Mapping[int, Phase] = MappingProxyType({})
_NO_COMMITTEE: Mapping[int, MaskingMember] = MappingProxyType({})
_PHASES = (Phase.ADVERTISE, Phase.SHARE, Phase.MASK, Phase.CONFIRM, Phase.REVEAL)


def simulate_sum(
    session: Session,
    vectors: Mapping[int, UInt64[ndarray, " d"]],
    *,
    signers: Mapping[int, SignerPrivateKey],
    randomness: Callable[[int], bytes],
    dropped: Mapping[int, Phase] = _NOBODY,
) -> SecureSum:
    """The sum of the vectors of all clients that lived to send theirs, through the real messages.

    Args:
        session: The round.
        vectors: Each client's ``session.length`` ring elements. One that drops out at ``MASK`` or before needs none.
        signers: Each client's signing key. One that drops out at ``ADVERTISE`` needs none.
        randomness: Gives as many fresh random bytes as asked for; called once a client, in ascending order.
        dropped: The phase before whose message a client vanishes; ``MASK``: its masked vector never comes.

    Raises:
        InputError: a client without vector or key, a wrong vector, or a client dropped that is not on the roster.
        ProtocolError: too few clients are left; names the step, and nothing was revealed.
    """
    for number, phase in dropped.items():
        if number not in session.roster or phase not in _PHASES:
            raise InputError(f"simulation: client {number} cannot drop out at phase '{phase.value}'")
    taking_part = [number for number in session.roster if dropped.get(number) is not Phase.ADVERTISE]
    clients = {}
    for number in taking_part:
        if number not in signers:
            raise InputError(f"simulation: expected a signing key for client {number}")
        clients[number] = PairwiseClient(
            session,
            number=number,
            signer=signers[number],
            vector=_vector(session, vectors, number, dropped.get(number)),
            randomness=randomness(client_randomness_bytes(session)),
        )
    return run_round(PairwiseServer(session), clients, dropped=dropped)


def run_round(
    server: MaskingServer,
    clients: Mapping[int, MaskingClient],
    *,
    dropped: Mapping[int, Phase] = _NOBODY,
    committee: Mapping[int, MaskingMember] = _NO_COMMITTEE,
) -> SecureSum:
    """Carry messages between ``server`` and ``clients``, or its ``committee``, until the sum comes out.

    Raises:
        ProtocolError: a message was refused, or too few clients or members are left.
    """
    first = server.phase
    gone = {number for number, phase in dropped.items() if _PHASES.index(phase) <= _PHASES.index(first)}
    _collect(server, (client.start() for number, client in clients.items() if number not in gone))
    peers: Mapping[int, MaskingMember] = committee or clients
    while server.phase is not Phase.REVEAL:
        incoming = server.advance()
        if not committee:
            gone |= {number for number, phase in dropped.items() if phase is server.phase}
        _collect(server, (peers[n].answer(message) for n, message in incoming.items() if committee or n not in gone))
    return server.release()


def _collect(server: MaskingServer, messages: Iterable[bytes]) -> None:
    for message in messages:
        server.receive(message)


def _vector(
    session: Session, vectors: Mapping[int, UInt64[ndarray, " d"]], number: int, drops: Phase | None
) -> UInt64[ndarray, " d"]:
    if number in vectors:
        return vectors[number]
    if drops in (Phase.ADVERTISE, Phase.SHARE, Phase.MASK):
        return np.zeros(session.length, dtype=np.uint64)
    raise InputError(f"simulation: expected a vector for client {number}")
