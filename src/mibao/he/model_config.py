"""A network from two files: tensors in safetensors, and a JSON config that says which layers they make up.

The format is described in ``docs/spec/he-model.md``. Nothing of either file is executed, and PyTorch is not needed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float64
from numpy import ndarray
from safetensors import SafetensorError
from safetensors.numpy import load

from mibao.errors import InputError
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
    Node,
    Polynomial,
    Scale,
    Square,
    widths,
)

FORMAT = "mibao-network"
VERSION = 1
_FIELDS = {"format", "version", "input_shape", "layers", "head", "classes"}
_Tensors: TypeAlias = Mapping[str, Float64[ndarray, "..."]]


def network_of_files(
    tensors: bytes, config: bytes, *, low: Float64[ndarray, "features"], high: Float64[ndarray, "features"]
) -> Network:
    """The network that a safetensors file and its config describe.

    Args:
        tensors: The content of the safetensors file: float16, float32 or float64, named ``LAYER.weight`` and so on.
        config: The content of the JSON file.
        low: Smallest value of each feature that a client may send.
        high: Largest.

    Raises:
        InputError: not such files, a tensor missing, surplus or of another shape, or layers that do not fit.
    """
    held = _parsed(config)
    builder = _Builder(tensors=_loaded(tensors), shape=_shape(held["input_shape"]))
    if int(np.prod(builder.shape)) != low.shape[0]:
        raise InputError(f"config: records of shape {builder.shape}, and the calibration has {low.shape[0]} features")
    for index, layer in enumerate(held["layers"]):
        builder.take(index, layer)
    surplus = sorted(set(builder.tensors) - builder.used)
    if surplus:
        raise InputError(f"config: no layer uses the tensors {', '.join(surplus)}")
    network = Network(
        low=low,
        high=high,
        nodes=tuple(builder.nodes),
        head=_member(Head, held.get("head", "identity"), "head"),
        classes=_classes(held.get("classes", [])),
        input_shape=_shape(held["input_shape"]) if len(held["input_shape"]) > 1 else (),
    )
    outputs = widths(network)[-1] + (network.head is Head.BINARY)
    if network.classes and len(network.classes) not in (outputs, outputs + (outputs == 1)):
        raise InputError(f"config: expected {outputs} classes, got {len(network.classes)}")
    return network


def _parsed(config: bytes) -> dict[str, Any]:
    try:
        held = json.loads(config)
    except (ValueError, RecursionError) as error:
        raise InputError("config: expected a JSON file") from error
    if not isinstance(held, dict) or held.get("format") != FORMAT:
        raise InputError(f'config: expected an object with "format": "{FORMAT}"')
    if held.get("version") != VERSION:
        raise InputError(f"config: expected version {VERSION}, got {held.get('version')!r:.20}")
    unknown = sorted(set(held) - _FIELDS)
    if unknown or not isinstance(held.get("layers"), list) or "input_shape" not in held:
        raise InputError(f"config: expected the fields {', '.join(sorted(_FIELDS))}; got {', '.join(sorted(held))}")
    return held


def _loaded(tensors: bytes) -> dict[str, Float64[ndarray, "..."]]:
    try:
        loaded = load(tensors)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise InputError("weights: expected a safetensors file of float16, float32 or float64") from error
    for name, tensor in loaded.items():
        if tensor.dtype.kind not in "fi" or not np.all(np.isfinite(tensor)):
            raise InputError(f"weights: expected finite numbers in {name}")
    # Counters, such as a batch norm's num_batches_tracked, say nothing about what is computed.
    return {name: np.asarray(tensor, dtype=np.float64) for name, tensor in loaded.items() if tensor.dtype.kind == "f"}


def _shape(value: Any) -> tuple[int, ...]:
    sides = value if isinstance(value, list) else [value]
    if not all(type(side) is int and 1 <= side <= 1 << 16 for side in sides) or len(sides) not in (1, 3):
        raise InputError("config: expected input_shape as [features] or [channels, height, width]")
    return tuple(sides)


def _classes(value: Any) -> tuple[str, ...] | tuple[int, ...]:
    if isinstance(value, list) and all(isinstance(label, str) for label in value):
        return tuple(value)
    if isinstance(value, list) and all(type(label) is int for label in value):
        return tuple(value)
    raise InputError("config: expected classes as a list of text or of whole numbers")


def _member(kind: Any, value: Any, name: str, *, label: str = "config") -> Any:
    try:
        return kind(value)
    except ValueError:
        raise InputError(f"{label}: expected {name} as one of {', '.join(item.value for item in kind)}") from None


@dataclass(slots=True)
class _Builder:
    """The network so far: the last value's index and shape, and those that have a name."""

    tensors: _Tensors
    shape: tuple[int, ...]
    nodes: list[Node] = field(default_factory=list)
    named: dict[str, tuple[int, tuple[int, ...]]] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    value: int = 0
    entry: _Entry = field(init=False)

    def __post_init__(self) -> None:
        self.named["input"] = (0, self.shape)

    def take(self, index: int, held: Any) -> None:
        """One layer of the config. Raises ``InputError`` that names it."""
        self.entry = _Entry(index=index, held=held)
        kind = self.entry.text("type")
        if kind not in _LAYERS:
            raise InputError(f"{self.entry.label}: expected type as one of {', '.join(_LAYERS)}, got {kind!r:.40}")
        name = self.entry.text("name", default="")
        sources = self._sources(2 if kind in _OF_TWO else 1)
        self.shape = sources[0][1]
        layer, self.shape = _LAYERS[kind](self)
        self.entry.close()
        if layer is None:
            self.value = sources[0][0]
        else:
            inputs = tuple(value for value, _ in sources)
            self.nodes.append(Node(layer=layer, inputs=inputs, name=name or f"{index} ({kind})"))
            self.value = len(self.nodes)
        if name:
            if name in self.named:
                raise InputError(f"{self.entry.label}: the name {name!r:.40} stands twice")
            self.named[name] = (self.value, self.shape)

    def _sources(self, count: int) -> list[tuple[int, tuple[int, ...]]]:
        names = self.entry.take("inputs", None)
        if names is None and count == 1:
            return [(self.value, self.shape)]
        if not isinstance(names, list) or len(names) != count or not all(name in self.named for name in names):
            raise InputError(f"{self.entry.label}: expected inputs as the names of {count} earlier layers")
        return [self.named[name] for name in names]

    def tensor(self, part: str, *axes: int, default: Float64[ndarray, "..."] | None = None) -> Float64[ndarray, "..."]:
        """A tensor of the layer, of one of the numbers of ``axes``; ``default`` where there is none."""
        name = f"{self.entry.text('tensor')}.{part}"
        if name not in self.tensors:
            if default is not None:
                return default
            raise InputError(f"{self.entry.label}: the weights hold no tensor {name}")
        self.used.add(name)
        if self.tensors[name].ndim not in axes:
            raise InputError(f"{self.entry.label}: tensor {name} has the shape {self.tensors[name].shape}")
        return self.tensors[name]

    @property
    def image(self) -> Image:
        """The shape so far as an image. Raises ``InputError`` when it is none."""
        if len(self.shape) != 3:
            raise InputError(f"{self.entry.label}: expected an image, got records of shape {self.shape}")
        channels, height, width = self.shape
        return Image(channels=channels, height=height, width=width)


@dataclass(slots=True)
class _Entry:
    """One entry of the config's layers; every field is taken, or the config is refused."""

    index: int
    held: Any
    taken: set[str] = field(default_factory=set)

    @property
    def label(self) -> str:
        """What errors call it."""
        return f"config: layer {self.index}"

    def take(self, name: str, default: Any) -> Any:
        """The field's value, or ``default``."""
        if not isinstance(self.held, dict):
            raise InputError(f"{self.label}: expected an object")
        self.taken.add(name)
        return self.held.get(name, default)

    def text(self, name: str, *, default: str | None = None) -> str:
        """A field that holds text."""
        value = self.take(name, default)
        if not isinstance(value, str):
            raise InputError(f"{self.label}: expected {name} as text")
        return value

    def number(self, name: str, *, default: float | None = None) -> float:
        """A field that holds a finite number."""
        value = self.take(name, default)
        if type(value) not in (int, float) or not np.isfinite(value):
            raise InputError(f"{self.label}: expected {name} as a number")
        return float(value)

    def pair(self, name: str, *, least: int, default: Any = None) -> tuple[int, int]:
        """A field that holds a whole number, or one for rows and one for columns."""
        value = self.take(name, default)
        sides = value if isinstance(value, list) and len(value) == 2 else [value, value]
        if not all(type(side) is int and least <= side <= 1 << 12 for side in sides):
            raise InputError(f"{self.label}: expected {name} as a whole number of at least {least}, or two")
        return sides[0], sides[1]

    def close(self) -> None:
        """Refuse fields that nobody asked for. Raises ``InputError``."""
        unknown = sorted(set(self.held) - self.taken)
        if unknown:
            raise InputError(f"{self.label}: unknown fields {', '.join(unknown)}")


_Made: TypeAlias = tuple[Layer | None, tuple[int, ...]]


def _dense(builder: _Builder) -> _Made:
    weights = builder.tensor("weight", 2)
    return Dense(weights=weights, bias=builder.tensor("bias", 1, default=np.zeros(len(weights)))), (len(weights),)


def _convolution(builder: _Builder) -> _Made:
    kernel = builder.tensor("weight", 4)
    layer = Convolution(
        kernel=kernel,
        bias=builder.tensor("bias", 1, default=np.zeros(len(kernel))),
        image=builder.image,
        stride=builder.entry.pair("stride", least=1, default=1),
        padding=builder.entry.pair("padding", least=0, default=0),
    )
    return layer, _sides(builder, layer.output)


def _average_pool(builder: _Builder) -> _Made:
    window = builder.entry.pair("window", least=1)
    layer = AveragePool(
        image=builder.image, window=window, stride=builder.entry.pair("stride", least=1, default=list(window))
    )
    return layer, _sides(builder, layer.output)


def _batch_norm(builder: _Builder) -> _Made:
    mean, variance = builder.tensor("running_mean", 1), builder.tensor("running_var", 1)
    epsilon = builder.entry.number("eps", default=1e-5)
    if np.any(variance + epsilon <= 0):
        raise InputError(f"{builder.entry.label}: expected positive variances")
    factor = builder.tensor("weight", 1, default=np.ones_like(mean)) / np.sqrt(variance + epsilon)
    shift = builder.tensor("bias", 1, default=np.zeros_like(mean)) - mean * factor
    each = int(np.prod(builder.shape[1:], dtype=int))
    return Scale(factor=np.repeat(factor, each), shift=np.repeat(shift, each)), builder.shape


def _scale(builder: _Builder) -> _Made:
    factor = builder.tensor("weight", 1)
    return Scale(factor=factor, shift=builder.tensor("bias", 1, default=np.zeros_like(factor))), builder.shape


def _polynomial(builder: _Builder) -> _Made:
    layer = Polynomial(
        coefficients=builder.tensor("weight", 1),
        basis=_member(Basis, builder.entry.text("basis", default="chebyshev"), "basis", label=builder.entry.label),
        low=builder.entry.number("low"),
        high=builder.entry.number("high"),
    )
    if not layer.low < layer.high or not layer.coefficients.size:
        raise InputError(f"{builder.entry.label}: expected low < high and at least one coefficient")
    return layer, builder.shape


def _activation(builder: _Builder) -> _Made:
    function = _member(Function, builder.entry.text("function"), "function", label=builder.entry.label)
    return Activation(function=function), builder.shape


def _flatten(builder: _Builder) -> _Made:
    return None, (int(np.prod(builder.shape)),)


def _sides(builder: _Builder, image: Image) -> tuple[int, ...]:
    if image.height < 1 or image.width < 1:
        raise InputError(f"{builder.entry.label}: its window is larger than the image")
    return (image.channels, image.height, image.width)


_LAYERS: dict[str, Callable[[_Builder], _Made]] = {
    "dense": _dense,
    "convolution": _convolution,
    "average_pool": _average_pool,
    "batch_norm": _batch_norm,
    "scale": _scale,
    "polynomial": _polynomial,
    "activation": _activation,
    "flatten": _flatten,
    "square": lambda builder: (Square(), builder.shape),
    "add": lambda builder: (Add(), builder.shape),
    "multiply": lambda builder: (Multiply(), builder.shape),
}
_OF_TWO = ("add", "multiply")
