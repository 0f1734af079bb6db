"""Ours on one workload, in a fresh process: ``A|B|C`` and ``plain|private``. One JSON object on the last line."""

from __future__ import annotations

import json
import resource
import sys
import time

import numpy as np
import torch
from torch.nn import functional

from benchmarks.peers.workloads import BATCH, SEED, WORKLOADS, accuracy, data, module
from mibao.federated import FedAvg, NoiseSource, Privacy, Records, Result, Task


def main(name: str, kind: str) -> dict[str, float]:
    """CPU milliseconds a client over whole rounds, and what came of it."""
    torch.set_num_threads(1)
    workload = WORKLOADS[name]
    clients, held_out = data(name)
    sites = [Records(features=features, targets=classes) for features, classes in clients]
    clients.clear()
    private = kind == "private"
    task = Task(
        model=module(name),
        loss=functional.cross_entropy,
        data=sites.__getitem__,
        strategy=FedAvg(lr=workload.lr, batch=BATCH, shuffle=False),
        privacy=Privacy(clip=1.0, noise_multiplier=0.6, delta=1e-5, noise=NoiseSource.CENTRAL) if private else None,
        aggregation="secagg" if private else "plain",
    )

    def run(rounds: int) -> Result:
        return task.simulate(clients=workload.clients, cohort=workload.cohort, rounds=rounds, seed=SEED, engine="sums")

    run(1)
    started = time.process_time()
    result = run(workload.rounds)
    spent = time.process_time() - started
    trained = sum(map(len, result.survivors))
    return {
        "ms": spent * 1e3 / trained,
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "accuracy": accuracy(result.model, held_out),
        "norm": float(np.linalg.norm(result.weights)),
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2])))
