"""Linear and logistic regression on NumPy: per-record gradients, local training, and the pooled solution.

Weights are one flat vector: a coefficient for each feature, the intercept last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float64, Num
from numpy import ndarray

from mibao.codec import canonical
from mibao.errors import InputError
from mibao.federated.local_training import (
    LocalTraining,
    LocalWork,
    Step,
    Stepper,
    Trained,
    check_works,
    in_groups,
    steps,
)
from mibao.federated.records import Records

_GROUP = 64

_NEWTON_STEPS = 100
_NEWTON_TOLERANCE = 1e-10


@runtime_checkable
class Model(Protocol):
    """What is trained, as strategies and engines see it: weights are one flat vector."""

    @property
    def size(self) -> int:
        """How many weights the model has."""
        ...

    def initial(self) -> Float64[ndarray, "weights"]:
        """The weights that training starts from: public, the same everywhere."""
        ...

    def describe(self) -> dict[str, canonical.Value]:
        """What all sites must agree on."""
        ...

    def gradients(self, weights: Float64[ndarray, "weights"], records: Records) -> Float64[ndarray, "records weights"]:
        """The gradient of each record's loss, a row a record.

        Bit for bit, a row depends on its own record and the weights alone. Otherwise one record more would move the
        rounding of all others, which the sensitivity does not count. Matrix products of BLAS do not have this.
        """
        ...

    def check(self, records: Records) -> None:
        """Return if the model can learn from these records, else raise ``InputError``; once, when a site loads them.

        Records that passed never make :meth:`gradients` raise: under differential privacy that would be an answer
        without noise.
        """
        ...

    def train(
        self, weights: Float64[ndarray, "weights"], works: Sequence[LocalWork], local: LocalTraining
    ) -> Iterator[Trained]:
        """How far local training moves the weights of each client, in groups; every client once.

        Raises:
            InputError: clients' records differ in shape or type; names the client.
        """
        ...

    def evaluate(self, weights: Float64[ndarray, "weights"], records: Records) -> dict[str, float]:
        """``loss``, the mean over the records, and what else the model is judged by."""
        ...

    def tensors(self, weights: Float64[ndarray, "weights"]) -> Mapping[str, Num[ndarray, "..."]]:
        """The weights by name, in the shapes in which the model is kept in a file."""
        ...

    def export(self, weights: Float64[ndarray, "weights"]) -> object:
        """The trained model as its own library knows it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearRegression:
    """Least squares; a record's loss is half its squared residual."""

    features: int

    @property
    def size(self) -> int:
        """One weight a feature, and the intercept."""
        return self.features + 1

    def initial(self) -> Float64[ndarray, "weights"]:
        """Zeros."""
        return np.zeros(self.size)

    def describe(self) -> dict[str, canonical.Value]:
        """Its kind and the number of features."""
        return _described(type(self).__name__, self.features)

    def tensors(self, weights: Float64[ndarray, "weights"]) -> Mapping[str, Num[ndarray, "..."]]:
        """``coefficients`` and ``intercept``."""
        return {"coefficients": weights[:-1], "intercept": weights[-1:]}

    def export(self, weights: Float64[ndarray, "weights"]) -> object:
        """The weights themselves."""
        return weights

    def check(self, records: Records) -> None:
        """Raises ``InputError`` for another number of features."""
        _check_features(self.features, records)

    def predict(
        self, weights: Float64[ndarray, "weights"], features: Num[ndarray, "records features"]
    ) -> Float64[ndarray, "records"]:
        """The predicted targets. Raises ``InputError`` for weights or features of another shape."""
        return _linear(weights, features)

    def gradients(self, weights: Float64[ndarray, "weights"], records: Records) -> Float64[ndarray, "records weights"]:
        """Residual times features, a row a record. Raises ``InputError`` as :meth:`predict`."""
        residuals = _linear(weights, records.features) - records.targets
        rows: Float64[ndarray, "records weights"] = residuals[:, None] * _with_intercept(records.features)
        return rows

    def train(
        self, weights: Float64[ndarray, "weights"], works: Sequence[LocalWork], local: LocalTraining
    ) -> Iterator[Trained]:
        """Local training on the squared error. Raises ``InputError`` as :meth:`Model.train`."""
        return _train(weights, works, local, errors=lambda scores, targets: scores - targets)

    def evaluate(self, weights: Float64[ndarray, "weights"], records: Records) -> dict[str, float]:
        """``loss``: half the mean squared error."""
        return {"loss": float(np.mean((_linear(weights, records.features) - records.targets) ** 2) / 2.0)}

    def fit(self, records: Records) -> Float64[ndarray, "weights"]:
        """The least-squares solution on records in one place, of least norm where there are several."""
        solution: Float64[ndarray, "weights"] = np.linalg.lstsq(
            _with_intercept(records.features), records.targets, rcond=None
        )[0]
        return solution


@dataclass(frozen=True, slots=True, kw_only=True)
class LogisticRegression:
    """Two classes, targets 0 and 1; a record's loss is its cross entropy."""

    features: int

    @property
    def size(self) -> int:
        """One weight a feature, and the intercept."""
        return self.features + 1

    def initial(self) -> Float64[ndarray, "weights"]:
        """Zeros."""
        return np.zeros(self.size)

    def describe(self) -> dict[str, canonical.Value]:
        """Its kind and the number of features."""
        return _described(type(self).__name__, self.features)

    def tensors(self, weights: Float64[ndarray, "weights"]) -> Mapping[str, Num[ndarray, "..."]]:
        """``coefficients`` and ``intercept``."""
        return {"coefficients": weights[:-1], "intercept": weights[-1:]}

    def export(self, weights: Float64[ndarray, "weights"]) -> object:
        """The weights themselves."""
        return weights

    def check(self, records: Records) -> None:
        """Raises ``InputError`` for another number of features, or a target that is neither 0 nor 1."""
        _check_features(self.features, records)
        _classes(records)

    def logits(
        self, weights: Float64[ndarray, "weights"], features: Num[ndarray, "records features"]
    ) -> Float64[ndarray, "records"]:
        """Log odds of class 1. Raises ``InputError`` for weights or features of another shape."""
        return _linear(weights, features)

    def predict(
        self, weights: Float64[ndarray, "weights"], features: Num[ndarray, "records features"]
    ) -> Float64[ndarray, "records"]:
        """The likelier class, 0.0 or 1.0. Raises ``InputError`` as :meth:`logits`."""
        return (_linear(weights, features) > 0.0).astype(np.float64)

    def accuracy(self, weights: Float64[ndarray, "weights"], records: Records) -> float:
        """The share of records whose class is predicted. Raises ``InputError`` as :meth:`logits`."""
        return float(np.mean(self.predict(weights, records.features) == records.targets))

    def gradients(self, weights: Float64[ndarray, "weights"], records: Records) -> Float64[ndarray, "records weights"]:
        """Probability error times features, a row a record.

        Raises:
            InputError: a target is neither 0 nor 1, or as :meth:`logits`.
        """
        errors = _sigmoid(_linear(weights, records.features)) - _classes(records)
        rows: Float64[ndarray, "records weights"] = errors[:, None] * _with_intercept(records.features)
        return rows

    def train(
        self, weights: Float64[ndarray, "weights"], works: Sequence[LocalWork], local: LocalTraining
    ) -> Iterator[Trained]:
        """Local training on the cross entropy. Raises ``InputError`` as :meth:`Model.train`."""
        return _train(weights, works, local, errors=lambda scores, targets: _sigmoid(scores) - targets)

    def evaluate(self, weights: Float64[ndarray, "weights"], records: Records) -> dict[str, float]:
        """``loss``, the mean cross entropy, and ``accuracy``."""
        scores = _linear(weights, records.features)
        losses = np.logaddexp(0.0, scores) - records.targets * scores
        return {"loss": float(losses.mean()), "accuracy": self.accuracy(weights, records)}

    def fit(self, records: Records, *, l2: float = 1.0) -> Float64[ndarray, "weights"]:
        """The minimum of the summed loss plus ``l2 / 2`` times the squared coefficients (intercept free), by Newton.

        Raises:
            InputError: ``l2`` is not positive, a target is neither 0 nor 1, or the steps do not converge.
        """
        if not l2 > 0.0:
            raise InputError(f"logistic regression: expected a positive l2, got {l2:g}")
        design, classes = _with_intercept(records.features), _classes(records)
        ridge = np.full(self.size, l2)
        ridge[-1] = 0.0
        weights = self.initial()
        for _ in range(_NEWTON_STEPS):
            chances = _sigmoid(design @ weights)
            gradient = design.T @ (chances - classes) + ridge * weights
            curvature = (design.T * (chances * (1.0 - chances))) @ design + np.diag(ridge)
            step = np.linalg.solve(curvature, gradient)
            weights = weights - step
            if np.max(np.abs(step)) < _NEWTON_TOLERANCE:
                return weights
        raise InputError("logistic regression: Newton's method did not converge; raise l2 or scale the features")


def _linear(
    weights: Float64[ndarray, "weights"], features: Num[ndarray, "records features"]
) -> Float64[ndarray, "records"]:
    if features.shape[1] + 1 != len(weights):
        raise InputError(f"model: expected {len(weights) - 1} features, got {features.shape[1]}")
    # Not `features @ weights`: BLAS rounds a row differently beside other rows, see Model.gradients.
    products: Float64[ndarray, "records"] = np.sum(features * weights[:-1], axis=1) + weights[-1]
    return products


def _check_features(expected: int, records: Records) -> None:
    if records.features.ndim != 2 or records.features.shape[1] != expected:
        raise InputError(f"expected records of {expected} features, got {records.features.shape[1]}")
    if records.targets.ndim != 1:
        raise InputError(f"expected one number a record as target, got shape {records.targets.shape}")


def _train(
    weights: Float64[ndarray, "weights"],
    works: Sequence[LocalWork],
    local: LocalTraining,
    *,
    errors: Callable[[Float[ndarray, "..."], Num[ndarray, "..."]], Float[ndarray, "..."]],
) -> Iterator[Trained]:
    """Local training of a linear model whose loss has the slope ``errors`` in its score; a cohort at once."""
    check_works(works)
    for places in in_groups(works, size=_GROUP):
        group = [works[place] for place in places]
        begun = np.stack([weights if work.start is None else work.start for work in group])
        held = begun.copy()
        corrections = [
            np.stack([np.zeros_like(weights) if work.correction is None else work.correction for work in group])
            for _ in range(any(work.correction is not None for work in group))
        ]
        stepper = Stepper(local, [held], start=[begun], correction=corrections)
        with np.errstate(all="ignore"):  # what diverges is not finite in the end, and seen there
            for step in steps(group):
                stepper.step([_slopes(held, step, errors)], step.active)
            moved = held - begun
        yield Trained(places=places, moved=moved)


def _slopes(
    held: Float64[ndarray, "clients weights"],
    step: Step,
    errors: Callable[[Float[ndarray, "..."], Num[ndarray, "..."]], Float[ndarray, "..."]],
) -> Float64[ndarray, "active weights"]:
    """The gradient of each client's mean loss over its batch."""
    alive = held[: step.active]
    scores = np.matmul(step.features, alive[:, :-1, None])[..., 0] + alive[:, -1:]
    slope = errors(scores, step.targets)
    slope = slope / slope.shape[1] if step.shares is None else slope * step.shares
    coefficients = np.matmul(slope[:, None, :], step.features)[:, 0]
    return np.concatenate([coefficients, slope.sum(axis=1, keepdims=True)], axis=1)


def _described(kind: str, features: int) -> dict[str, canonical.Value]:
    # Text of a float, because 1 and 1.0 are the same task.
    return {"type": kind, "features": float(features).hex()}


def _with_intercept(features: Num[ndarray, "records features"]) -> Float64[ndarray, "records weights"]:
    return np.hstack([features, np.ones((len(features), 1))])


def _sigmoid(logits: Float64[ndarray, "*shape"]) -> Float64[ndarray, "*shape"]:
    # The tanh form never overflows.
    chances: Float64[ndarray, "*shape"] = 0.5 * (1.0 + np.tanh(0.5 * logits))
    return chances


def _classes(records: Records) -> Float64[ndarray, "records"]:
    targets = records.targets.astype(np.float64)
    if not np.all((targets == 0.0) | (targets == 1.0)):
        raise InputError("logistic regression: expected targets 0 and 1")
    return targets
