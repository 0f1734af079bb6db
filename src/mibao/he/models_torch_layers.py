"""PyTorch's layers, one function each: a module and the shape of a record before it, to layers of a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray
from torch import nn

from mibao.errors import InputError
from mibao.he.network import Activation, AveragePool, Convolution, Dense, Function, Image, Layer, Scale
from mibao.he.polynomial_activation import PolynomialActivation


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a layer stands: its name for errors, and the shape of one record of what comes in."""

    name: str
    shape: tuple[int, ...]

    @property
    def image(self) -> Image:
        """The shape as an image. Raises ``InputError`` when it is none."""
        if len(self.shape) != 3:
            raise InputError(f"{self.name}: expected images (channels, height, width), got records of {self.shape}")
        channels, height, width = self.shape
        return Image(channels=channels, height=height, width=width)


def average_over(place: Place, window: Any, stride: Any) -> AveragePool:
    """A mean over windows that fit the image without padding."""
    return AveragePool(image=place.image, window=_pair(window), stride=_pair(stride))


def pooled(place: Place, size: Any) -> AveragePool:
    """Means that leave ``size`` rows and columns, which must divide the image's.

    Raises:
        InputError: they do not.
    """
    image = place.image
    rows, columns = (own if wanted is None else int(wanted) for wanted, own in _sizes(size, image))
    if image.height % rows or image.width % columns:
        raise InputError(
            f"{place.name}: expected sizes that divide {image.height} and {image.width}, got {rows} and {columns}"
        )
    window = (image.height // rows, image.width // columns)
    return AveragePool(image=image, window=window, stride=window)


def _sizes(size: Any, image: Image) -> list[tuple[Any, int]]:
    wanted = size if isinstance(size, tuple | list) else (size, size)
    return list(zip(wanted, (image.height, image.width), strict=True))


def _linear(module: Any, place: Place) -> list[Layer]:
    if len(place.shape) != 1:
        raise InputError(f"{place.name}: expected flat records, got {place.shape}; put a Flatten before it")
    weights = numbers(module.weight)
    bias = np.zeros(len(weights)) if module.bias is None else numbers(module.bias)
    return [Dense(weights=weights, bias=bias)]


def _convolution(module: Any, place: Place) -> list[Layer]:
    if module.padding_mode != "zeros" or module.dilation != (1, 1):
        raise InputError(f"{place.name}: expected padding_mode='zeros' and dilation=1")
    kernel = _ungrouped(numbers(module.weight), module.groups)
    bias = np.zeros(len(kernel)) if module.bias is None else numbers(module.bias)
    padding = _padding(module, place)
    stride = (int(module.stride[0]), int(module.stride[1]))
    return [Convolution(kernel=kernel, bias=bias, image=place.image, stride=stride, padding=padding)]


def _padding(module: Any, place: Place) -> tuple[int, int]:
    if not isinstance(module.padding, str):
        return _pair(module.padding)
    if module.padding == "valid":
        return (0, 0)
    height, width = module.kernel_size
    if height % 2 == 0 or width % 2 == 0:
        raise InputError(f"{place.name}: expected an odd kernel with padding='same', got {module.kernel_size}")
    return (height // 2, width // 2)


def _ungrouped(
    kernel: Float64[ndarray, "out each height width"], groups: int
) -> Float64[ndarray, "out in height width"]:
    """The same convolution without groups: zeros where a channel does not look."""
    if groups == 1:
        return kernel
    out, each, height, width = kernel.shape
    whole = np.zeros((out, each * groups, height, width))
    for channel in range(out):
        first = channel // (out // groups) * each
        whole[channel, first : first + each] = kernel[channel]
    return whole


def _average_pool(module: Any, place: Place) -> list[Layer]:
    if _pair(module.padding) != (0, 0) or module.ceil_mode or module.divisor_override is not None:
        raise InputError(f"{place.name}: expected no padding, ceil_mode=False and no divisor_override")
    return [average_over(place, module.kernel_size, module.stride)]


def _batch_norm(module: Any, place: Place) -> list[Layer]:
    if module.running_mean is None:
        raise InputError(f"{place.name}: expected track_running_stats=True: a batch's own statistics are not known")
    deviation = np.sqrt(numbers(module.running_var) + module.eps)
    factor = (np.ones_like(deviation) if module.weight is None else numbers(module.weight)) / deviation
    shift = (0.0 if module.bias is None else numbers(module.bias)) - numbers(module.running_mean) * factor
    each = int(np.prod(place.shape[1:], dtype=int))
    return [Scale(factor=np.repeat(factor, each), shift=np.repeat(shift, each))]


def _gelu(module: Any, place: Place) -> list[Layer]:
    if module.approximate != "none":
        raise InputError(f"{place.name}: expected approximate='none'; train a few epochs more with it")
    return [Activation(function=Function.GELU)]


def _flatten(module: Any, place: Place) -> list[Layer]:
    if module.start_dim != 1 or module.end_dim not in (-1, len(place.shape)):
        raise InputError(f"{place.name}: expected Flatten() of whole records")
    return []


def _nothing(module: Any, place: Place) -> list[Layer]:
    return []


def _activation(function: Function) -> Callable[[Any, Place], list[Layer]]:
    return lambda module, place: [Activation(function=function)]


def _polynomial(module: Any, place: Place) -> list[Layer]:
    return [module.layer()]


ACTIVATION_MODULES: dict[Any, Function] = {
    nn.ReLU: Function.RELU,
    nn.GELU: Function.GELU,
    nn.SiLU: Function.SILU,
    nn.Sigmoid: Function.SIGMOID,
    nn.Tanh: Function.TANH,
}

MODULES: dict[Any, Callable[[Any, Place], list[Layer]]] = {
    nn.Linear: _linear,
    nn.Conv2d: _convolution,
    nn.AvgPool2d: _average_pool,
    nn.AdaptiveAvgPool2d: lambda module, place: [pooled(place, module.output_size)],
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.Flatten: _flatten,
    nn.Identity: _nothing,
    nn.Dropout: _nothing,
    nn.Dropout1d: _nothing,
    nn.Dropout2d: _nothing,
    PolynomialActivation: _polynomial,
    **{kind: _activation(function) for kind, function in ACTIVATION_MODULES.items()},
    nn.GELU: _gelu,
}

_DROP = "drop it: classes are the same without it, and the key holder can compute it after decryption"
_POOL = "use AvgPool2d: a maximum compares, which ciphertexts cannot"
_NORM = "use BatchNorm, which folds into the layer beside it"
_RELU = "use ReLU, GELU, SiLU or x * x"
INSTEAD: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("MaxPool1d", "MaxPool2d", "AdaptiveMaxPool2d", "max_pool2d", "amax", "max"), _POOL),
        "boolean_dispatch": _POOL,  # how torch.nn.functional names its max_pool2d
        **dict.fromkeys(("Softmax", "LogSoftmax", "softmax", "log_softmax", "Softmax2d"), _DROP),
        **dict.fromkeys(("LayerNorm", "GroupNorm", "InstanceNorm2d", "layer_norm", "LocalResponseNorm"), _NORM),
        **dict.fromkeys(("ReLU6", "LeakyReLU", "PReLU", "ELU", "SELU", "CELU", "Mish", "Softplus"), _RELU),
        **dict.fromkeys(("Hardtanh", "Hardsigmoid", "Hardswish", "leaky_relu", "elu", "clamp"), _RELU),
        **dict.fromkeys(("Conv1d", "AvgPool1d"), "use its 2d form on records of shape (channels, 1, length)"),
        **dict.fromkeys(("Embedding", "EmbeddingBag"), "look codes up before encryption"),
        **dict.fromkeys(("LSTM", "GRU", "RNN"), "use Linear or Conv2d layers over a window of fixed length"),
        **dict.fromkeys(("MultiheadAttention", "scaled_dot_product_attention"), "use Linear or Conv2d layers"),
        **dict.fromkeys(("permute", "transpose", "cat", "concat"), "keep each record's numbers in their order"),
    }
)


def numbers(tensor: Any) -> Float64[ndarray, "..."]:
    """A parameter as float64. Raises ``InputError`` for a value that is not finite."""
    values = np.array(tensor.detach().cpu().double().numpy())
    if not np.all(np.isfinite(values)):
        raise InputError("model: expected finite weights, got a NaN or an infinity")
    return values


def _pair(value: Any) -> tuple[int, int]:
    first, second = value if isinstance(value, tuple | list) else (value, value)
    return int(first), int(second)
