"""What a client does with its own records in one round: which batches in which order, and how a step is taken."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64, Num
from numpy import ndarray

from mibao.errors import InputError
from mibao.federated.records import Records

if TYPE_CHECKING:
    from numpy.random import Generator

ADAM_BETAS = (0.9, 0.999)
ADAM_EPS = 1e-8
_BLOCK_BYTES = 8 << 20


class LocalOptimiser(Enum):
    """How a client turns a gradient into a step; named as in PyTorch, and computed as there."""

    SGD = "sgd"
    ADAM = "adam"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalTraining:
    """How every client trains.

    Attributes:
        lr: The learning rate.
        batch: Records a step; ``None``: all of them.
        optimiser: The step's rule.
        momentum: Of SGD.
        weight_decay: Times the weights, added to the gradient.
        proximal: Times what the weights have moved in this round, added to the gradient (FedProx).
    """

    lr: float
    batch: int | None = None
    optimiser: LocalOptimiser = LocalOptimiser.SGD
    momentum: float = 0.0
    weight_decay: float = 0.0
    proximal: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LocalWork:
    """One client's work in one round.

    Attributes:
        client: Its number.
        records: Its records.
        visits: The records of each step by their index, ``-1`` where a step has fewer than others.
        start: The weights it begins with, where they are not those of everybody.
        correction: Added to every gradient (SCAFFOLD).
        discount: What its upload is multiplied with (FedBuff).
        seed: Of its dropout layers.
        places: The coordinates of its update that are sent; ``None``: all, or its own choice.
    """

    client: int
    records: Records = field(repr=False)
    visits: Int64[ndarray, "steps batch"] = field(repr=False)
    start: Float64[ndarray, "weights"] | None = field(default=None, repr=False)
    correction: Float64[ndarray, "weights"] | None = field(default=None, repr=False)
    discount: float = 1.0
    seed: int = 0
    places: Int64[ndarray, "kept"] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trained:
    """How far the weights of some clients moved, a row a client; ``places`` are their places in the cohort."""

    places: tuple[int, ...]
    moved: Float[ndarray, "clients weights"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step:
    """One step of the clients that are still at work, the first ``active`` of their group.

    Attributes:
        shares: Each record's share in its step's mean loss, zero where there is none; ``None``: all the same.
    """

    active: int
    features: Num[ndarray, "active batch ..."]
    targets: Num[ndarray, "active batch ..."]
    shares: Float[ndarray, "active batch"] | None


def plan_visits(
    count: int, *, epochs: int, batch: int | None, shuffled: Generator | None
) -> Int64[ndarray, "steps batch"]:
    """The order in which a client of ``count`` records visits them: every one once an epoch, the last step ragged."""
    size = count if batch is None else min(batch, count)
    if shuffled is None:
        return _in_order(count, epochs, size)
    visits = np.full((epochs, -(-count // size) * size), -1, dtype=np.int64)
    for epoch in visits:
        epoch[:count] = shuffled.permutation(count)
    return visits.reshape(-1, size)


@functools.lru_cache(maxsize=256)
def _in_order(count: int, epochs: int, size: int) -> Int64[ndarray, "steps batch"]:
    epoch = np.full(-(-count // size) * size, -1, dtype=np.int64)
    epoch[:count] = np.arange(count)
    visits = np.tile(epoch, epochs).reshape(-1, size)
    visits.setflags(write=False)
    return visits


def in_groups(works: Sequence[LocalWork], *, size: int) -> Iterator[tuple[int, ...]]:
    """Places of works with like numbers of steps, at most ``size`` together, in each group the longest first."""
    order = sorted(range(len(works)), key=lambda place: -len(works[place].visits))
    for start in range(0, len(order), size):
        yield tuple(order[start : start + size])


def steps(group: Sequence[LocalWork]) -> Iterator[Step]:
    """The batches of a group, step by step; copied in blocks of some megabytes, whatever the number of epochs."""
    longest = len(group[0].visits)
    batch = max(work.visits.shape[1] for work in group)
    first = group[0].records
    row_bytes = max(1, first.features[0].nbytes + first.targets[0].nbytes)
    block = max(1, _BLOCK_BYTES // (row_bytes * batch * len(group)))
    lengths = [len(work.visits) for work in group]
    for start in range(0, longest, block):
        yield from _block(group, lengths, start, min(start + block, longest), batch)


def _block(group: Sequence[LocalWork], lengths: Sequence[int], start: int, stop: int, batch: int) -> Iterator[Step]:
    alive = [work for work, length in zip(group, lengths, strict=True) if length > start]
    # Steps first: what one step takes lies in one piece.
    features, targets, real = _gathered(alive, start, stop, batch)
    for number in range(stop - start):
        active = sum(length > start + number for length in lengths) if lengths[len(alive) - 1] < stop else len(alive)
        shares = None
        if real is not None and not (mask := real[number, :active]).all():
            shares = mask / mask.sum(axis=1, keepdims=True)
        yield Step(active=active, features=features[number, :active], targets=targets[number, :active], shares=shares)


def _gathered(
    alive: Sequence[LocalWork], start: int, stop: int, batch: int
) -> tuple[Num[ndarray, "..."], Num[ndarray, "..."], Bool[ndarray, "steps clients batch"] | None]:
    """The records of all steps, and which of them are there; ``None``: all."""
    first, count = alive[0], stop - start
    even = all(len(work.records) % batch == 0 and work.visits.shape[1] == batch for work in alive)
    if even and all(work.visits is first.visits for work in alive):
        visits = first.visits[start:stop]
        return (
            np.stack([work.records.features[visits] for work in alive], axis=1),
            np.stack([work.records.targets[visits] for work in alive], axis=1),
            None,
        )
    records = first.records
    features = np.zeros((count, len(alive), batch, *records.features.shape[1:]), records.features.dtype)
    targets = np.zeros((count, len(alive), batch, *records.targets.shape[1:]), records.targets.dtype)
    real = np.zeros((count, len(alive), batch), dtype=bool)
    for at, work in enumerate(alive):
        visits = work.visits[start:stop]
        many, wide = visits.shape
        # Where there is no record the last one is taken; it has no share.
        features[:many, at, :wide] = work.records.features[visits]
        targets[:many, at, :wide] = work.records.targets[visits]
        real[:many, at, :wide] = visits >= 0
    return features, targets, real


class Stepper:
    """Takes the steps of a group of clients: in place, on NumPy arrays and PyTorch tensors alike.

    Args:
        local: The rule.
        weights: One array a parameter, a row a client; changed in place.
        start: The same, as the round began; needed for the proximal term only.
        correction: Added to the gradients.
    """

    def __init__(
        self, local: LocalTraining, weights: Sequence[Any], *, start: Sequence[Any] = (), correction: Sequence[Any] = ()
    ) -> None:
        self._local, self._weights, self._start, self._correction = local, weights, start, correction
        self._first: list[Any] = []
        self._second: list[Any] = []
        self._taken = 0

    def step(self, gradients: Sequence[Any], active: int) -> None:
        """One step of the first ``active`` clients; the gradients are used up."""
        local = self._local
        for place, gradient in enumerate(gradients):
            slope, weights = gradient[:active], self._weights[place][:active]
            if local.weight_decay:
                slope += local.weight_decay * weights
            if local.proximal:
                slope += local.proximal * (weights - self._start[place][:active])
            if self._correction:
                slope += self._correction[place][:active]
        if local.optimiser is LocalOptimiser.ADAM:
            self._adam(gradients, active)
        elif local.momentum:
            self._momentum(gradients, active)
        else:
            for weights, gradient in zip(self._weights, gradients, strict=True):
                weights[:active] -= local.lr * gradient[:active]
        self._taken += 1

    def _momentum(self, gradients: Sequence[Any], active: int) -> None:
        if not self._first:
            self._first = [0.0 * gradient for gradient in gradients]
        for weights, gradient, velocity in zip(self._weights, gradients, self._first, strict=True):
            moving = velocity[:active]
            moving *= self._local.momentum
            moving += gradient[:active]
            weights[:active] -= self._local.lr * moving

    def _adam(self, gradients: Sequence[Any], active: int) -> None:
        if not self._first:
            self._first = [0.0 * gradient for gradient in gradients]
            self._second = [0.0 * gradient for gradient in gradients]
        (beta1, beta2), number = ADAM_BETAS, self._taken + 1
        step, root = self._local.lr / (1.0 - beta1**number), math.sqrt(1.0 - beta2**number)
        for weights, gradient, first, second in zip(self._weights, gradients, self._first, self._second, strict=True):
            slope, mean, square = gradient[:active], first[:active], second[:active]
            mean *= beta1
            mean += (1.0 - beta1) * slope
            square *= beta2
            square += (1.0 - beta2) * slope * slope
            weights[:active] -= step * mean / (square**0.5 / root + ADAM_EPS)


def check_works(works: Sequence[LocalWork]) -> None:
    """Return if all works' records have one shape and type, else raise ``InputError`` naming the client."""
    if not works:
        return
    first = works[0].records
    expected = (first.features.shape[1:], first.features.dtype, first.targets.shape[1:], first.targets.dtype)
    for work in works:
        held = work.records
        if (held.features.shape[1:], held.features.dtype, held.targets.shape[1:], held.targets.dtype) != expected:
            raise InputError(
                f"client {work.client}: expected records of shape {expected[0]} and type {expected[1]}, "
                f"got {held.features.shape[1:]} and {held.features.dtype}"
            )
