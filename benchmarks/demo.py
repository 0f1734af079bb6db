"""The demo's own promises, read from ``mibao demo --json`` in a fresh process, offline."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.harness import Bench, Measurement, NotMeasured

_RUNS = 3

ROWS = (
    "demo.seconds",
    "demo.accuracy_gap",
    "demo.epsilon",
    "demo.sum_exact",
    "demo.clear_weights_agreement",
    "demo.encrypted_weights_agreement",
    "demo.restored",
    "demo.byte_identical",
    "demo.refused",
    "demo.tampering_found",
)


def figures(report: dict[str, Any], *, wall_s: float) -> dict[str, float]:
    """The figure of every row from one report of the demo; a yes counts as 1.

    Raises:
        KeyError: the report lacks a key that the demo documents.
    """
    federated, he, ledger = report["federated"], report["he"], report["ledger"]
    return {
        "demo.seconds": wall_s,
        "demo.accuracy_gap": 100 * (federated["pooled_accuracy"] - federated["accuracy"]),
        "demo.epsilon": federated["epsilon"],
        "demo.sum_exact": float(federated["sum_exact"]),
        "demo.clear_weights_agreement": he["clear_weights"]["agreement"],
        "demo.encrypted_weights_agreement": he["encrypted_weights"]["agreement"],
        "demo.restored": float(report["deid"]["restored"]),
        "demo.byte_identical": float(report["sealed"]["byte_identical"]),
        "demo.refused": float(len(report["sealed"]["refused"])),
        "demo.tampering_found": float(ledger["found_index"] == ledger["tampered_index"]),
    }


def _one_run() -> dict[str, float]:
    command = [str(Path(sys.executable).with_name("mibao")), "demo", "--json"]
    started = time.perf_counter()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False)
    wall_s = time.perf_counter() - started
    try:
        report = json.loads(done.stdout)
    except json.JSONDecodeError as error:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise NotMeasured(f"mibao demo --json ended with {done.returncode}: {last}") from error
    return figures(report, wall_s=wall_s)


def measure() -> Iterator[Measurement]:
    """Every row's median over three runs."""
    runs = [_one_run() for _ in range(_RUNS)]
    for row in ROWS:
        yield Measurement(id=row, ours=statistics.median(run[row] for run in runs))


BENCHES = (Bench(rows=ROWS, measure=measure),)
