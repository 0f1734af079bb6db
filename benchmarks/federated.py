"""Federated simulation: CPU milliseconds a client over whole rounds, each side in a fresh process, one thread.

Beside pfl 0.6 and the lean loop that anyone would write, on the same records, cohorts and batches; and beside Flower's
simulator, cut down to 100 clients.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from packaging.requirements import Requirement

from benchmarks.harness import Bench, Measurement, NotMeasured, beside_peer, rounds
from benchmarks.peers.venvs import ask, ask_python

_ROUNDS = 3


def ours(workload: str, kind: str = "plain") -> dict[str, float]:
    """One run of ours in a fresh process."""
    return ask_python(Path(sys.executable), "-m", "benchmarks.federated_work", workload, kind)


def pfl(workload: str) -> dict[str, float]:
    """One run of pfl."""
    return ask("pfl", "pfl_rows.py", workload)


def loop(workload: str) -> dict[str, float]:
    """One run of the lean loop, in pfl's environment, for its PyTorch."""
    return ask("pfl", "plain_loop_rows.py", workload)


def speed(row: str, workload: str, peer: Callable[[str], dict[str, float]]) -> Iterator[Measurement]:
    """Milliseconds a client."""
    yield beside_peer(row, ours=lambda: ours(workload)["ms"], peer=lambda: peer(workload)["ms"], rounds=rounds(_ROUNDS))


def flower() -> Iterator[Measurement]:
    """Workload B beside Flower's simulator, its wall time on one actor; ours is CPU time on one thread."""
    yield beside_peer(
        "federated.mlp_flower",
        ours=lambda: ours("B")["ms"],
        peer=lambda: ask("flower_simulation", "flower_simulation_rows.py", timeout_s=300)["ms"],
        rounds=2,
    )


def memory() -> Iterator[Measurement]:
    """The most memory that a process of workload B ever held."""
    yield beside_peer(
        "federated.memory", ours=lambda: ours("B")["memory_mb"], peer=lambda: pfl("B")["memory_mb"], rounds=2
    )


def accuracy() -> Iterator[Measurement]:
    """How far the model's norm is from the loop's, relative; and both accuracies, where it may not be far."""
    for workload, row in (("A", "federated.accuracy_logistic"), ("B", "federated.accuracy_mlp")):
        mine, theirs = ours(workload), loop(workload)
        yield Measurement(
            id=row,
            ours=abs(mine["norm"] / theirs["norm"] - 1.0) + abs(mine["accuracy"] - theirs["accuracy"]),
            note=f"held-out accuracy {mine['accuracy']:.4f}, the loop's {theirs['accuracy']:.4f}",
        )


def mnist() -> Iterator[Measurement]:
    """Test accuracy after 30 rounds; the curve in the note."""
    if not os.environ.get("MIBAO_DATA"):
        raise NotMeasured("MIBAO_DATA is not set: its folder mnist holds MNIST's four idx files, gzipped")
    mine = ask_python(Path(sys.executable), "-m", "benchmarks.federated_mnist")
    theirs = ask("pfl", "pfl_mnist_rows.py")
    points = ", ".join(f"{at}: {mine[at]:.4f} ({theirs[at]:.4f})" for at in ("10", "20", "30"))
    note = f"after rounds, pfl's in brackets: {points}; {mine['seconds']:.0f} s of CPU ({theirs['seconds']:.0f} s)"
    yield Measurement(id="federated.mnist", ours=mine["30"], peer=theirs["30"], note=note)


def protections() -> Iterator[Measurement]:
    """Clipping, the grid, ring sums and central noise, over the plain run's time; in turn."""
    runs = [(ours("B", "private")["ms"], ours("B")["ms"]) for _ in range(rounds(_ROUNDS))]
    private, plain = (statistics.median(column) for column in zip(*runs, strict=True))
    note = f"{private:.3f} ms a client with protections, {plain:.3f} without; sums as under masks, masks not run"
    yield Measurement(id="federated.protections", ours=private / plain, note=note)


def install() -> Iterator[Measurement]:
    """Distributions that training needs beyond the core and PyTorch."""
    beyond = _closure("mibao", frozenset({"torch"})) - _closure("mibao", frozenset()) - _closure("torch", frozenset())
    yield Measurement(id="federated.install", ours=float(len(beyond)), note=", ".join(sorted(beyond)) or None)


def _closure(name: str, extras: frozenset[str]) -> set[str]:
    found: set[str] = set()
    waiting = [(name, extras)]
    while waiting:
        current, wanted = waiting.pop()
        if current in found:
            continue
        found.add(current)
        for line in importlib.metadata.requires(current) or []:
            requirement = Requirement(line)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in wanted | {""}):
                waiting.append((re.sub(r"[-_.]+", "-", requirement.name).lower(), frozenset(requirement.extras)))
    return found


BENCHES = (
    Bench(rows=("federated.mlp",), measure=lambda: speed("federated.mlp", "B", pfl)),
    Bench(rows=("federated.mlp_loop",), measure=lambda: speed("federated.mlp_loop", "B", loop)),
    Bench(rows=("federated.mlp_flower",), measure=flower),
    Bench(rows=("federated.logistic",), measure=lambda: speed("federated.logistic", "A", pfl)),
    Bench(rows=("federated.cnn",), measure=lambda: speed("federated.cnn", "C", pfl)),
    Bench(rows=("federated.mnist",), measure=mnist),
    Bench(rows=("federated.memory",), measure=memory),
    Bench(rows=("federated.accuracy_logistic", "federated.accuracy_mlp"), measure=accuracy),
    Bench(rows=("federated.protections",), measure=protections),
    Bench(rows=("federated.install",), measure=install),
)
