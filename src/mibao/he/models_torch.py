"""PyTorch modules as networks: traced by torch.fx, shapes found by running records, weights copied out.

Importing this module imports PyTorch; :mod:`mibao.he.models` does so when it is given a module.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from numpy import ndarray
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from mibao.errors import InputError
from mibao.he.models_torch_calls import ACTIVATION_CALLS, CALLS, Builder, Call, record_shape, shape_of
from mibao.he.models_torch_layers import ACTIVATION_MODULES, INSTEAD, MODULES, Place
from mibao.he.network import Function, Head, Network
from mibao.he.reference import evaluate, finish

_ROWS = 3  # of the records that shapes are found with, and the translation checked
_TOLERANCE = 1e-9


def network_of_module(
    model: Any,
    *,
    low: Float64[ndarray, "features"],
    high: Float64[ndarray, "features"],
    input_shape: tuple[int, ...],
) -> Network:
    """A ``torch.nn.Module`` in evaluation mode as a network. The module itself is left as it is.

    A softmax or a sigmoid at the very end becomes the client's work, after decryption, exact.

    Args:
        low: Smallest value of each feature that a client may send, flat.
        high: Largest.
        input_shape: One record's shape, such as (64,) or (1, 28, 28).

    Raises:
        InputError: the module cannot be traced, or holds a layer that cannot be computed on ciphertexts; the message
            names it and says what to use instead.
    """
    records = np.linspace(low, high, _ROWS)
    graph, expected = _traced(model, records.reshape(_ROWS, *input_shape))
    builder, head, shape = _translated(graph)
    network = Network(
        low=low,
        high=high,
        nodes=tuple(builder.nodes),
        head=head,
        flat=shape == (),
        input_shape=input_shape if len(input_shape) > 1 else (),
    )
    computed = finish(evaluate(network, records), head=network.head, flat=network.flat)
    if not np.allclose(computed, expected, rtol=_TOLERANCE, atol=_TOLERANCE):
        raise InputError(
            "model: its layers computed one by one give other answers than its forward; "
            "avoid operations that change a value in place"
        )
    return network


class _Tracer(fx.Tracer):  # type: ignore[misc]
    """Stops at the modules that have layers of their own, ours among them."""

    def is_leaf_module(self, m: Any, module_qualified_name: str) -> bool:
        return type(m) in MODULES or bool(super().is_leaf_module(m, module_qualified_name))


def trace(module: Any) -> Any:
    """The graph of what ``module`` calls, its parts shared with it. Raises ``InputError`` when it cannot be traced."""
    held = nn.Sequential(module) if _is_leaf(module) else module
    try:
        return fx.GraphModule(held, _Tracer().trace(held))
    except (fx.proxy.TraceError, TypeError, NotImplementedError) as error:
        raise InputError(
            "model: torch.fx cannot trace it; its forward must not branch on values or shapes. "
            "Write it with nn.Sequential and plain operations"
        ) from error


def activation_at(graph: Any, node: Any) -> Function | None:
    """Which activation ``node`` calls; none where it ends the model, which is the client's work."""
    if node.op == "call_module":
        kind = type(graph.get_submodule(node.target))
        function, head = ACTIVATION_MODULES.get(kind), _HEAD_MODULES.get(kind)
    elif node.op in ("call_function", "call_method"):
        function, head = ACTIVATION_CALLS.get(_target(node)), _HEAD_CALLS.get(_target(node))
    else:
        return None
    return None if head is not None and all(user.op == "output" for user in node.users) else function


def _target(node: Any) -> str:
    name = node.target if node.op == "call_method" else getattr(node.target, "__name__", str(node.target))
    return str(name).strip("_")


def _traced(model: Any, records: Float64[ndarray, "rows ..."]) -> tuple[Any, Float64[ndarray, "..."]]:
    """A copy in evaluation mode and in double precision, shapes noted at each node, and its answers to ``records``."""
    held = copy.deepcopy(model).cpu().double().eval()
    graph = trace(held)
    sample = torch.from_numpy(records)
    try:
        with torch.no_grad():
            expected = held(sample.clone())
            ShapeProp(graph).propagate(sample.clone())
    except (RuntimeError, TypeError) as error:
        raise InputError(
            f"model: it does not take one tensor of records of shape {records.shape[1:]}, as in the calibration"
        ) from error
    if not isinstance(expected, torch.Tensor):
        raise InputError(f"model: expected a forward that returns one tensor, got {type(expected).__name__}")
    return graph, expected.numpy()


def _is_leaf(module: Any) -> bool:
    return type(module) in MODULES or (
        type(module).__module__.startswith("torch.nn") and not isinstance(module, nn.Sequential)
    )


def _translated(graph: Any) -> tuple[Builder, Head, tuple[int, ...]]:
    """The layers, what the client does at the end, and the shape of one answer."""
    builder, head = Builder(), Head.IDENTITY
    shape: tuple[int, ...] = ()
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            if builder.values:
                raise InputError("model: expected one input, got a forward with several")
            builder.values[node] = 0
        elif node.op == "output":
            shape = record_shape(node.args[0])
        elif node.op == "call_module":
            head = _module(builder, graph, node)
        elif node.op != "get_attr" and shape_of(node) is not None:
            head = _call(builder, graph, node)
    if len(shape) > 1:
        raise InputError(f"model: expected answers of shape (rows, outputs), got (rows, {', '.join(map(str, shape))})")
    return builder, head, shape


def _module(builder: Builder, graph: Any, node: Any) -> Head:
    module = graph.get_submodule(node.target)
    name = f"{node.target} ({type(module).__name__})"
    head = _HEAD_MODULES.get(type(module))
    if head is not None and _ends(node, head, getattr(module, "dim", 1)):
        builder.chain(node, [], name)
        return head
    translate = MODULES.get(type(module))
    if translate is None:
        raise _unsupported(name, type(module).__name__)
    builder.chain(node, translate(module, Place(name=name, shape=record_shape(node.args[0]))), name)
    return Head.IDENTITY


def _call(builder: Builder, graph: Any, node: Any) -> Head:
    target = _target(node)
    call = Call(graph=graph, node=node, name=f"{node.name} ({target})")
    head = _HEAD_CALLS.get(target)
    if head is not None and _ends(node, head, call.argument(1, "dim", 1)):
        builder.chain(node, [], call.name)
        return head
    translate = CALLS.get(target)
    if translate is None:
        raise _unsupported(call.name, target)
    translate(builder, call)
    return Head.IDENTITY


def _ends(node: Any, head: Head, dim: Any) -> bool:
    """Whether ``node`` is the last step, over the outputs of each record."""
    last = all(user.op == "output" for user in node.users) and len(record_shape(node)) == 1
    return last and (head is not Head.SOFTMAX or dim in (1, -1, None))


def _unsupported(name: str, kind: str) -> InputError:
    advice = INSTEAD.get(kind, "use Linear, Conv2d, AvgPool2d, BatchNorm, Flatten, sums, ReLU, GELU, SiLU or x * x")
    return InputError(f"{name} cannot be computed on ciphertexts; {advice}")


_HEAD_MODULES: dict[Any, Head] = {nn.Softmax: Head.SOFTMAX, nn.Sigmoid: Head.SIGMOID}
_HEAD_CALLS: dict[str, Head] = {"softmax": Head.SOFTMAX, "sigmoid": Head.SIGMOID}
