"""The model that goes down the chain, and its form on disk."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from numpy import ndarray
from safetensors import numpy as safetensors


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearModel:
    """A trained logistic regression: ``logit = features @ weights + bias``, malignant above 0."""

    weights: Float64[ndarray, " features"]
    bias: float

    def logits(self, features: Float64[ndarray, "rows features"]) -> Float64[ndarray, " rows"]:
        """The answer in clear."""
        answer: Float64[ndarray, " rows"] = features @ self.weights + self.bias
        return answer

    def to_safetensors(self) -> bytes:
        """The model as a safetensors file: ``weights`` (features) and ``bias`` (1), both float64."""
        return safetensors.save({"weights": self.weights, "bias": np.array([self.bias])})

    @classmethod
    def from_safetensors(cls, data: bytes) -> LinearModel:
        """The model that :meth:`to_safetensors` wrote."""
        tensors = safetensors.load(data)
        return cls(weights=tensors["weights"], bias=float(tensors["bias"][0]))
