"""Ours on MNIST, in a fresh process: the accuracy after 10, 20 and 30 rounds. One JSON object on the last line."""

from __future__ import annotations

import json
import time

import torch
from torch.nn import functional

from benchmarks.peers.mnist import BATCH, CLIENTS, COHORT, EVERY, LR, ROUNDS, SEED, data, module
from benchmarks.peers.workloads import accuracy
from mibao.federated import FedAvg, Records, Task


def main() -> dict[str, float]:
    """The curve, and CPU seconds of the rounds."""
    torch.set_num_threads(1)
    clients, test = data()
    sites = [Records(features=images, targets=classes) for images, classes in clients]
    task = Task(
        model=module(),
        loss=functional.cross_entropy,
        data=sites.__getitem__,
        strategy=FedAvg(lr=LR, batch=BATCH, shuffle=False),
        aggregation="plain",
    )
    curve, spent = {}, 0.0
    for rounds in range(EVERY, ROUNDS + 1, EVERY):
        started = time.process_time()
        result = task.simulate(clients=CLIENTS, cohort=COHORT, rounds=rounds, seed=SEED, engine="sums")
        spent = time.process_time() - started  # of the last, which has all rounds
        curve[f"{rounds}"] = accuracy(result.model, test)
    return {"seconds": spent, **curve}


if __name__ == "__main__":
    print(json.dumps(main()))
