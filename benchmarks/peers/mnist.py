"""MNIST shared out among 100 clients by a Dirichlet distribution, and a small CNN: the same for every side.

Needs NumPy and PyTorch only, and ``MIBAO_DATA`` with ``mnist/*.gz``. Ten clients a round, batches of 16 in order.
"""

import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

CLIENTS, COHORT, ROUNDS, EVERY = 100, 10, 30, 10
BATCH, LR, SEED, ALPHA, LEAST = 16, 0.05, 7, 0.3, 16


def module() -> nn.Module:
    """Two convolutions and a layer over them, with its first weights."""
    torch.manual_seed(SEED)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(784, 10),
    )  # fmt: skip


def data() -> tuple[list[tuple[Any, Any]], tuple[Any, Any]]:
    """Each client's images and classes, and the test set."""
    images, classes = _read("train")
    rng = np.random.default_rng(SEED)
    while True:
        pieces: list[list[Any]] = [[] for _ in range(CLIENTS)]
        for digit in range(10):
            places = rng.permutation(np.flatnonzero(classes == digit))
            cuts = (np.cumsum(rng.dirichlet(np.full(CLIENTS, ALPHA)))[:-1] * len(places)).astype(int)
            for piece, part in zip(pieces, np.split(places, cuts), strict=True):
                piece.append(part)
        parts = [rng.permutation(np.concatenate(piece)) for piece in pieces]
        if min(map(len, parts)) >= LEAST:
            return [(images[part], classes[part]) for part in parts], _read("t10k")


def cohort(round_number: int) -> list[int]:
    """Who takes part in a round."""
    drawn = np.random.default_rng([SEED, round_number]).choice(CLIENTS, size=COHORT, replace=False)
    return sorted(drawn.tolist())


def _read(name: str) -> tuple[Any, Any]:
    folder = Path(os.environ["MIBAO_DATA"], "mnist")
    pixels = np.frombuffer(gzip.decompress((folder / f"{name}-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
    labels = np.frombuffer(gzip.decompress((folder / f"{name}-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    return pixels.reshape(-1, 1, 28, 28).astype(np.float32) / 255.0, labels.astype(np.int64)
