"""How local work becomes a better shared model: what a site uploads, and what the server makes of the sum.

A strategy is a small record with the steps of a round as functions of their arguments; what the server keeps from
round to round is a dictionary of arrays, so that a checkpoint holds it. All of them but those with a robust ``rule``
work from the sum over sites alone, and so combine with secure aggregation.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Float64, Num
from numpy import ndarray

from mibao.errors import InputError
from mibao.federated.local_training import LocalOptimiser, LocalTraining
from mibao.federated.models import Model
from mibao.federated.records import Records
from mibao.federated.robust import Rule
from mibao.types import Strategy as StrategyName

State: TypeAlias = MutableMapping[str, Num[ndarray, "..."]]
Weights: TypeAlias = Float64[ndarray, "weights"]


@runtime_checkable
class Strategy(Protocol):
    """What one round uploads and does, as functions of their arguments."""

    name: ClassVar[StrategyName]

    @property
    def rule(self) -> Rule | None:
        """How the server combines uploads that it sees one by one; ``None``: it needs their sum alone."""
        ...

    @property
    def local(self) -> LocalTraining | None:
        """How clients train; ``None``: they upload sums of gradients."""
        ...

    def upload_length(self, model: Model) -> int:
        """How many numbers a site uploads, without the count of its records."""
        ...

    def update(self, weights: Weights, mean: Float64[ndarray, "upload"], state: State) -> Weights:
        """The next weights, from the mean over those who took part; ``state`` is the server's own, and kept."""
        ...

    def finish(self, weights: Weights, state: State) -> Weights:
        """The weights to release."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FedSGD:
    """One full-batch gradient step a round: each site uploads the sum of its records' gradients.

    The server divides by ``divisor``, a public constant of the order of all records together: the true count
    would have to be protected, too. The last ``average_last`` iterates are averaged, which costs no privacy.

    Raises:
        InputError: a number is not positive.

    Source: McMahan et al., AISTATS 2017, section 2 (FedSGD); Polyak and Juditsky, SICON 1992 (averaging).
    """

    name: ClassVar[StrategyName] = StrategyName.FEDSGD
    rule: ClassVar[Rule | None] = None
    local: ClassVar[LocalTraining | None] = None
    lr: float
    divisor: float
    average_last: int = 1

    def __post_init__(self) -> None:
        _require_positive("FedSGD", lr=self.lr, divisor=self.divisor, average_last=self.average_last)

    def upload_length(self, model: Model) -> int:
        """One number a weight."""
        return model.size

    def upload(
        self, model: Model, weights: Float64[ndarray, "weights"], records: Records
    ) -> Float64[ndarray, "upload"]:
        """The sum of the records' gradients, not clipped: for runs without differential privacy."""
        total: Float64[ndarray, "upload"] = model.gradients(weights, records).sum(axis=0)
        return total

    def update(self, weights: Weights, mean: Float64[ndarray, "upload"], state: State) -> Weights:
        """One step against the summed gradient; here ``mean`` is that sum."""
        moved = weights - self.lr / self.divisor * mean
        if self.average_last > 1:
            recent = state.get("recent", np.empty((0, len(weights))))
            state["recent"] = np.concatenate([recent, moved[None]])[-self.average_last :]
        return moved

    def finish(self, weights: Weights, state: State) -> Weights:
        """The mean of the last iterates."""
        recent = state.get("recent")
        if recent is None:
            return weights
        mean: Weights = np.mean(recent, axis=0)
        return mean


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAvg:
    """Local training at each site, then the mean of how far the weights moved, each site counting as many as it has
    records. The counts travel under the mask: the server learns their sum only. With differential privacy of clients
    every client counts the same, and the server divides by the public size of a cohort.

    Args:
        lr: The clients' learning rate.
        local_epochs: How often each client visits its records; a tuple gives every client's own number.
        batch: Records a step; ``None``: all.
        optimiser: ``"sgd"`` or ``"adam"``.
        momentum: Of the clients' SGD, fresh in every round.
        weight_decay: The clients'.
        shuffle: Whether records are visited in a new order each epoch.
        personal: Patterns of names of parameters that stay with each client and are never uploaded.
        rule: A robust rule instead of the mean; refused with secure aggregation and with differential privacy.

    Raises:
        InputError: a number is out of range.

    Source: McMahan et al., AISTATS 2017, algorithm 1.
    """

    name: ClassVar[StrategyName] = StrategyName.FEDAVG
    lr: float
    local_epochs: int | tuple[int, ...] = 1
    batch: int | None = None
    optimiser: str = LocalOptimiser.SGD.value
    momentum: float = 0.0
    weight_decay: float = 0.0
    shuffle: bool = True
    personal: tuple[str, ...] = ()
    rule: Rule | None = None

    def __post_init__(self) -> None:
        kind = type(self).__name__
        if self.optimiser not in [each.value for each in LocalOptimiser]:
            raise InputError(f"{kind}: expected the optimiser 'sgd' or 'adam', got '{self.optimiser}'")
        epochs = self.local_epochs if isinstance(self.local_epochs, tuple) else (self.local_epochs,)
        for number in epochs or (0,):
            _require_positive(kind, lr=self.lr, local_epochs=number)
        if self.batch is not None:
            _require_positive(kind, batch=self.batch)
        if not 0.0 <= self.momentum < 1.0 or not 0.0 <= self.weight_decay < float("inf"):
            raise InputError(f"{kind}: expected a momentum in 0..1 and a weight decay of 0 or more")

    @property
    def local(self) -> LocalTraining | None:
        """The clients' training."""
        return self._local(proximal=0.0)

    def _local(self, *, proximal: float) -> LocalTraining:
        return LocalTraining(
            lr=self.lr,
            batch=self.batch,
            optimiser=LocalOptimiser(self.optimiser),
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            proximal=proximal,
        )

    def epochs_of(self, client: int) -> int:
        """How often a client visits its records. Raises ``InputError`` for one that has no number of its own."""
        if not isinstance(self.local_epochs, tuple):
            return self.local_epochs
        if client >= len(self.local_epochs):
            raise InputError(f"client {client}: expected one of {len(self.local_epochs)} clients with local epochs")
        return self.local_epochs[client]

    def upload_length(self, model: Model) -> int:
        """One number a weight."""
        return model.size

    def update(self, weights: Weights, mean: Float64[ndarray, "upload"], state: State) -> Weights:
        """The weights moved by the mean."""
        return np.asarray(weights + mean)

    def finish(self, weights: Weights, state: State) -> Weights:
        """The last iterate."""
        return weights


@dataclass(frozen=True, slots=True, kw_only=True)
class FedProx(FedAvg):
    """FedAvg whose clients are held near the shared weights: ``mu / 2`` times the squared distance is in their loss.

    Source: Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020, algorithm 2.
    """

    name: ClassVar[StrategyName] = StrategyName.FEDPROX
    mu: float

    def __post_init__(self) -> None:
        FedAvg.__post_init__(self)
        _require_positive("FedProx", mu=self.mu)

    @property
    def local(self) -> LocalTraining | None:
        """The clients' training, with the proximal term."""
        return self._local(proximal=self.mu)


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAvgM(FedAvg):
    """FedAvg with momentum at the server.

    Source: Hsu, Qi and Brown, "Measuring the Effects of Non-Identical Data Distribution", 2019, section 3.
    """

    name: ClassVar[StrategyName] = StrategyName.FEDAVGM
    server_lr: float = 1.0
    server_momentum: float = 0.9

    def __post_init__(self) -> None:
        FedAvg.__post_init__(self)
        _require_positive("FedAvgM", server_lr=self.server_lr, server_momentum=self.server_momentum)

    def update(self, weights: Weights, mean: Float64[ndarray, "upload"], state: State) -> Weights:
        """The weights moved by the velocity."""
        velocity = self.server_momentum * state.get("velocity", np.zeros_like(weights)) + mean
        state["velocity"] = velocity
        return np.asarray(weights + self.server_lr * velocity)


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAdam(FedAvg):
    """FedAvg with Adam at the server, without bias correction.

    Source: Reddi et al., "Adaptive Federated Optimization", ICLR 2021, algorithm 2.
    """

    name: ClassVar[StrategyName] = StrategyName.FEDADAM
    server_lr: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def __post_init__(self) -> None:
        FedAvg.__post_init__(self)
        kind = type(self).__name__
        _require_positive(kind, server_lr=self.server_lr, tau=self.tau)
        if not (0.0 <= self.beta1 < 1.0 and 0.0 <= self.beta2 < 1.0):
            raise InputError(f"{kind}: expected betas in 0..1, got {self.beta1:g} and {self.beta2:g}")

    def update(self, weights: Weights, mean: Float64[ndarray, "upload"], state: State) -> Weights:
        """The weights moved by the mean of recent moves over their size."""
        first = self.beta1 * state.get("first", np.zeros_like(weights)) + (1.0 - self.beta1) * mean
        second = self._second(state.get("second", np.full_like(weights, self.tau**2)), mean * mean)
        state["first"], state["second"] = first, second
        return np.asarray(weights + self.server_lr * first / (np.sqrt(second) + self.tau))

    def _second(self, second: Weights, square: Weights) -> Weights:
        return np.asarray(self.beta2 * second + (1.0 - self.beta2) * square)


@dataclass(frozen=True, slots=True, kw_only=True)
class FedYogi(FedAdam):
    """FedAvg with Yogi at the server: the second moment changes by no more than the last square.

    Source: Reddi et al., "Adaptive Federated Optimization", ICLR 2021, algorithm 2.
    """

    name: ClassVar[StrategyName] = StrategyName.FEDYOGI

    def _second(self, second: Weights, square: Weights) -> Weights:
        return np.asarray(second - (1.0 - self.beta2) * square * np.sign(second - square))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaffold(FedAvg):
    """Control variates, at the server and at every client, that take out the drift of clients whose records differ.

    A client uploads how far its weights and its variate moved, and keeps the variate; all clients count the same.

    Args:
        clients: How many there are in all.
        server_lr: How far the server goes along the mean.

    Source: Karimireddy et al., "SCAFFOLD", ICML 2020, algorithm 1, option II.
    """

    name: ClassVar[StrategyName] = StrategyName.SCAFFOLD
    clients: int
    server_lr: float = 1.0

    def __post_init__(self) -> None:
        FedAvg.__post_init__(self)
        _require_positive("Scaffold", clients=self.clients, server_lr=self.server_lr)
        if self.optimiser != LocalOptimiser.SGD.value or self.momentum or self.weight_decay:
            raise InputError("Scaffold: expected plain SGD at the clients: its variates are means of gradients")

    def upload_length(self, model: Model) -> int:
        """One number a weight, and one a weight of the variate."""
        return 2 * model.size

    def correction(self, own: Weights, state: Mapping[str, Num[ndarray, "..."]]) -> Weights:
        """What a client adds to each gradient."""
        shared: Weights = state.get("variate", np.zeros_like(own))
        return np.asarray(shared - own)

    def variate_moved(self, moved: Weights, *, own: Weights, correction: Weights, steps: int) -> Weights:
        """How far the client's variate moves, from how far ``steps`` steps moved its weights."""
        return np.asarray(-(correction + own) - moved / (steps * self.lr))

    def update(self, weights: Weights, mean: Float64[ndarray, "upload"], state: State) -> Weights:
        """Weights and variate, each moved by its mean; the variate by the share of the clients that took part."""
        moved, variate = np.split(mean, 2)
        share = float(state["took_part"][0]) / self.clients
        state["variate"] = state.get("variate", np.zeros_like(weights)) + share * variate
        return np.asarray(weights + self.server_lr * moved)


@dataclass(frozen=True, slots=True, kw_only=True)
class FedBuff(FedAvg):
    """Asynchronous averaging: the server takes a step as soon as a buffer of updates is full, and many of them began
    at older weights. Such an update counts ``1 / sqrt(1 + age)``; one older than ``max_age`` rounds is refused.

    The buffer is the cohort. A simulation draws each update's age from 0 to ``max_age``.

    Source: Nguyen et al., "Federated Learning with Buffered Asynchronous Aggregation", AISTATS 2022, algorithm 1.
    """

    name: ClassVar[StrategyName] = StrategyName.FEDBUFF
    server_lr: float = 1.0
    max_age: int = 4

    def __post_init__(self) -> None:
        FedAvg.__post_init__(self)
        _require_positive("FedBuff", server_lr=self.server_lr)
        if self.max_age < 0:
            raise InputError(f"FedBuff: expected a max_age of 0 or more, got {self.max_age}")

    def update(self, weights: Weights, mean: Float64[ndarray, "upload"], state: State) -> Weights:
        """The weights moved by the mean; the weights before are kept for those who are still at work on them."""
        older = state.get("older", np.empty((0, len(weights))))
        state["older"] = np.concatenate([weights[None], older])[: self.max_age]
        return np.asarray(weights + self.server_lr * mean)


def _require_positive(strategy: str, **numbers: int | float) -> None:
    for name, number in numbers.items():
        if not 0 < number < float("inf"):
            raise InputError(f"{strategy}: expected a positive {name}, got {number:g}")
