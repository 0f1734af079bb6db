"""Rules that hold when some clients lie: they look at uploads one by one instead of their sum.

For that the server must see every client's upload. A secure sum hides them, so a task with one of these rules and
secure aggregation is refused; so is one with differential privacy, whose account is for sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float64
from numpy import ndarray

from mibao.errors import InputError, ProtocolError

_WEISZFELD_STEPS = 200
_WEISZFELD_TOLERANCE = 1e-10


@runtime_checkable
class Rule(Protocol):
    """How uploads, a row a client, become one."""

    secure_sum: ClassVar[bool]

    def combine(self, rows: Float[ndarray, "clients weights"]) -> Float64[ndarray, "weights"]:
        """The combined upload. Raises ``ProtocolError`` when there are too few clients."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Krum:
    """The mean of the ``keep`` uploads that lie nearest to their neighbours; ``keep`` over 1 is multi-Krum.

    Holds against ``byzantine`` clients out of at least ``2 * byzantine + 3``.

    Source: Blanchard et al., "Machine Learning with Adversaries", NeurIPS 2017, section 4.
    """

    secure_sum: ClassVar[bool] = False
    byzantine: int
    keep: int = 1

    def __post_init__(self) -> None:
        if self.byzantine < 0 or self.keep < 1:
            raise InputError(f"Krum: expected byzantine >= 0 and keep >= 1, got {self.byzantine} and {self.keep}")

    def combine(self, rows: Float[ndarray, "clients weights"]) -> Float64[ndarray, "weights"]:
        """The mean of the best."""
        least = max(2 * self.byzantine + 3, self.keep)
        _require_clients("Krum", len(rows), least)
        exact = rows.astype(np.float64)
        squares = np.sum(exact * exact, axis=1)
        distances = squares[:, None] + squares[None] - 2.0 * exact @ exact.T
        np.fill_diagonal(distances, np.inf)
        nearest = np.sort(distances, axis=1)[:, : len(rows) - self.byzantine - 2]
        best = np.argsort(nearest.sum(axis=1), kind="stable")[: self.keep]
        combined: Float64[ndarray, "weights"] = exact[best].mean(axis=0)
        return combined


@dataclass(frozen=True, slots=True, kw_only=True)
class TrimmedMean:
    """The mean of each coordinate without its ``trim`` largest and smallest values: holds against ``trim`` clients.

    Source: Yin et al., "Byzantine-Robust Distributed Learning", ICML 2018, definition 2.
    """

    secure_sum: ClassVar[bool] = False
    trim: int

    def __post_init__(self) -> None:
        if self.trim < 0:
            raise InputError(f"trimmed mean: expected a trim of 0 or more, got {self.trim}")

    def combine(self, rows: Float[ndarray, "clients weights"]) -> Float64[ndarray, "weights"]:
        """The trimmed mean."""
        _require_clients("trimmed mean", len(rows), 2 * self.trim + 1)
        kept = np.sort(rows.astype(np.float64), axis=0)[self.trim : len(rows) - self.trim]
        combined: Float64[ndarray, "weights"] = kept.mean(axis=0)
        return combined


@dataclass(frozen=True, slots=True, kw_only=True)
class Median:
    """The median of each coordinate: holds while fewer than half of the clients lie.

    Source: Yin et al., "Byzantine-Robust Distributed Learning", ICML 2018, definition 1.
    """

    secure_sum: ClassVar[bool] = False

    def combine(self, rows: Float[ndarray, "clients weights"]) -> Float64[ndarray, "weights"]:
        """The median."""
        _require_clients("median", len(rows), 1)
        combined: Float64[ndarray, "weights"] = np.median(rows.astype(np.float64), axis=0)
        return combined


@dataclass(frozen=True, slots=True, kw_only=True)
class GeometricMedian:
    """The point whose distances to all uploads sum to the least: holds while fewer than half of the clients lie.

    Source: Pillutla, Kakade and Harchaoui, "Robust Aggregation for Federated Learning", IEEE TSP 2022, algorithm 2
    (the smoothed Weiszfeld algorithm).
    """

    secure_sum: ClassVar[bool] = False
    smoothing: float = 1e-6

    def __post_init__(self) -> None:
        if not 0.0 < self.smoothing < float("inf"):
            raise InputError(f"geometric median: expected a positive smoothing, got {self.smoothing:g}")

    def combine(self, rows: Float[ndarray, "clients weights"]) -> Float64[ndarray, "weights"]:
        """The smoothed geometric median."""
        _require_clients("geometric median", len(rows), 1)
        exact = rows.astype(np.float64)
        centre: Float64[ndarray, "weights"] = np.median(exact, axis=0)
        for _ in range(_WEISZFELD_STEPS):
            nearness = 1.0 / np.maximum(np.linalg.norm(exact - centre, axis=1), self.smoothing)
            moved = nearness @ exact / nearness.sum()
            if np.linalg.norm(moved - centre) <= _WEISZFELD_TOLERANCE * (1.0 + np.linalg.norm(centre)):
                break
            centre = moved
        return np.asarray(moved)


def _require_clients(rule: str, clients: int, least: int) -> None:
    if clients < least:
        raise ProtocolError(f"server, step combine: {rule} needs {least} clients or more, got {clients}")
