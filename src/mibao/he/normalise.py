"""Fewer and simpler layers with the same answers: affine maps folded, squares completed.

What is left is :class:`Dense`, :class:`Scale`, :class:`Square`, :class:`Add`, :class:`Multiply`, and
:class:`Polynomial` of degree 3 and up in Chebyshev's basis on [-1, 1]. Rules are applied until none applies; none
changes what the network computes.
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
    Layer,
    Multiply,
    Network,
    Polynomial,
    Scale,
    Square,
    widths,
)

MAX_WIDTH = 1 << 14
_Rule = Callable[[Network], Network | None]
_Affine = Dense | Scale
_Range = tuple[float, float]


def normalise(network: Network) -> Network:
    """The same network in fewer layers; its ranges are kept for the values that are left.

    Raises:
        InputError: an activation has not been replaced by a polynomial, a layer is wider than 16,384, or holds a
            number that is not finite.
    """
    for index, node in enumerate(network.nodes):
        if isinstance(node.layer, Activation):
            raise InputError(
                f"{node.name or f'layer {index + 1}'}: {node.layer.function.value} has no polynomial; "
                "compile with calibration records, or put a polynomial or a square in its place"
            )
        if not all(np.all(np.isfinite(values)) for values in _numbers(node.layer)):
            raise InputError(f"{node.name or f'layer {index + 1}'}: expected finite numbers")
    if max(widths(network)) > MAX_WIDTH:
        raise InputError(f"network: expected layers of width at most {MAX_WIDTH}, got {max(widths(network))}")
    rules: tuple[_Rule, ...] = (_as_matrix, _fold, _complete_square, _lower_degree, _centre, _scale_before_add)
    while True:
        changed = next((found for rule in rules if (found := rule(network)) is not None), None)
        if changed is None:
            return network
        network = changed


def _numbers(layer: Layer) -> tuple[Float64[ndarray, "..."], ...]:
    match layer:
        case Dense(weights=weights, bias=bias):
            return weights, bias
        case Scale(factor=factor, shift=shift):
            return factor, shift
        case Convolution(kernel=kernel, bias=bias):
            return kernel, bias
        case Polynomial(coefficients=coefficients):
            return (coefficients,)
    return ()


def matrix_of(layer: Scale | Convolution | AveragePool, width: int) -> Dense:
    """An affine layer as a matrix: its answers to the unit vectors and to zero."""
    bias = reference.apply(layer, [np.zeros((1, width))])[0]
    columns = reference.apply(layer, [np.eye(width)]) - bias
    return Dense(weights=np.ascontiguousarray(columns.T), bias=bias)


def _as_matrix(network: Network) -> Network | None:
    for index, node in enumerate(network.nodes):
        if isinstance(node.layer, Convolution | AveragePool):
            return _with_layer(network, index, matrix_of(node.layer, widths(network)[node.inputs[0]]))
    return None


def _fold(network: Network) -> Network | None:
    """An affine map behind an affine map that nothing else reads: one map, one level less."""
    for index, node in enumerate(network.nodes):
        before = _only_source(network, index)
        if before is not None:
            first, second = network.nodes[before].layer, node.layer
            if isinstance(first, _Affine) and isinstance(second, _Affine):
                return _without(network, before, reader=index, layer=_composed(first, second))
    return None


def _composed(first: _Affine, second: _Affine) -> _Affine:
    if isinstance(first, Scale) and isinstance(second, Scale):
        return Scale(factor=second.factor * first.factor, shift=second.factor * first.shift + second.shift)
    if isinstance(first, Scale) and isinstance(second, Dense):
        return Dense(weights=second.weights * first.factor, bias=second.weights @ first.shift + second.bias)
    if isinstance(first, Dense) and isinstance(second, Scale):
        return Dense(weights=second.factor[:, None] * first.weights, bias=second.factor * first.bias + second.shift)
    if isinstance(first, Dense) and isinstance(second, Dense):
        return Dense(weights=second.weights @ first.weights, bias=second.weights @ first.bias + second.bias)
    raise TypeError("not affine")


def _complete_square(network: Network) -> Network | None:
    """``a x**2 + b x + c`` as a square between two affine maps, which fold into their neighbours where they can."""
    for index, node in enumerate(network.nodes):
        if isinstance(node.layer, Polynomial) and len(coefficients := powers(node.layer)) == 3:
            width = widths(network)[index + 1]
            constant, linear, leading = (float(value) for value in coefficients)
            offset = constant - linear**2 / (4 * leading)
            return _with_layers(
                network,
                index,
                Scale(factor=np.ones(width), shift=np.full(width, linear / (2 * leading))),
                Square(),
                Scale(factor=np.full(width, leading), shift=np.full(width, offset)),
            )
    return None


def _lower_degree(network: Network) -> Network | None:
    """A polynomial of degree 1 or 0 is a scale."""
    for index, node in enumerate(network.nodes):
        if isinstance(node.layer, Polynomial) and len(coefficients := powers(node.layer)) < 3:
            width = widths(network)[index + 1]
            slope = float(coefficients[1]) if len(coefficients) == 2 else 0.0
            layer = Scale(factor=np.full(width, slope), shift=np.full(width, float(coefficients[0])))
            return _with_layer(network, index, layer)
    return None


def _centre(network: Network) -> Network | None:
    """A polynomial of degree 3 and up in Chebyshev's basis on [-1, 1], where no term is large."""
    for index, node in enumerate(network.nodes):
        layer = node.layer
        if isinstance(layer, Polynomial) and (layer.basis, layer.low, layer.high) != (Basis.CHEBYSHEV, -1.0, 1.0):
            width = widths(network)[index + 1]
            middle, half = (layer.low + layer.high) / 2, (layer.high - layer.low) / 2
            if layer.basis is Basis.CHEBYSHEV:
                coefficients = np.asarray(layer.coefficients, dtype=np.float64)
            else:
                coefficients = chebyshev.poly2cheb(_substituted(layer.coefficients, middle, half))
            return _with_layers(
                network,
                index,
                Scale(factor=np.full(width, 1 / half), shift=np.full(width, -middle / half)),
                replace(layer, coefficients=coefficients, basis=Basis.CHEBYSHEV, low=-1.0, high=1.0),
            )
    return None


def _scale_before_add(network: Network) -> Network | None:
    """A sum takes values at one scale: a product among its addends passes through an affine map first."""
    for node in network.nodes:
        for value in node.inputs if isinstance(node.layer, Add) else ():
            if value and isinstance(network.nodes[value - 1].layer, Square | Multiply):
                width = widths(network)[value]
                one = Scale(factor=np.ones(width), shift=np.zeros(width))
                return _with_layers(network, value - 1, network.nodes[value - 1].layer, one)
    return None


def _with_layers(network: Network, index: int, *layers: Layer) -> Network:
    """Layers one behind the other in the place of node ``index``, with the ranges that follow from its own."""
    node, more = network.nodes[index], len(layers) - 1
    placed = [replace(node, layer=layers[0])]
    placed += [replace(node, layer=layer, inputs=(index + 1 + at,)) for at, layer in enumerate(layers[1:])]
    later = [
        replace(held, inputs=tuple(value + more if value > index else value for value in held.inputs))
        for held in network.nodes[index + 1 :]
    ]
    ranges = network.ranges
    if ranges:
        between = [ranges[node.inputs[0]]]
        for layer in layers[:-1]:
            between.append(_range_after(layer, between[-1], ranges[index + 1]))
        ranges = (*ranges[: index + 1], *between[1:], *ranges[index + 1 :])
    return replace(network, nodes=(*network.nodes[:index], *placed, *later), ranges=ranges)


def _range_after(layer: Layer, given: _Range, own: _Range) -> _Range:
    """The range that a scale or a square makes of one; ``own`` for the layer that stood there before."""
    if isinstance(layer, Scale):
        ends = np.concatenate([layer.factor * end + layer.shift for end in given])
        return float(ends.min()), float(ends.max())
    if isinstance(layer, Square):
        return 0.0, max(given[0] ** 2, given[1] ** 2)
    return own


def _substituted(coefficients: Float64[ndarray, "terms"], middle: float, half: float) -> Float64[ndarray, "terms"]:
    """The coefficients of ``p(middle + half * u)`` in powers of u."""
    powered, found = np.ones(1), np.zeros(len(coefficients))
    for factor in coefficients:
        found[: len(powered)] += factor * powered
        powered = np.asarray(polynomial.polymul(powered, [middle, half]), dtype=np.float64)
    return found


def powers(layer: Polynomial) -> Float64[ndarray, "terms"]:
    """The coefficients of 1, x, x**2, ..., without zeros at the end."""
    coefficients = np.asarray(layer.coefficients, dtype=np.float64)
    if layer.basis is Basis.CHEBYSHEV:
        middle, half = (layer.low + layer.high) / 2, (layer.high - layer.low) / 2
        coefficients = _substituted(chebyshev.cheb2poly(coefficients), -middle / half, 1 / half)
    used = np.flatnonzero(np.abs(coefficients) > 0)
    return coefficients[: used[-1] + 1] if used.size else np.zeros(1)


def _only_source(network: Network, index: int) -> int | None:
    """The node whose value node ``index`` alone reads, if it takes one."""
    inputs = network.nodes[index].inputs
    if len(inputs) != 1 or inputs[0] == 0 or _readers(network, inputs[0]) != [index]:
        return None
    return inputs[0] - 1


def _readers(network: Network, value: int) -> list[int]:
    return [index for index, node in enumerate(network.nodes) for taken in node.inputs if taken == value]


def _with_layer(network: Network, index: int, layer: Layer) -> Network:
    nodes = list(network.nodes)
    nodes[index] = replace(nodes[index], layer=layer)
    return replace(network, nodes=tuple(nodes))


def _without(network: Network, index: int, *, reader: int, layer: Layer) -> Network:
    """The network less node ``index``, whose only reader takes its source instead and computes ``layer``."""
    source = network.nodes[index].inputs[0]
    nodes = [
        replace(
            node,
            layer=layer if position == reader else node.layer,
            inputs=tuple(_moved(taken, index, source) for taken in node.inputs),
        )
        for position, node in enumerate(network.nodes)
        if position != index
    ]
    ranges = tuple(kept for value, kept in enumerate(network.ranges) if value != index + 1)
    return replace(network, nodes=tuple(nodes), ranges=ranges)


def _moved(taken: int, index: int, source: int) -> int:
    if taken == index + 1:
        return source
    return taken - 1 if taken > index + 1 else taken
