"""A network evaluated in clear, layer by layer: what every pass and every ciphertext is checked against."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float64, Real
from numpy import ndarray
from numpy.lib.stride_tricks import sliding_window_view
from numpy.polynomial import chebyshev, polynomial

from mibao.he.network import (
    Activation,
    Add,
    AveragePool,
    Basis,
    Convolution,
    Dense,
    Function,
    Head,
    Image,
    Layer,
    Multiply,
    Network,
    Polynomial,
    Scale,
    Square,
)


def evaluate(network: Network, records: Real[ndarray, "rows features"]) -> Float64[ndarray, "rows outputs"]:
    """The answers before the head."""
    return values(network, records)[-1]


def values(network: Network, records: Real[ndarray, "rows features"]) -> list[Float64[ndarray, "rows _"]]:
    """Every value of the graph, the input first."""
    computed = [np.asarray(records, dtype=np.float64)]
    for node in network.nodes:
        computed.append(apply(node.layer, [computed[value] for value in node.inputs]))
    return computed


def apply(layer: Layer, given: list[Float64[ndarray, "rows _"]]) -> Float64[ndarray, "rows _"]:
    """What one layer makes of its inputs."""
    x = given[0]
    match layer:
        case Dense(weights=weights, bias=bias):
            y = x @ weights.T + bias
        case Scale(factor=factor, shift=shift):
            y = x * factor + shift
        case Convolution():
            y = _convolve(layer, x)
        case AveragePool(image=image, window=window, stride=stride):
            y = _windows(_images(x, image), window, stride).mean(axis=(-2, -1)).reshape(len(x), -1)
        case Activation(function=function):
            y = _FUNCTIONS[function](x)
        case Polynomial():
            y = polynomial_values(layer, x)
        case Square():
            y = x * x
        case Add():
            y = x + given[1]
        case Multiply():
            y = x * given[1]
    return np.asarray(y)


def polynomial_values(layer: Polynomial, x: Float64[ndarray, "..."]) -> Float64[ndarray, "..."]:
    """The polynomial at every entry of ``x``."""
    if layer.basis is Basis.POWER:
        return np.asarray(polynomial.polyval(x, layer.coefficients))
    middle, half = (layer.low + layer.high) / 2, (layer.high - layer.low) / 2
    return np.asarray(chebyshev.chebval((x - middle) / half, layer.coefficients))


def finish(answers: Float64[ndarray, "rows outputs"], *, head: Head, flat: bool) -> Float64[ndarray, "..."]:
    """What the client gives its user: the head applied, a single column flattened where the model's output is flat."""
    match head:
        case Head.SIGMOID:
            answers = sigmoid(answers)
        case Head.SOFTMAX:
            raised = np.exp(answers - answers.max(axis=1, keepdims=True))
            answers = raised / raised.sum(axis=1, keepdims=True)
        case Head.BINARY:
            answers = np.concatenate([sigmoid(-answers), sigmoid(answers)], axis=1)
        case Head.ONE_VS_REST:
            answers = sigmoid(answers)
            answers = answers / answers.sum(axis=1, keepdims=True)
        case Head.IDENTITY | Head.PROBABILITIES:
            pass
    return answers[:, 0] if flat and answers.shape[1] == 1 else answers


def sigmoid(x: Float64[ndarray, "..."]) -> Float64[ndarray, "..."]:
    """``1 / (1 + exp(-x))``, without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))


def _convolve(layer: Convolution, x: Float64[ndarray, "rows width"]) -> Float64[ndarray, "rows outputs"]:
    rows, columns = layer.padding
    padded = np.pad(_images(x, layer.image), ((0, 0), (0, 0), (rows, rows), (columns, columns)))
    windows = _windows(padded, layer.kernel.shape[2:], layer.stride)
    sums = np.einsum("bchwij,ocij->bohw", windows, layer.kernel, optimize=True)
    return np.asarray((sums + layer.bias[:, None, None]).reshape(len(x), -1))


def _images(x: Float64[ndarray, "rows width"], image: Image) -> Float64[ndarray, "rows channels down across"]:
    return x.reshape(len(x), image.channels, image.height, image.width)


def _windows(
    images: Float64[ndarray, "rows channels _ _"], window: tuple[int, ...], stride: tuple[int, int]
) -> Float64[ndarray, "rows channels down across height width"]:
    return np.asarray(sliding_window_view(images, window, axis=(2, 3))[:, :, :: stride[0], :: stride[1]])


def _gelu(x: Float64[ndarray, "..."]) -> Float64[ndarray, "..."]:
    return np.asarray(0.5 * x * (1.0 + np.vectorize(math.erf, otypes=[np.float64])(x / math.sqrt(2.0))))


_FUNCTIONS: dict[Function, Callable[[Float64[ndarray, "..."]], Float64[ndarray, "..."]]] = {
    Function.RELU: lambda x: np.asarray(np.maximum(x, 0.0)),
    Function.GELU: _gelu,
    Function.SILU: lambda x: np.asarray(x * sigmoid(x)),
    Function.SIGMOID: sigmoid,
    Function.TANH: lambda x: np.asarray(np.tanh(x)),
}
