"""Activations replaced by polynomials on the ranges that records show, and what that costs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from mibao.errors import InputError
from mibao.he.minimax import activation_polynomial
from mibao.he.network import Activation, Layer, Network, Node, Polynomial, Square
from mibao.he.reference import apply, evaluate

DEGREES = (3, 7, 15, 31)  # the largest of each depth
DEFAULT_TOLERANCE = 0.02
MAX_ROWS = 4096
_GRID_POINTS = 2001


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Approximation:
    """A network without activations, and how far its answers are from the model's on the calibration records.

    Attributes:
        network: With :class:`~mibao.he.network.Polynomial` in each activation's place, and with ranges.
        answer_error: Largest change of an answer, before the head.
        agreement: Share of records whose largest answer (or its sign, where there is one) is the same.
    """

    network: Network
    answer_error: float
    agreement: float

    def explain(self) -> list[str]:
        """One line an activation, and one for their effect; empty when there was none."""
        lines = [
            f"{node.name}: degree {len(node.layer.coefficients) - 1} on [{node.layer.low:.3g}, {node.layer.high:.3g}], "
            f"off by at most {node.layer.error:.1e}"
            for node in self.network.nodes
            if isinstance(node.layer, Polynomial)
        ]
        effect = f"answers change by at most {self.answer_error:.1e}, the same class in {self.agreement:.2%}"
        return [*lines, f"all activations, on the calibration records: {effect}"] if lines else []


def approximate(
    network: Network,
    records: Float64[ndarray, "rows features"],
    *,
    margin: float,
    degree: int | None = None,
    tolerance: float = DEFAULT_TOLERANCE,
) -> Approximation:
    """The network with a minimax polynomial for each activation, and the range of each value.

    An activation's interval is what the records show in front of it, ``margin`` of its width added on both sides.

    Args:
        records: Like those that will be asked about; at most 4,096 of them, evenly spread, are used.
        degree: Of every polynomial; by default the first of 3, 7, 15 and 31 that keeps ``tolerance``.
        tolerance: Largest change of an answer, as a share of the answers' range.

    Raises:
        InputError: a degree or tolerance outside its range, or a network whose values are not finite.
    """
    if not 0.0 < tolerance < np.inf:
        raise InputError(f"approximation: expected a positive tolerance, got {tolerance:g}")
    chosen = records[:: -(-len(records) // MAX_ROWS)]
    exact = evaluate(network, chosen)
    spread = float(exact.max() - exact.min()) if exact.size else 0.0
    if not np.isfinite(spread):
        raise InputError("approximation: the model's answers to the calibration records are not finite")
    *lower, highest = DEGREES if degree is None else (degree,)
    for tried in lower:
        made = _at_degree(network, chosen, exact, degree=tried, margin=margin)
        if made.answer_error <= tolerance * spread:
            return made
    return _at_degree(network, chosen, exact, degree=highest, margin=margin)


def _at_degree(
    network: Network,
    records: Float64[ndarray, "rows features"],
    exact: Float64[ndarray, "rows outputs"],
    *,
    degree: int,
    margin: float,
) -> Approximation:
    """Layer by layer, each interval as the polynomials before it leave it."""
    values, nodes = [records], []
    ranges = [(float(network.low.min()), float(network.high.max()))]
    for node in network.nodes:
        layer: Layer = node.layer
        if isinstance(layer, Activation):
            low, high = ranges[node.inputs[0]]
            layer = activation_polynomial(layer.function, low=low, high=high, degree=degree)
        nodes.append(Node(layer=layer, inputs=node.inputs, name=node.name))
        values.append(apply(layer, [values[index] for index in node.inputs]))
        ranges.append(_range(layer, values[-1], (ranges[index] for index in node.inputs), margin=margin))
    error = float(np.max(np.abs(values[-1] - exact)))
    made = replace(network, nodes=tuple(nodes), ranges=tuple(ranges))
    return Approximation(network=made, answer_error=error, agreement=_agreement(values[-1], exact))


def _range(
    layer: Layer,
    values: Float64[ndarray, "rows width"],
    given: Iterable[tuple[float, float]],
    *,
    margin: float,
) -> tuple[float, float]:
    """What a layer may give: from its interval where it works number by number, else as seen, with a margin."""
    if isinstance(layer, Polynomial | Square):
        ((low, high),) = given
        curve = apply(layer, [np.linspace(low, high, _GRID_POINTS)[:, None]])
        return min(float(curve.min()), float(values.min())), max(float(curve.max()), float(values.max()))
    low, high = float(values.min()), float(values.max())
    room = margin * (high - low) if high > low else margin * max(abs(low), 1.0)
    return low - room, high + room


def _agreement(ours: Float64[ndarray, "rows outputs"], exact: Float64[ndarray, "rows outputs"]) -> float:
    if exact.shape[1] == 1:
        return float(np.mean((ours > 0) == (exact > 0)))
    return float(np.mean(np.argmax(ours, axis=1) == np.argmax(exact, axis=1)))
