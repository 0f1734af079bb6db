"""A model that is asked privately and answers like a scikit-learn estimator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from mibao.errors import InputError
from mibao.he import envelope
from mibao.he.calibrated_range import check_range
from mibao.he.client import Client
from mibao.he.envelope import Kind
from mibao.he.forest_spec import ForestSpec
from mibao.he.models import records_of
from mibao.he.network import Head
from mibao.he.reference import finish
from mibao.he.server import request_in_clear
from mibao.he.spec import MAX_ANSWER_BYTES, MAX_ROWS, CircuitSpec
from mibao.he.tree_messages import TreeClient

_PROBABLE = (Head.BINARY, Head.SOFTMAX, Head.ONE_VS_REST, Head.SIGMOID, Head.PROBABILITIES)


class Predictor:
    """``predict``, ``predict_proba``, ``decision_function`` and ``score`` of a model that somebody else computes.

    What it returns is for the key holder's eyes: see :meth:`mibao.he.Client.decrypt`.
    """

    __slots__ = ("_client", "_columns", "_evaluate")

    def __init__(
        self, client: Client | TreeClient, evaluate: Callable[[bytes], bytes], *, columns: tuple[str, ...] = ()
    ) -> None:
        """Ask through ``evaluate``, which takes a request to the compute host and brings its answer back.

        Args:
            evaluate: ``server.evaluate`` where both are in one process, else a call over the network.
            columns: Names of the features in their order; a DataFrame's are checked against them.

        Raises:
            InputError: another number of names than the circuit has features.
        """
        if columns and len(columns) != client.spec.features:
            raise InputError(f"columns: expected {client.spec.features} names, got {len(columns)}")
        self._client, self._evaluate, self._columns = client, evaluate, columns

    def __repr__(self) -> str:
        return f"Predictor({self.spec.features} features, {self.spec.mode.value})"

    @property
    def spec(self) -> CircuitSpec | ForestSpec:
        """The circuit that is asked."""
        return self._client.spec

    @property
    def classes_(self) -> ndarray:
        """The labels, in the order of the columns of :meth:`predict_proba`; empty for a regressor."""
        return np.asarray(self.spec.classes)

    def decision_function(self, records: Any) -> Float64[ndarray, "..."]:
        """Logits or margins, before any head: one a class, or a vector of them for two classes.

        Args:
            records: An array or a DataFrame, shape (rows, features), or as the model takes images.

        Raises:
            InputError: records that do not suit, or a value outside the calibrated range.
            IntegrityError: the answer was altered or truncated.
            KeyMismatch: the answer is of another circuit or under another key.
        """
        logits = self._logits(records)
        return logits[:, 0] if logits.shape[1] == 1 else logits

    def predict_proba(self, records: Any) -> Float64[ndarray, "rows classes"]:
        """Probabilities, one a class. Raises as :meth:`decision_function`, and ``InputError`` where there are none."""
        if self.spec.head not in _PROBABLE:
            raise InputError("predict_proba: this model gives no probabilities; use decision_function or predict")
        return finish(self._logits(records), head=self.spec.head, flat=False)

    def predict(self, records: Any) -> ndarray:
        """Labels, or a regressor's values. Raises as :meth:`decision_function`."""
        logits = self._logits(records)
        spec = self.spec
        if spec.head is Head.SIGMOID:  # several labels a record, each yes or no
            return np.asarray((logits > 0).astype(np.int64))
        if spec.head is Head.IDENTITY and not spec.classes:
            return finish(logits, head=spec.head, flat=spec.flat)
        chosen = (logits[:, 0] > 0).astype(np.int64) if logits.shape[1] == 1 else np.argmax(logits, axis=1)
        return np.asarray(self.classes_[chosen] if spec.classes else chosen)

    def score(self, records: Any, target: Any) -> float:
        """The share of right labels, or for a regressor the coefficient of determination.

        Raises:
            InputError: another number of targets than records, and as :meth:`decision_function`.
        """
        given, predicted = np.asarray(target), self.predict(records)
        if given.shape != predicted.shape:
            raise InputError(f"score: expected targets of shape {predicted.shape}, got {given.shape}")
        if self.spec.head is not Head.IDENTITY or self.spec.classes:
            right = predicted == given
            return float(np.mean(right if right.ndim == 1 else right.all(axis=1)))
        residual, spread = np.sum((given - predicted) ** 2, axis=0), np.sum((given - given.mean(axis=0)) ** 2, axis=0)
        return float(np.mean(1.0 - residual / spread))

    def _logits(self, records: Any) -> Float64[ndarray, "rows outputs"]:
        values = records_of(records, names=self._columns)
        flat = values.reshape(len(values), -1)
        spec = self.spec
        if flat.shape[1] == spec.features:
            check_range(flat, low=spec.low, high=spec.high, names=self._columns)
        return np.concatenate([self._client.decrypt_logits(self._asked(part)) for part in self._parts(values)])

    def _asked(self, values: Float64[ndarray, "rows ..."]) -> bytes:
        spec = self.spec
        if isinstance(spec, CircuitSpec) and not spec.data_encrypted:
            return self._evaluate(request_in_clear(spec, values))
        return self._evaluate(self._client.encrypt(values))

    def _parts(self, values: Float64[ndarray, "rows ..."]) -> Iterator[Float64[ndarray, "part ..."]]:
        """As many rows at a time as one request may have."""
        rows = _most_rows(self.spec, len(values))
        for start in range(0, len(values), rows):
            yield values[start : start + rows]


def _most_rows(spec: CircuitSpec | ForestSpec, wanted: int) -> int:
    """``wanted``, or the most batches that request and answer may carry."""
    batches = spec.batches(min(wanted, MAX_ROWS))
    largest = envelope.MAX_BYTES[Kind.REQUEST] // 2
    while batches > 1 and (
        spec.request_bytes(batches * spec.batch_rows) > largest
        or spec.answer_bytes(batches * spec.batch_rows) > MAX_ANSWER_BYTES
    ):
        batches = -(-batches // 2)
    return batches * spec.batch_rows
