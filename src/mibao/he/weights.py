"""A linear model's weights and biases in clear, and as the bytes of a bundle."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Real
from numpy import ndarray

from mibao.errors import InputError, IntegrityError
from mibao.he.levels import Demand
from mibao.he.spec import MAX_FEATURES, MAX_OUTPUTS, CircuitSpec
from mibao.types import ComputeMode

_STORED = np.dtype("<f8")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Weights:
    """``logits = records @ matrix + bias``."""

    matrix: Float64[ndarray, "features outputs"]
    bias: Float64[ndarray, "outputs"]

    def logit_bound(self, input_bound: float) -> float:
        """The largest magnitude a logit can take for features within ``±input_bound``."""
        return float(np.max(input_bound * np.sum(np.abs(self.matrix), axis=0) + np.abs(self.bias)))

    def to_body(self) -> bytes:
        """The matrix row by row, then the bias: 64-bit little-endian floats."""
        return self.matrix.astype(_STORED).tobytes() + self.bias.astype(_STORED).tobytes()

    @classmethod
    def from_body(cls, body: bytes | memoryview, spec: CircuitSpec) -> Weights:
        """The reverse. Raises ``IntegrityError`` when the body does not suit ``spec``."""
        expected = (spec.features + 1) * spec.outputs * _STORED.itemsize
        if len(body) != expected:
            raise IntegrityError(f"bundle: expected {expected} bytes of weights, got {len(body)}")
        values = np.frombuffer(body, dtype=_STORED).astype(np.float64)
        if not np.all(np.isfinite(values)):
            raise IntegrityError("bundle: a weight is not finite")
        # Two bits short of the modulus: the library refuses to encode more, with an error of its own.
        if np.max(np.abs(values)) >= 2.0 ** (spec.parameters.data_modulus_bits - 2 - spec.weight_scale_bits):
            raise IntegrityError("bundle: a weight does not fit the modulus")
        table = values.reshape(spec.features + 1, spec.outputs)
        return cls(matrix=table[:-1], bias=table[-1])


def checked_weights(matrix: Real[ndarray, "..."], bias: Real[ndarray, "..."]) -> Weights:
    """Weights of a usable shape, all finite.

    Raises:
        InputError: another shape than (features, outputs) and (outputs,), too large, or a value that is not finite.
    """
    if matrix.ndim != 2 or bias.shape != matrix.shape[1:]:
        raise InputError(
            "weights: expected the shapes (features, outputs) and (outputs,), "
            f"got {matrix.shape} and {bias.shape}; scikit-learn's are coef_.T and intercept_"
        )
    if not 1 <= matrix.shape[0] <= MAX_FEATURES or not 1 <= matrix.shape[1] <= MAX_OUTPUTS:
        raise InputError(f"weights: expected at most {MAX_FEATURES} features and {MAX_OUTPUTS} outputs")
    if not (np.all(np.isfinite(matrix)) and np.all(np.isfinite(bias))):
        raise InputError("weights: expected finite values, got a NaN or an infinity")
    return Weights(matrix=np.array(matrix, dtype=np.float64), bias=np.array(bias, dtype=np.float64))


def demand_of(weights: Weights, *, mode: ComputeMode, input_bound: float) -> Demand:
    """What the parameters must allow for.

    Where the weights are encrypted the parameters are seen by the host, so they follow from one figure about the
    weights only: the largest possible logit, rounded up to a power of two.
    """
    logit_bound = weights.logit_bound(input_bound)
    norm = float(np.max(np.linalg.norm(weights.matrix, axis=0)))
    if mode is not ComputeMode.ENCRYPTED_DATA:
        logit_bound = 2.0 ** math.ceil(math.log2(max(logit_bound, 1.0)))
        norm = logit_bound / input_bound
    return Demand(
        mode=mode,
        features=weights.matrix.shape[0],
        input_bound=input_bound,
        logit_bound=logit_bound,
        weight_norm=norm,
    )
