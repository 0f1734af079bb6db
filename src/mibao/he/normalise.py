"""Fewer and simpler layers with the same answers: affine maps folded, squares completed.

What is left is :class:`Dense`, :class:`Polynomial` of degree 3 and up, :class:`Square`, :class:`Add` and
:class:`Multiply`. Each rule is applied until none applies; none changes what the network computes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import Float64
from numpy import ndarray
from numpy.polynomial import chebyshev, polynomial

from mibao.errors import InputError
from mibao.he import reference
from mibao.he.network import (
    Activation,
    Add,
    AveragePool,
    Basis,
    Convolution,
    Dense,
    Multiply,
    Network,
    Node,
    Polynomial,
    Scale,
    Square,
    widths,
)

MAX_WIDTH = 1 << 14
_Rule = Callable[[Network], Network | None]


def normalise(network: Network) -> Network:
    """The same network in fewer layers; its ranges are kept for the values that are left.

    Raises:
        InputError: an activation has not been replaced by a polynomial, or a layer is wider than 16,384.
    """
    for index, node in enumerate(network.nodes):
        if isinstance(node.layer, Activation):
            raise InputError(
                f"{node.name or f'layer {index + 1}'}: {node.layer.function.value} has no polynomial; "
                "compile with calibration records, or put a polynomial or a square in its place"
            )
    if max(widths(network)) > MAX_WIDTH:
        raise InputError(f"network: expected layers of width at most {MAX_WIDTH}, got {max(widths(network))}")
    rules: tuple[_Rule, ...] = (_dense_from_affine, _fold, _complete_square, _lower_degree, _scale_before_add)
    while True:
        changed = next((found for rule in rules if (found := rule(network)) is not None), None)
        if changed is None:
            return network
        network = changed


def matrix_of(layer: Scale | Convolution | AveragePool, width: int) -> Dense:
    """An affine layer as a matrix: its answers to the unit vectors and to zero."""
    bias = reference.apply(layer, [np.zeros((1, width))])[0]
    columns = reference.apply(layer, [np.eye(width)]) - bias
    return Dense(weights=np.ascontiguousarray(columns.T), bias=bias)


def _dense_from_affine(network: Network) -> Network | None:
    for index, node in enumerate(network.nodes):
        if isinstance(node.layer, Scale | Convolution | AveragePool):
            width = widths(network)[node.inputs[0]]
            return _with_layer(network, index, matrix_of(node.layer, width))
    return None


def _fold(network: Network) -> Network | None:
    """An affine map behind an affine map that nothing else reads: one map, one level less."""
    for index, node in enumerate(network.nodes):
        before = _only_source(network, index)
        if before is not None and isinstance(node.layer, Dense):
            first = network.nodes[before].layer
            if isinstance(first, Dense):
                weights = node.layer.weights @ first.weights
                bias = node.layer.weights @ first.bias + node.layer.bias
                return _without(_with_layer(network, index, Dense(weights=weights, bias=bias)), before)
    return None


def _complete_square(network: Network) -> Network | None:
    """``a x**2 + b x + c`` between affine maps: a square, with the rest in the maps around it."""
    for index, node in enumerate(network.nodes):
        before, after = _only_source(network, index), _only_reader(network, index)
        if not isinstance(node.layer, Polynomial) or before is None or after is None:
            continue
        coefficients = powers(node.layer)
        first, last = network.nodes[before].layer, network.nodes[after].layer
        if len(coefficients) == 3 and isinstance(first, Dense) and isinstance(last, Dense):
            constant, linear, leading = (float(value) for value in coefficients)
            moved = Dense(weights=first.weights, bias=first.bias + linear / (2 * leading))
            offset = (constant - linear**2 / (4 * leading)) * last.weights.sum(axis=1)
            scaled = Dense(weights=leading * last.weights, bias=last.bias + offset)
            changed = _with_layer(_with_layer(network, before, moved), after, scaled)
            changed = _with_range(changed, before + 1, linear / (2 * leading))
            return _with_layer(_without_range(changed, index + 1), index, Square())
    return None


def _lower_degree(network: Network) -> Network | None:
    """A polynomial of degree 2 or less that has no affine maps around it: squares and sums."""
    for index, node in enumerate(network.nodes):
        if isinstance(node.layer, Polynomial):
            coefficients = powers(node.layer)
            width = widths(network)[index + 1]
            if len(coefficients) <= 2:
                slope = float(coefficients[1]) if len(coefficients) == 2 else 0.0
                layer = Dense(weights=slope * np.eye(width), bias=np.full(width, float(coefficients[0])))
                return _with_layer(network, index, layer)
            if len(coefficients) == 3:
                return _quadratic(network, index, coefficients)
    return None


def _quadratic(network: Network, index: int, coefficients: Float64[ndarray, "3"]) -> Network:
    """An affine map, a square and an affine map in the place of node ``index``."""
    width = widths(network)[index + 1]
    constant, linear, leading = (float(value) for value in coefficients)
    node, eye = network.nodes[index], np.eye(width)
    layers = (
        Dense(weights=eye, bias=np.full(width, linear / (2 * leading))),
        Square(),
        Dense(weights=leading * eye, bias=np.full(width, constant - linear**2 / (4 * leading))),
    )
    moved = [replace(later, inputs=tuple(_later(i, index, 2) for i in later.inputs)) for later in network.nodes]
    placed = [
        replace(node, layer=layers[0]),
        Node(layer=layers[1], inputs=(index + 1,), name=node.name),
        Node(layer=layers[2], inputs=(index + 2,), name=node.name),
    ]
    nodes = (*network.nodes[:index], *placed, *moved[index + 1 :])
    return replace(network, nodes=nodes, ranges=())


def _scale_before_add(network: Network) -> Network | None:
    """A sum takes values at one scale: a product among its addends passes through an affine map first."""
    for index, node in enumerate(network.nodes):
        if isinstance(node.layer, Add):
            for position, value in enumerate(node.inputs):
                if value and isinstance(network.nodes[value - 1].layer, Square | Multiply | Polynomial):
                    return _with_map(network, index, position)
    return None


def _with_map(network: Network, index: int, position: int) -> Network:
    """An identity map before input ``position`` of node ``index``."""
    node = network.nodes[index]
    width = widths(network)[node.inputs[position]]
    identity = Node(layer=Dense(weights=np.eye(width), bias=np.zeros(width)), inputs=(node.inputs[position],))
    moved = [replace(later, inputs=tuple(_later(i, index - 1, 1) for i in later.inputs)) for later in network.nodes]
    inputs = tuple(index + 1 if i == position else value for i, value in enumerate(node.inputs))
    nodes = (*network.nodes[:index], identity, replace(node, inputs=inputs), *moved[index + 1 :])
    ranges = network.ranges
    if ranges:
        ranges = (*ranges[: index + 1], ranges[node.inputs[position]], *ranges[index + 1 :])
    return replace(network, nodes=nodes, ranges=ranges)


def powers(layer: Polynomial) -> Float64[ndarray, "terms"]:
    """The coefficients of 1, x, x**2, ..., without zeros at the end."""
    coefficients = np.asarray(layer.coefficients, dtype=np.float64)
    if layer.basis is Basis.CHEBYSHEV:
        middle, half = (layer.low + layer.high) / 2, (layer.high - layer.low) / 2
        in_unit = chebyshev.cheb2poly(coefficients)
        powered, coefficients = np.ones(1), np.zeros(len(in_unit))
        for factor in in_unit:
            coefficients[: len(powered)] += factor * powered
            powered = np.asarray(polynomial.polymul(powered, [-middle / half, 1 / half]), dtype=np.float64)
    used = np.flatnonzero(np.abs(coefficients) > 0)
    return coefficients[: used[-1] + 1] if used.size else np.zeros(1)


def _later(value: int, index: int, by: int) -> int:
    return value + by if value > index else value


def _only_source(network: Network, index: int) -> int | None:
    """The node whose value node ``index`` alone reads, if it takes one."""
    inputs = network.nodes[index].inputs
    if len(inputs) != 1 or inputs[0] == 0 or _readers(network, inputs[0]) != [index]:
        return None
    return inputs[0] - 1


def _only_reader(network: Network, index: int) -> int | None:
    readers = _readers(network, index + 1)
    return readers[0] if len(readers) == 1 else None


def _readers(network: Network, value: int) -> list[int]:
    return [index for index, node in enumerate(network.nodes) for taken in node.inputs if taken == value]


def _with_layer(network: Network, index: int, layer: Dense | Square) -> Network:
    nodes = list(network.nodes)
    nodes[index] = replace(nodes[index], layer=layer)
    return replace(network, nodes=tuple(nodes))


def _without(network: Network, index: int) -> Network:
    """The network less node ``index``, whose only reader takes its source instead."""
    source = network.nodes[index].inputs[0]
    nodes = [
        replace(node, inputs=tuple(_moved(taken, index, source) for taken in node.inputs))
        for position, node in enumerate(network.nodes)
        if position != index
    ]
    ranges = tuple(kept for value, kept in enumerate(network.ranges) if value != index + 1)
    return replace(network, nodes=tuple(nodes), ranges=ranges)


def _moved(taken: int, index: int, source: int) -> int:
    if taken == index + 1:
        return source
    return taken - 1 if taken > index + 1 else taken


def _with_range(network: Network, value: int, offset: float) -> Network:
    if not network.ranges:
        return network
    ranges = list(network.ranges)
    ranges[value] = (ranges[value][0] + offset, ranges[value][1] + offset)
    return replace(network, ranges=tuple(ranges))


def _without_range(network: Network, value: int) -> Network:
    """The range of a square follows from what goes in."""
    if not network.ranges:
        return network
    ranges = list(network.ranges)
    low, high = ranges[value - 1]
    ranges[value] = (0.0, max(low * low, high * high))
    return replace(network, ranges=tuple(ranges))
