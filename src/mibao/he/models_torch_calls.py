"""PyTorch's functions and methods inside a ``forward``, one function each: a traced call to layers of a network."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float64
from numpy import ndarray
from torch import fx

from mibao.errors import InputError
from mibao.he.models_torch_layers import Place, average_over, pooled
from mibao.he.network import Activation, Add, Function, Layer, Multiply, Node, Scale, Square


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One traced call, the module that holds its constants, and the name that errors give it."""

    graph: Any
    node: Any
    name: str

    @property
    def pair(self) -> tuple[Any, Any]:
        """The two operands. Raises ``InputError`` when there are not two."""
        if len(self.node.args) != 2:
            raise InputError(f"{self.name}: expected two operands")
        return self.node.args[0], self.node.args[1]

    def argument(self, place: int, name: str, default: Any) -> Any:
        """What was passed at ``place`` or as ``name``."""
        return self.node.args[place] if len(self.node.args) > place else self.node.kwargs.get(name, default)


@dataclass(slots=True)
class Builder:
    """The network so far, and which of its values each node of the graph became."""

    nodes: list[Node] = field(default_factory=list)
    values: dict[Any, int] = field(default_factory=dict)

    def holds(self, argument: Any) -> bool:
        """Whether ``argument`` was computed from the input."""
        return isinstance(argument, fx.Node) and argument in self.values

    def append(self, layer: Layer, inputs: tuple[Any, ...], name: str, result: Any) -> None:
        """One layer on what the graph's nodes ``inputs`` became; ``result`` is the node that it computes."""
        self.nodes.append(Node(layer=layer, inputs=tuple(self.values[node] for node in inputs), name=name))
        self.values[result] = len(self.nodes)

    def chain(self, node: Any, layers: list[Layer], name: str) -> None:
        """``layers``, one after the other, on the node's first argument; none leaves it as it is."""
        self.values[node] = self.values[node.args[0]]
        for layer in layers:
            self.append(layer, (node,), name, node)


def shape_of(node: Any) -> tuple[int, ...] | None:
    """The shape of the tensor that ``node`` computes, rows first, or nothing where it computes none."""
    meta: Any = node.meta.get("tensor_meta") if isinstance(node, fx.Node) else None
    return tuple(meta.shape) if hasattr(meta, "shape") else None


def record_shape(node: Any) -> tuple[int, ...]:
    """The shape of one record of it. Raises ``InputError`` when it is no tensor of records."""
    shape = shape_of(node)
    if not shape:
        raise InputError("model: expected a forward that computes one tensor with a row a record")
    return shape[1:]


def _reshaped(builder: Builder, call: Call) -> None:
    """A change of shape that leaves each record's numbers in their order: nothing to do."""
    source, held = shape_of(call.node.args[0]), shape_of(call.node)
    if source is None or held is None or source[:1] != held[:1] or math.prod(source) != math.prod(held):
        raise InputError(f"{call.name}: expected it to keep the rows and every number of a record")
    builder.chain(call.node, [], call.name)


def _activated(function: Function) -> Translate:
    def translate(builder: Builder, call: Call) -> None:
        if call.node.kwargs.get("approximate", "none") != "none":
            raise InputError(f"{call.name}: expected approximate='none'; train a few epochs more with it")
        builder.chain(call.node, [Activation(function=function)], call.name)

    return translate


def _averaged(builder: Builder, call: Call) -> None:
    window = call.argument(1, "kernel_size", None)
    stride = call.argument(2, "stride", None) or window
    plain = call.argument(3, "padding", 0) in (0, (0, 0)) and not call.argument(4, "ceil_mode", False)
    if not plain or call.argument(6, "divisor_override", None) is not None:
        raise InputError(f"{call.name}: expected no padding, ceil_mode=False and no divisor_override")
    builder.chain(call.node, [average_over(_place(call), window, stride)], call.name)


def _adapted(builder: Builder, call: Call) -> None:
    builder.chain(call.node, [pooled(_place(call), call.argument(1, "output_size", None))], call.name)


def _mean(builder: Builder, call: Call) -> None:
    place, axes = _place(call), call.argument(1, "dim", None)
    held = sorted(axis % (len(place.shape) + 1) for axis in axes) if isinstance(axes, tuple | list) else axes
    if len(place.shape) != 3 or held != [2, 3]:
        raise InputError(f"{call.name}: expected a mean over the rows and columns of an image, dim=(2, 3)")
    builder.chain(call.node, [pooled(place, 1)], call.name)


def _squared(builder: Builder, call: Call) -> None:
    builder.chain(call.node, [Square()], call.name)


def _raised(builder: Builder, call: Call) -> None:
    exponent = call.argument(1, "exponent", None)
    if exponent != 2:
        raise InputError(f"{call.name}: expected the power 2, got {exponent}; write others as products")
    _squared(builder, call)


def _multiplied(builder: Builder, call: Call) -> None:
    left, right = call.pair
    if left is right:
        _squared(builder, call)
    elif builder.holds(left) and builder.holds(right):
        _check_same_shape(call)
        builder.append(Multiply(), (left, right), call.name, call.node)
    else:
        value, constant = (left, right) if builder.holds(left) else (right, left)
        factor = _constant(builder, call, constant, value)
        builder.append(Scale(factor=factor, shift=np.zeros_like(factor)), (value,), call.name, call.node)


def _added(builder: Builder, call: Call) -> None:
    left, right = call.pair
    _check_alpha(call)
    if builder.holds(left) and builder.holds(right):
        _check_same_shape(call)
        builder.append(Add(), (left, right), call.name, call.node)
    else:
        value, constant = (left, right) if builder.holds(left) else (right, left)
        shift = _constant(builder, call, constant, value)
        builder.append(Scale(factor=np.ones_like(shift), shift=shift), (value,), call.name, call.node)


def _subtracted(builder: Builder, call: Call) -> None:
    left, right = call.pair
    _check_alpha(call)
    if builder.holds(left) and builder.holds(right):
        _check_same_shape(call)
        builder.append(_negation(right), (right,), call.name, call.node)
        builder.append(Add(), (left, call.node), call.name, call.node)
    elif builder.holds(left):
        shift = -_constant(builder, call, right, left)
        builder.append(Scale(factor=np.ones_like(shift), shift=shift), (left,), call.name, call.node)
    else:
        shift = _constant(builder, call, left, right)
        builder.append(Scale(factor=np.full_like(shift, -1.0), shift=shift), (right,), call.name, call.node)


def _divided(builder: Builder, call: Call) -> None:
    left, right = call.pair
    if builder.holds(right):
        raise InputError(f"{call.name}: expected a constant to divide by; ciphertexts cannot be divided")
    factor = 1.0 / _constant(builder, call, right, left)
    builder.append(Scale(factor=factor, shift=np.zeros_like(factor)), (left,), call.name, call.node)


def _negated(builder: Builder, call: Call) -> None:
    builder.chain(call.node, [_negation(call.node)], call.name)


def _negation(node: Any) -> Scale:
    width = math.prod(record_shape(node))
    return Scale(factor=np.full(width, -1.0), shift=np.zeros(width))


def _place(call: Call) -> Place:
    return Place(name=call.name, shape=record_shape(call.node.args[0]))


def _check_same_shape(call: Call) -> None:
    left, right = (record_shape(argument) for argument in call.pair)
    if left != right:
        raise InputError(f"{call.name}: expected two values of one shape, got {left} and {right}")


def _check_alpha(call: Call) -> None:
    if call.node.kwargs.get("alpha", 1) != 1:
        raise InputError(f"{call.name}: expected alpha=1; multiply by a constant instead")


def _constant(builder: Builder, call: Call, argument: Any, beside: Any) -> Float64[ndarray, "features"]:
    """A number, or a tensor that the module holds, spread over the value ``beside`` it."""
    if not builder.holds(beside):
        raise InputError(f"{call.name}: expected one of the operands to come from the input")
    if isinstance(argument, fx.Node):
        if argument.op != "get_attr":
            raise InputError(f"{call.name}: expected a constant, or a value computed from the input")
        held = operator.attrgetter(argument.target)(call.graph).detach().double()
    else:
        held = torch.tensor(float(argument), dtype=torch.float64)
    shape = record_shape(beside)
    if record_shape(call.node) != shape or (held.dim() == len(shape) + 1 and held.shape[0] != 1):
        raise InputError(f"{call.name}: expected a constant that suits each record of shape {shape}")
    return np.array(held.expand(1, *shape).reshape(-1).numpy(), dtype=np.float64)


Translate: TypeAlias = Callable[[Builder, Call], None]

ACTIVATION_CALLS: dict[str, Function] = {function.value: function for function in Function}

CALLS: dict[str, Translate] = {
    **dict.fromkeys(("flatten", "view", "reshape", "squeeze", "unsqueeze", "contiguous", "clone"), _reshaped),
    **dict.fromkeys(("dropout", "dropout2d", "detach", "double", "float"), _reshaped),
    **dict.fromkeys(("mul", "multiply", "imul"), _multiplied),
    **dict.fromkeys(("add", "iadd"), _added),
    **dict.fromkeys(("sub", "subtract", "isub"), _subtracted),
    **dict.fromkeys(("div", "truediv", "divide", "itruediv"), _divided),
    **dict.fromkeys(("neg", "negative"), _negated),
    "square": _squared,
    "pow": _raised,
    "avg_pool2d": _averaged,
    "adaptive_avg_pool2d": _adapted,
    "mean": _mean,
    **{name: _activated(function) for name, function in ACTIVATION_CALLS.items()},
}
