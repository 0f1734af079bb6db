"""A whole training run in one process: the same nodes, server and messages as between machines."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, UInt64
from numpy import ndarray

from mibao.crypto.keys import SEED_BYTES, SignerPrivateKey, SignerSuite, generate_signer
from mibao.crypto.rng import random_bytes
from mibao.errors import InputError
from mibao.events import Event
from mibao.federated.node import Node
from mibao.federated.server import Server
from mibao.federated.task import MODULUS_BITS, NO_DROPOUTS, Task
from mibao.secagg import Phase, SecureSum, run_round
from mibao.types import RandomId

_PLAIN_NUMBER_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result:
    """What came of a training run.

    Attributes:
        weights: The trained model.
        rounds: How many rounds ran.
        events: What happened, in order, for the ledger.
        epsilon: Privacy spent at ``delta``; ``None`` without differential privacy.
        delta: The task's; ``None`` without differential privacy.
        sum_exact: In every round the released sum was, bit for bit, the sum of what its sites put in.
        survivors: For each round, the sites whose upload is in the sum.
        upload_bytes: All bytes that sites sent, with every message of the masking.
        plain_bytes: What the same uploads would be as plain 32-bit floats.
        seconds: Wall time of the rounds.
    """

    weights: Float64[ndarray, "weights"]
    rounds: int
    events: tuple[Event, ...]
    epsilon: float | None
    delta: float | None
    sum_exact: bool
    survivors: tuple[tuple[int, ...], ...]
    upload_bytes: int
    plain_bytes: int
    seconds: float


def simulate(
    task: Task,
    *,
    sites: int,
    rounds: int,
    dropouts: Mapping[int, Set[int]] = NO_DROPOUTS,
    randomness: Callable[[int], bytes] = random_bytes,
) -> Result:
    """The result of ``rounds`` rounds over the sites 0 .. ``sites`` - 1.

    Args:
        task: What is trained.
        sites: How many sites take part, at least 3.
        rounds: How many rounds to run, from number 0.
        dropouts: For a round's number, the sites that vanish in it after agreeing on masks, before uploading.
        randomness: Where keys, masks and noise come from.

    Raises:
        InputError: a number is out of range, or a site's records do not fit; names the site.
        ProtocolError: fewer sites are left in a round than a sum needs.
        BudgetExhausted: the next round might exceed the privacy budget.
    """
    _check_plan(sites=sites, rounds=rounds, dropouts=dropouts)
    started = time.perf_counter()
    addends: dict[int, UInt64[ndarray, "upload"]] = {}
    nodes, server = _found(task, sites=sites, randomness=randomness, addends=addends)
    events: list[Event] = []
    sums: list[SecureSum] = []
    sum_exact = True
    for number in range(rounds):
        released, exact = _run_round(nodes, server, addends, dropped=dropouts.get(number, frozenset()))
        events += server.close_round(released)
        sums.append(released)
        sum_exact = sum_exact and exact
    uploads = sum(len(released.survivors) for released in sums)
    return Result(
        weights=server.weights,
        rounds=rounds,
        events=tuple(events),
        epsilon=server.epsilon,
        delta=None if task.privacy is None else task.privacy.delta,
        sum_exact=sum_exact,
        survivors=tuple(released.survivors for released in sums),
        upload_bytes=sum(released.upload_bytes for released in sums),
        plain_bytes=uploads * task.strategy.upload_length(task.model) * _PLAIN_NUMBER_BYTES,
        seconds=time.perf_counter() - started,
    )


def _found(
    task: Task, *, sites: int, randomness: Callable[[int], bytes], addends: dict[int, UInt64[ndarray, "upload"]]
) -> tuple[list[Node], Server]:
    """Nodes and server. Only a simulator, which is every site at once, may watch the ``addends`` to check the sum."""
    session_id = RandomId(randomness(RandomId.size))
    suite = SignerSuite.ED25519
    signers: list[SignerPrivateKey] = [generate_signer(suite, randomness(SEED_BYTES[suite])) for _ in range(sites)]
    roster = {number: signer.public for number, signer in enumerate(signers)}
    nodes = [
        Node(
            task,
            number=number,
            roster=roster,
            session_id=session_id,
            signer=signer,
            randomness=randomness,
            witness=addends.__setitem__,
        )
        for number, signer in enumerate(signers)
    ]
    return nodes, Server(task, roster=roster, session_id=session_id)


def _run_round(
    nodes: list[Node], server: Server, addends: Mapping[int, UInt64[ndarray, "upload"]], *, dropped: Set[int]
) -> tuple[SecureSum, bool]:
    instruction = server.open_round()
    clients = {number: node.join(instruction) for number, node in enumerate(nodes)}
    released = run_round(server.masking_server(), clients, dropped=dict.fromkeys(dropped, Phase.MASK))
    plain = _ring_sum([addends[number] for number in released.survivors])
    return released, bool(np.array_equal(plain, released.total))


def _ring_sum(addends: list[UInt64[ndarray, "upload"]]) -> UInt64[ndarray, "upload"]:
    total = np.sum(np.stack(addends), axis=0, dtype=np.uint64) & np.uint64((1 << MODULUS_BITS) - 1)
    return np.asarray(total, dtype=np.uint64)


def _check_plan(*, sites: int, rounds: int, dropouts: Mapping[int, Set[int]]) -> None:
    if sites < 3 or rounds < 1:
        raise InputError(f"simulation: expected 3 sites or more and 1 round or more, got {sites} and {rounds}")
    for number, dropped in dropouts.items():
        if not 0 <= number < rounds or not dropped <= set(range(sites)):
            raise InputError(
                f"simulation: expected dropouts of sites 0..{sites - 1} in rounds 0..{rounds - 1}, "
                f"got sites {sorted(dropped)} in round {number}"
            )
