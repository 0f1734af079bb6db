"""Linear models of scikit-learn, trained with our own NumPy and handed back fitted. No PyTorch."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Num
from numpy import ndarray

from mibao.codec import canonical
from mibao.federated.local_training import LocalTraining, LocalWork, Trained
from mibao.federated.models import LinearRegression, LogisticRegression
from mibao.federated.records import Records


class SklearnModel:
    """``estimator`` as a federated model; its own solver and penalty are not used.

    Args:
        linear: The same model on NumPy.
        estimator: scikit-learn's ``LinearRegression`` or ``LogisticRegression`` (two classes, 0 and 1).
    """

    def __init__(self, *, linear: LinearRegression | LogisticRegression, estimator: Any) -> None:
        self._linear, self._estimator = linear, estimator

    @property
    def size(self) -> int:
        """One weight a feature, and the intercept."""
        return self._linear.size

    def initial(self) -> Float64[ndarray, "weights"]:
        """Zeros."""
        return self._linear.initial()

    def describe(self) -> dict[str, canonical.Value]:
        """As the model on NumPy."""
        return self._linear.describe()

    def gradients(self, weights: Float64[ndarray, "weights"], records: Records) -> Float64[ndarray, "records weights"]:
        """As the model on NumPy."""
        return self._linear.gradients(weights, records)

    def check(self, records: Records) -> None:
        """As the model on NumPy."""
        self._linear.check(records)

    def train(
        self, weights: Float64[ndarray, "weights"], works: Sequence[LocalWork], local: LocalTraining
    ) -> Iterator[Trained]:
        """As the model on NumPy."""
        return self._linear.train(weights, works, local)

    def evaluate(self, weights: Float64[ndarray, "weights"], records: Records) -> dict[str, float]:
        """As the model on NumPy."""
        return self._linear.evaluate(weights, records)

    def tensors(self, weights: Float64[ndarray, "weights"]) -> Mapping[str, Num[ndarray, "..."]]:
        """As the model on NumPy."""
        return self._linear.tensors(weights)

    def export(self, weights: Float64[ndarray, "weights"]) -> object:
        """A copy of the estimator, fitted: it predicts with these weights."""
        fitted = copy.deepcopy(self._estimator)
        fitted.n_features_in_ = self._linear.features
        if isinstance(self._linear, LogisticRegression):
            fitted.classes_ = np.array([0, 1])
            fitted.coef_, fitted.intercept_ = weights[None, :-1].copy(), weights[-1:].copy()
        else:
            fitted.coef_, fitted.intercept_ = weights[:-1].copy(), float(weights[-1])
        return fitted
