"""Secure sums: CPU time, bytes, exactness, growth, and attacks; Flower's SecAgg+ client functions beside them.

Every time is CPU time of one process with one thread. Flower's figures come from its installed package, through its own
functions, in a process of its own.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from statistics import median
from xml.etree import ElementTree

import numpy as np

from benchmarks.harness import Bench, Measurement, rounds
from benchmarks.peers.venvs import ROOT, ask, ask_python
from mibao.errors import MibaoError

_MILLION, _HUNDRED_THOUSAND = 1_000_000, 100_000
_SIZES = (10, 30, 100, 300, 1000, 3000, 10_000)
_ATTACK_TESTS = {
    "secagg.attack_overlap": ("overlapping_alive_and_dropped", "question_that_breaks_a_rule", "overlapping_lists"),
    "secagg.attack_swapped_keys": ("key_swapped_by_the_server", "a_swapped_key_is_refused", "unsigned_key_is_refused"),
}


def rehearsed(scheme: str, clients: int, length: int, dropped: int) -> dict[str, float]:
    """Seconds of a client (median over the round), of all, and of the server; bytes of an upload; exact or not."""
    from mibao.crypto.rng import random_bytes
    from mibao.secagg import rehearsal
    from mibao.secagg.masking import Trust

    trust = Trust.HONEST_SERVER if scheme == "pairwise" else Trust.MALICIOUS_SERVER
    plan = rehearsal.Plan(scheme=rehearsal.Scheme(scheme), clients=clients, length=length, dropped=dropped, trust=trust)
    report = rehearsal.rehearse(plan, randomness=random_bytes, clock=time.process_time)
    intake = sum(line.seconds for line in report.lines if line.what == "take in and add")
    sent = [line for line in report.lines if line.who == "client"]
    return {
        "clients_s": report.seconds("client"),
        "client_s": report.seconds("client") / len(plan.alive),
        "server_s": report.seconds("server"),
        "intake_s": intake,
        "members_s": report.seconds("member"),
        "upload_bytes": report.released.upload_bytes / len(plan.alive),
        "messages": sum(line.times for line in sent) / len(plan.alive),
        "exact": float(report.exact),
    }


def mask_alone(length: int) -> dict[str, float]:
    """Seconds to expand the matrix, multiply, draw errors and add, without shares and hashes."""
    from mibao.crypto.rng import random_bytes
    from mibao.secagg import ring
    from mibao.secagg.rlwe_parameters import RING_DEGREE, ParameterSet

    parameters, seconds = ParameterSet.RLWE_2048_32, []
    for _ in range(9):
        total = np.zeros(length, dtype=np.uint32)
        started = time.process_time()
        short = ring.small_elements(random_bytes(32), RING_DEGREE, parameters)[np.newaxis]
        ring.add_error(total, random_bytes(32), parameters)
        ring.add_product(total, matrix_seed=random_bytes(32), secrets=short, parameters=parameters)
        seconds.append(time.process_time() - started)
    return {"mask_s": median(seconds), "first_s": seconds[0]}


def one_client(clients: int, length: int, set_id: str) -> dict[str, float]:
    """One client's seconds, and the server's to take one message in, on a roster of this many; b = 16.

    ``roster_s`` is what a client spends once a run to check and hash the roster. Nothing is shared between clients but
    what a process that takes part in a second round would have kept; ``first_s`` is the first client of a fresh
    process, which has kept nothing but that.
    """
    from mibao.crypto.keys import RecipientSuite, SignerSuite, generate_recipient, generate_signer
    from mibao.crypto.rng import random_bytes, random_id
    from mibao.secagg import Committee, CommitteeSession, Member, MemoryJournal, RlweClient, RlweServer, Roster, Trust
    from mibao.secagg.rlwe_parameters import ParameterSet

    parameters = next(one for one in ParameterSet if one.id == set_id)
    signers = {n: generate_signer(SignerSuite.ED25519, random_bytes(32)) for n in range(clients)}
    members = {
        n: Member(
            signer=generate_signer(SignerSuite.ED25519, random_bytes(32)).public,
            recipient=generate_recipient(RecipientSuite.MLKEM768_X25519, random_bytes(32)).public,
        )
        for n in range(32)
    }
    session = CommitteeSession(
        session_id=random_id(), round=0, roster={n: key.public for n, key in signers.items()},
        committee=Committee(members=members), parameters=parameters, trust=Trust.MALICIOUS_SERVER,
        min_clients=2, length=length, input_bits=16, expires_s=1 << 40,
    )  # fmt: skip
    server = RlweServer(session, randomness=random_bytes(32), now=lambda: 0.0)
    vector = np.zeros(length, dtype=np.uint64)
    client_s, intake_s = [], []
    for n in range(9):
        # Each client works out for itself what all agree on: a session of its own.
        own = dataclasses.replace(session)
        started = time.process_time()
        sent = RlweClient(
            own, number=n, signer=signers[n], vector=vector, randomness=random_bytes(64),
            journal=MemoryJournal(), now=lambda: 0.0,
        ).start()  # fmt: skip
        client_s.append(time.process_time() - started)
        started = time.process_time()
        server.receive(sent)
        intake_s.append(time.process_time() - started)
    started = time.process_time()
    _ = Roster(session.roster).root
    roster_s = time.process_time() - started
    return {
        "client_s": median(client_s),
        "first_s": client_s[0],
        "intake_s": median(intake_s),
        "roster_s": roster_s,
        "upload_bytes": float(len(sent)),
    }


def exact_patterns(scheme: str, patterns: int) -> dict[str, float]:
    """The share of random dropout patterns in which the sum is exact."""
    from mibao.crypto.rng import random_bytes
    from mibao.secagg import rehearsal

    choice, exact = np.random.default_rng(), 0
    for _ in range(patterns):
        clients = int(choice.integers(3, 9))
        plan = rehearsal.Plan(
            scheme=rehearsal.Scheme(scheme),
            clients=clients,
            length=int(choice.integers(1, 3000)),
            dropped=int(choice.integers(0, (clients + 1) // 2)),
            members=5, corrupt=1, packing=2,
        )  # fmt: skip
        exact += rehearsal.rehearse(plan, randomness=random_bytes, clock=lambda: 0.0).exact
    return {"share": exact / patterns}


def _own(call: str, *arguments: object) -> dict[str, float]:
    return ask_python(Path(sys.executable), "-m", "benchmarks.secagg", call, *map(str, arguments))


@cache
def _flower(clients: int, length: int) -> dict[str, float]:
    """Flower's figures with the neighbourhood that the same promise takes: 10 % corrupt, 10 % dropping out."""
    from mibao.secagg import plan_graph

    plan = plan_graph(clients=clients, corrupt_share=0.1, dropout_share=0.1)
    given = clients, length, plan.neighbours + 1, plan.threshold
    return ask("flower", "flower_rows.py", *map(str, given))


def _beside(row: str, ours: float, peer: Callable[[], float], note: str | None = None) -> Measurement:
    try:
        return Measurement(id=row, ours=ours, peer=peer(), note=note)
    except (MibaoError, OSError, subprocess.SubprocessError) as error:
        return Measurement(id=row, ours=ours, why=f"peer: {type(error).__name__}", note=note)


def measure_million() -> Iterator[Measurement]:
    """A client and the server at 1e6 parameters."""
    repeats = rounds(3)
    for row, dropped in (("secagg.server_0", 0), ("secagg.server_10", 10), ("secagg.server_30", 30)):
        runs = [_own("rehearsed", "rlwe", 100, _MILLION, dropped) for _ in range(1 if dropped else repeats)]
        server = median(run["server_s"] - run["intake_s"] for run in runs)
        intake = median(run["intake_s"] for run in runs)
        note = f"besides, {1e3 * intake:.0f} ms to verify and add {100 - dropped} uploads as they come in"
        yield Measurement(id=row, ours=1e3 * server, note=note)
        if not dropped:
            alone = [_own("one_client", 100, _MILLION, "rlwe-2048-32") for _ in range(repeats)]
            client = 1e3 * median(run["client_s"] for run in alone)
            note = f"the first in a fresh process: {1e3 * median(run['first_s'] for run in alone):.0f} ms"
            yield _beside("secagg.client", client, lambda: 1e3 * _flower(10, _MILLION)["client_s"], note)
            allowed = 1.05 * 4 * _MILLION + 65_536
            yield Measurement(id="secagg.upload", ours=runs[0]["upload_bytes"] / allowed)
    masks = [_own("mask_alone", _MILLION) for _ in range(repeats)]
    note = f"the first in a fresh process: {1e3 * median(run['first_s'] for run in masks):.0f} ms"
    yield Measurement(id="secagg.mask", ours=1e3 * median(run["mask_s"] for run in masks), note=note)


def measure_hundred() -> Iterator[Measurement]:
    """100 clients with 1e5 parameters each, and the pairwise mode and Flower on the same."""
    runs = [_own("rehearsed", "rlwe", 100, _HUNDRED_THOUSAND, 0) for _ in range(rounds(3))]
    note = f"and the committee of 32, all together: {median(run['members_s'] for run in runs):.2f} s"

    def flower(name: str) -> Callable[[], float]:
        return lambda: _flower(100, _HUNDRED_THOUSAND)[name]

    yield _beside("secagg.all_clients", median(run["clients_s"] for run in runs), flower("clients_s"), note)
    note = "Flower with 23 shares, threshold 11; it rebuilds a seed from all 23, which is most of its time"
    yield _beside("secagg.all_server", median(run["server_s"] for run in runs), flower("server_s"), note)
    yield _beside("secagg.messages", runs[0]["messages"], flower("messages"))
    yield _beside("secagg.bytes", runs[0]["upload_bytes"] / _HUNDRED_THOUSAND,
                  lambda: _flower(100, _HUNDRED_THOUSAND)["upload_bytes"] / _HUNDRED_THOUSAND)  # fmt: skip
    pairwise = _own("rehearsed", "pairwise", 100, _HUNDRED_THOUSAND, 10)
    note = "10 of 100 drop out; neighbours and threshold for 10 % corrupt, 2^-40 and 2^-20"
    yield _beside("secagg.pairwise_clients", pairwise["clients_s"], flower("clients_s"), note)
    yield _beside("secagg.pairwise_server", pairwise["server_s"], flower("server_s"), note)
    yield _beside("secagg.pairwise_messages", round(pairwise["messages"]), flower("messages"))


def measure_exactness() -> Iterator[Measurement]:
    """1,000 random dropout patterns for each scheme; 20 with --quick."""
    for scheme in ("rlwe", "pairwise", "encrypted"):
        patterns = 1000 if rounds(3) == 3 else 20
        found = _own("exact_patterns", scheme, patterns)["share"]
        yield Measurement(id=f"secagg.exact_{scheme}", ours=found, note=f"{patterns} patterns")


@cache
def growth(set_id: str) -> dict[int, dict[str, float]]:
    """For each number of clients that this parameter set has room for, medians of three fresh processes."""
    from mibao.secagg.rlwe_parameters import ParameterSet, message_bits

    parameters = next(one for one in ParameterSet if one.id == set_id)
    found = {}
    for size in _SIZES:
        if message_bits(parameters, clients=size, length=_HUNDRED_THOUSAND) >= 16 + (size - 1).bit_length():
            runs = [_own("one_client", size, _HUNDRED_THOUSAND, set_id) for _ in range(rounds(3))]
            found[size] = {name: median(run[name] for run in runs) for name in runs[0]}
    return found


def measure_growth() -> Iterator[Measurement]:
    """From 10 to 10,000 clients with one parameter set; the smaller set, up to 100, is in the note."""
    small, found = growth("rlwe-2048-32"), growth("rlwe-2048-48")
    for row, name in (("secagg.growth_client", "client_s"), ("secagg.growth_server", "intake_s")):
        shown = ", ".join(f"{size:,}: {1e3 * found[size][name]:.2f} ms" for size in found)
        less = ", ".join(f"{size:,}: {1e3 * small[size][name]:.2f}" for size in small)
        note = f"rlwe-2048-48: {shown}; rlwe-2048-32, which has room for 109 clients here: {less}"
        if name == "client_s":
            note += f"; once a run, the roster of 10,000: {1e3 * found[10_000]['roster_s']:.0f} ms"
        yield Measurement(id=row, ours=found[10_000][name] / found[10][name], note=note)


def draw_growth(path: Path) -> None:
    """The same as a picture: ``python -m benchmarks.secagg draw_growth docs/secagg-growth.svg``."""
    from mibao.cli.secagg_picture import curves

    sets = {"rlwe-2048-32": growth("rlwe-2048-32"), "rlwe-2048-48": growth("rlwe-2048-48")}
    panels = {
        "one client, ms CPU": {
            name: {n: 1e3 * each["client_s"] for n, each in found.items()} for name, found in sets.items()
        },
        "server, all uploads, ms CPU": {
            name: {n: 1e3 * n * each["intake_s"] for n, each in found.items()} for name, found in sets.items()
        },
    }
    path.write_text(curves("100,000 numbers of 16 bits, 10 to 10,000 clients", panels), encoding="utf-8")


def measure_attacks() -> Iterator[Measurement]:
    """Ours are the tests of the same attacks, run here; Flower's are carried out on its own functions."""
    theirs = ask("flower", "flower_attacks.py")
    yield Measurement(id="secagg.seed_bits", ours=256.0, peer=theirs["seed_bits"])
    for row, names in _ATTACK_TESTS.items():
        refused = 1.0 - theirs[row.removeprefix("secagg.attack_")]
        yield Measurement(id=row, ours=_passing(" or ".join(names)), peer=refused)


def _passing(expression: str) -> float:
    """The share of our tests with these names that pass."""
    report = ROOT / ".bench-cache" / "secagg.xml"
    report.parent.mkdir(exist_ok=True)
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", "tests/secagg", "-k", expression]
    subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, timeout=600, check=False)
    cases = list(ElementTree.parse(report).iter("testcase"))  # noqa: S314  written by the command above
    return sum(len(case) == 0 for case in cases) / max(len(cases), 1)


BENCHES = (
    Bench(
        rows=(
            "secagg.client",
            "secagg.mask",
            "secagg.server_0",
            "secagg.server_10",
            "secagg.server_30",
            "secagg.upload",
        ),
        measure=measure_million,
    ),
    Bench(
        rows=(
            "secagg.all_clients",
            "secagg.all_server",
            "secagg.messages",
            "secagg.bytes",
            "secagg.pairwise_clients",
            "secagg.pairwise_server",
            "secagg.pairwise_messages",
        ),
        measure=measure_hundred,
    ),
    Bench(rows=("secagg.exact_rlwe", "secagg.exact_pairwise", "secagg.exact_encrypted"), measure=measure_exactness),
    Bench(rows=("secagg.growth_client", "secagg.growth_server"), measure=measure_growth),
    Bench(rows=("secagg.seed_bits", *_ATTACK_TESTS), measure=measure_attacks),
)

if __name__ == "__main__":
    _calls: dict[str, Callable[[list[str]], dict[str, float]]] = {
        "rehearsed": lambda given: rehearsed(given[0], int(given[1]), int(given[2]), int(given[3])),
        "mask_alone": lambda given: mask_alone(int(given[0])),
        "one_client": lambda given: one_client(int(given[0]), int(given[1]), given[2]),
        "exact_patterns": lambda given: exact_patterns(given[0], int(given[1])),
    }
    if sys.argv[1] == "draw_growth":
        draw_growth(Path(sys.argv[2]))
    else:
        print(json.dumps(_calls[sys.argv[1]](sys.argv[2:])))
