"""A model as the compiler sees it: a small graph of layers over flat vectors, and nothing that encrypts.

Every value is a vector a record. Value 0 is the input; value k is what ``nodes[k - 1]`` computes from earlier values;
the last one is the answer. Images are flat, channels first, so flattening one takes no layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from mibao.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dense:
    """``x @ weights.T + bias``; ``weights`` as scikit-learn's ``coef_`` and torch's ``Linear.weight``."""

    weights: Float64[ndarray, "outputs inputs"]
    bias: Float64[ndarray, "outputs"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scale:
    """``x * factor + shift``, feature by feature: a scaler, or a batch norm over a flat image."""

    factor: Float64[ndarray, "features"]
    shift: Float64[ndarray, "features"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """The shape of a flat value that is an image, channels first."""

    channels: int
    height: int
    width: int

    @property
    def size(self) -> int:
        """Numbers in the flat value."""
        return self.channels * self.height * self.width


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Convolution:
    """A cross-correlation, as torch's ``Conv2d`` without dilation; groups are kernels with zeros.

    Attributes:
        kernel: Shape (channels out, channels in, height, width).
        bias: One for each channel out.
        image: Shape of what comes in.
        stride: Rows, columns.
        padding: Zeros on each side: rows, columns.
    """

    kernel: Float64[ndarray, "out in height width"]
    bias: Float64[ndarray, "out"]
    image: Image
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)

    @property
    def output(self) -> Image:
        """Shape of what goes out."""
        height, width = _windows(self.image, self.kernel.shape[2:], self.stride, self.padding)
        return Image(channels=self.kernel.shape[0], height=height, width=width)


@dataclass(frozen=True, slots=True, kw_only=True)
class AveragePool:
    """Means over windows, as torch's ``AvgPool2d`` without padding."""

    image: Image
    window: tuple[int, int]
    stride: tuple[int, int]

    @property
    def output(self) -> Image:
        """Shape of what goes out."""
        height, width = _windows(self.image, self.window, self.stride, (0, 0))
        return Image(channels=self.image.channels, height=height, width=width)


class Function(Enum):
    """Activations that ciphertexts know no way to compute: a :class:`Polynomial` takes their place."""

    RELU = "relu"
    GELU = "gelu"
    SILU = "silu"
    SIGMOID = "sigmoid"
    TANH = "tanh"


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """The function itself, until the polynomials' pass has replaced it; no circuit is compiled from one."""

    function: Function


class Basis(Enum):
    """What a polynomial's coefficients multiply."""

    POWER = "power"  # 1, x, x**2, ...
    CHEBYSHEV = "chebyshev"  # T_0(u), T_1(u), ..., with u in [-1, 1] for x in [low, high]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Polynomial:
    """One polynomial on every feature, lowest coefficient first.

    Attributes:
        coefficients: Degree + 1 of them.
        basis: What they multiply.
        low: Lower end of the range that the polynomial was fitted on.
        high: Upper end.
        error: Largest distance from the function that it stands for on that range; 0 when it is the model's own.
    """

    coefficients: Float64[ndarray, "terms"]
    basis: Basis
    low: float
    high: float
    error: float = 0.0


@dataclass(frozen=True, slots=True)
class Square:
    """``x * x``."""


@dataclass(frozen=True, slots=True)
class Add:
    """The sum of two values: a residual connection."""


@dataclass(frozen=True, slots=True)
class Multiply:
    """The product of two values, feature by feature."""


Layer: TypeAlias = Dense | Scale | Convolution | AveragePool | Activation | Polynomial | Square | Add | Multiply


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Node:
    """A layer, the values it takes, and the name that errors and ``explain`` give it."""

    layer: Layer
    inputs: tuple[int, ...]
    name: str = ""


class Head(Enum):
    """What the client computes from decrypted answers, in clear."""

    IDENTITY = "identity"
    SIGMOID = "sigmoid"
    SOFTMAX = "softmax"
    BINARY = "binary"  # one logit to the two columns of predict_proba
    PROBABILITIES = "probabilities"  # already, as forests average them
    ONE_VS_REST = "one-vs-rest"  # a sigmoid a class, then shares of their sum


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Network:
    """A model, its input's range, and what the client does with answers.

    Attributes:
        low: Smallest value of each feature that a client may send.
        high: Largest.
        nodes: In order; node ``k`` computes value ``k + 1``.
        head: Applied by the client after decryption.
        flat: Whether answers of one column come back as a vector, as a regressor's do.
        classes: Labels in the order of the answers' columns (two for :attr:`Head.BINARY`), or none.
        ranges: For each value, the input included, its smallest and largest entry; empty before calibration.
        input_shape: A record's shape for who sends it, such as (1, 28, 28); flat where empty.
    """

    low: Float64[ndarray, "features"]
    high: Float64[ndarray, "features"]
    nodes: tuple[Node, ...]
    head: Head = Head.IDENTITY
    flat: bool = False
    classes: tuple[str, ...] | tuple[int, ...] = ()
    ranges: tuple[tuple[float, float], ...] = ()
    input_shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a graph that cannot be computed. Raises ``InputError`` that names the node."""
        widths(self)
        if self.ranges and len(self.ranges) != len(self.nodes) + 1:
            raise InputError(f"network: expected {len(self.nodes) + 1} ranges, got {len(self.ranges)}")
        if self.input_shape and int(np.prod(self.input_shape)) != self.features:
            raise InputError(f"network: a record of shape {self.input_shape} has no {self.features} features")

    @property
    def features(self) -> int:
        """Width of a record."""
        return int(self.low.shape[0])

    @property
    def outputs(self) -> int:
        """Width of an answer, before the head."""
        return widths(self)[-1]


def widths(network: Network) -> tuple[int, ...]:
    """The width of each value, the input's first.

    Raises:
        InputError: no node, a bound that is not finite or out of order, a node that takes a later value, another
            number of values or another width than its layer does.
    """
    low, high = network.low, network.high
    if low.shape != high.shape or low.ndim != 1 or not low.size:
        raise InputError(f"network: expected one lower and upper bound a feature, got {low.shape} and {high.shape}")
    if not (np.all(np.isfinite(low)) and np.all(np.isfinite(high)) and np.all(low <= high)):
        raise InputError("network: expected finite bounds, the lower ones at most the upper ones")
    if not network.nodes:
        raise InputError("network: expected at least one layer")
    found = [low.shape[0]]
    for index, node in enumerate(network.nodes):
        name = node.name or f"layer {index + 1}"
        expected = 2 if isinstance(node.layer, Add | Multiply) else 1
        if len(node.inputs) != expected or not all(0 <= value <= index for value in node.inputs):
            raise InputError(f"{name}: expected {expected} earlier values, got {node.inputs}")
        found.append(_width(node.layer, [found[value] for value in node.inputs], name))
    return tuple(found)


def _width(layer: Layer, given: list[int], name: str) -> int:
    match layer:
        case Dense(weights=weights, bias=bias):
            wanted, output = weights.shape[1], weights.shape[0]
            if bias.shape != (output,):
                raise InputError(f"{name}: expected {output} biases, got {bias.shape}")
        case Scale(factor=factor, shift=shift):
            wanted = output = factor.shape[0]
            if shift.shape != factor.shape:
                raise InputError(f"{name}: expected {wanted} shifts, got {shift.shape}")
        case Convolution(kernel=kernel, bias=bias, image=image):
            wanted, output = image.size, layer.output.size
            if kernel.shape[1] != image.channels or bias.shape != kernel.shape[:1]:
                raise InputError(f"{name}: kernel {kernel.shape} and bias {bias.shape} do not fit {image}")
        case AveragePool(image=image):
            wanted, output = image.size, layer.output.size
        case _:
            wanted = output = given[0]
    if any(width != wanted for width in given) or output < 1:
        raise InputError(f"{name}: expected values of width {wanted}, got {given}")
    return int(output)


def _windows(image: Image, window: tuple[int, ...], stride: tuple[int, int], padding: tuple[int, int]) -> list[int]:
    sides = zip((image.height, image.width), window, stride, padding, strict=True)
    return [(side + 2 * pad - kernel) // step + 1 for side, kernel, step, pad in sides]
