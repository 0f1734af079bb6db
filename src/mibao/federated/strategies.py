"""How local work becomes a better shared model: what a site uploads, and what the server makes of the sum.

Every strategy here works from the sum over sites alone, so each combines with secure aggregation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from mibao.errors import InputError, ProtocolError
from mibao.federated.models import Model
from mibao.federated.records import Records
from mibao.types import Strategy as StrategyName


@runtime_checkable
class Strategy(Protocol):
    """What one round uploads and does, as functions of their arguments."""

    name: ClassVar[StrategyName]

    def upload_length(self, model: Model) -> int:
        """How many numbers a site uploads."""
        ...

    def upload(
        self, model: Model, weights: Float64[ndarray, "weights"], records: Records
    ) -> Float64[ndarray, "upload"]:
        """What a site adds to the sum."""
        ...

    def update(
        self, weights: Float64[ndarray, "weights"], total: Float64[ndarray, "upload"]
    ) -> Float64[ndarray, "weights"]:
        """The next weights, from the sum over the sites that took part."""
        ...

    def finish(self, iterates: Sequence[Float64[ndarray, "weights"]]) -> Float64[ndarray, "weights"]:
        """The weights to release, from the iterates after each round."""
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

    def update(
        self, weights: Float64[ndarray, "weights"], total: Float64[ndarray, "upload"]
    ) -> Float64[ndarray, "weights"]:
        """One step against the summed gradient."""
        return weights - self.lr / self.divisor * total

    def finish(self, iterates: Sequence[Float64[ndarray, "weights"]]) -> Float64[ndarray, "weights"]:
        """The mean of the last iterates."""
        mean: Float64[ndarray, "weights"] = np.mean(iterates[-self.average_last :], axis=0)
        return mean


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAvg:
    """Several full-batch steps at each site, then the mean of the weights, each site counting as many as it has
    records. The counts travel under the mask: the server learns their sum only.

    Raises:
        InputError: a number is not positive.

    Source: McMahan et al., AISTATS 2017, algorithm 1, with one batch an epoch.
    """

    name: ClassVar[StrategyName] = StrategyName.FEDAVG
    lr: float
    local_epochs: int = 1

    def __post_init__(self) -> None:
        _require_positive("FedAvg", lr=self.lr, local_epochs=self.local_epochs)

    def upload_length(self, model: Model) -> int:
        """One number a weight, and the count."""
        return model.size + 1

    def upload(
        self, model: Model, weights: Float64[ndarray, "weights"], records: Records
    ) -> Float64[ndarray, "upload"]:
        """Local weights times the number of records, then that number."""
        count = float(len(records))
        for _ in range(self.local_epochs):
            weights = weights - self.lr / count * model.gradients(weights, records).sum(axis=0)
        return np.append(weights * count, count)

    def update(
        self, weights: Float64[ndarray, "weights"], total: Float64[ndarray, "upload"]
    ) -> Float64[ndarray, "weights"]:
        """The mean over all records. Raises ``ProtocolError`` when the counts do not sum to a positive number."""
        if not total[-1] > 0.0:
            raise ProtocolError("server, step update: the sites' record counts do not sum to a positive number")
        mean: Float64[ndarray, "weights"] = total[:-1] / total[-1]
        return mean

    def finish(self, iterates: Sequence[Float64[ndarray, "weights"]]) -> Float64[ndarray, "weights"]:
        """The last iterate."""
        return iterates[-1]


def _require_positive(strategy: str, **numbers: int | float) -> None:
    for name, number in numbers.items():
        if not 0 < number < float("inf"):
            raise InputError(f"{strategy}: expected a positive {name}, got {number:g}")
