"""The workloads of federated simulation: data, module, cohorts, the same for every side. Needs NumPy and PyTorch only.

A: logistic regression, 62 parameters, 20 of 100 clients. B: an MLP, 50,826 parameters, 50 of 1000 clients. C: a CNN
of two convolutions on 32x32x3, 145,110 parameters, 10 of 100 clients. Each client has 64 records, batches of 16 in
order, one epoch, SGD.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

RECORDS, BATCH, HELD_OUT = 64, 16, 1000
SEED = 7


@dataclass(frozen=True)
class Workload:
    """One workload: who, how often, and what a record looks like."""

    clients: int
    cohort: int
    rounds: int
    shape: tuple[int, ...]
    classes: int
    lr: float


WORKLOADS = {
    "A": Workload(clients=100, cohort=20, rounds=50, shape=(30,), classes=2, lr=0.1),
    "B": Workload(clients=1000, cohort=50, rounds=20, shape=(64,), classes=10, lr=0.1),
    "C": Workload(clients=100, cohort=10, rounds=4, shape=(3, 32, 32), classes=10, lr=0.05),
}


def module(name: str) -> nn.Module:
    """The module with its first weights."""
    torch.manual_seed(SEED)
    if name == "A":
        return nn.Sequential(nn.Linear(30, 2))
    if name == "B":
        return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10))
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(2048, 68), nn.ReLU(), nn.Linear(68, 10),
    )  # fmt: skip


def data(name: str) -> tuple[list[tuple[Any, Any]], tuple[Any, Any]]:
    """Each client's features and classes, and those held out."""
    workload = WORKLOADS[name]
    rng = np.random.default_rng(SEED)
    pull = rng.normal(size=(int(np.prod(workload.shape)), workload.classes))

    def records(count: int) -> tuple[Any, Any]:
        features = rng.normal(size=(count, *workload.shape)).astype(np.float32)
        return features, (features.reshape(count, -1) @ pull).argmax(axis=1)

    return [records(RECORDS) for _ in range(workload.clients)], records(HELD_OUT)


def cohort(name: str, round_number: int) -> list[int]:
    """Who takes part in a round."""
    workload = WORKLOADS[name]
    drawn = np.random.default_rng([SEED, round_number]).choice(workload.clients, size=workload.cohort, replace=False)
    return sorted(drawn.tolist())


def accuracy(trained: nn.Module, held_out: tuple[Any, Any]) -> float:
    """The share of held-out records that are classed right."""
    with torch.no_grad():
        outputs = trained.eval()(torch.from_numpy(held_out[0]))
    return float((outputs.argmax(1).numpy() == held_out[1]).mean())
