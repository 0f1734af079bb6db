"""Local training of a group of clients as batched kernels, the backward pass written out.

The module is traced once (``torch.fx``). Activations of all clients lie in one batch, ``clients * records`` rows, so
that what has no parameters of its own (activations, pooling, attention's softmax, reshaping) runs as it stands, and
its gradient is PyTorch's. Layers that are trained have a row of parameters for each client and their gradients
written out (:mod:`mibao.federated.layers`). For plain SGD the step is part of the product that makes the gradient.

A module that branches on values, uses parameters outside of layers, or mixes records cannot be taken. Whether it
mixes records is tried out by the model, which lets two clients take a step both ways.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from numpy import ndarray
from torch import fx, nn

from mibao.federated.layers import Group, Layer, Sink, layer_for
from mibao.federated.local_training import LocalOptimiser, LocalTraining, LocalWork, Step, Stepper, steps
from mibao.federated.losses import Slope, slope_for
from mibao.federated.torch_engines import (
    LossFunction,
    OwnDropout,
    corrections,
    dropout_source,
    moved_rows,
    own_dropout,
    start_of,
)

Values = dict[fx.Node, Any]


class NotWrittenOut(Exception):
    """The engine cannot take a module or a loss; says which part."""


class WrittenOut:
    """The engine for one module.

    Raises:
        NotWrittenOut: the module or the loss has a part without a written gradient.
    """

    def __init__(
        self, module: nn.Module, named: Mapping[str, nn.Parameter], loss: LossFunction, *, device: str
    ) -> None:
        slope = slope_for(loss)
        if slope is None:
            raise NotWrittenOut(f"the loss {getattr(loss, '__name__', type(loss).__name__)}")
        self._slope: Slope = slope
        self.activation_bytes = 0  # of one client in one step; known after the first
        self._device = device
        traced_module = copy.deepcopy(module).train()
        own_dropout(traced_module)
        self._graph = _trace(traced_module)
        _pool_first(self._graph, traced_module)
        self._shapes = [each.shape for each in named.values()]
        places = {name: place for place, name in enumerate(named)}
        self._layers: dict[fx.Node, Layer] = {}
        self._dropouts: dict[fx.Node, OwnDropout] = {}
        modules = dict(traced_module.named_modules())
        calls: dict[str, int] = {}
        for node in self._graph.nodes:
            if node.op == "get_attr":
                raise NotWrittenOut(f"{node.target}, a tensor that is no layer's")
            if node.op != "call_module":
                continue
            layer = modules[str(node.target)]
            trained = {
                name: places[f"{node.target}.{name}"]
                for name, _ in layer.named_parameters()
                if f"{node.target}.{name}" in places
            }
            if isinstance(layer, OwnDropout):
                self._dropouts[node] = layer
            elif trained:
                made = layer_for(layer, trained)
                if made is None:
                    raise NotWrittenOut(f"{node.target}, a {type(layer).__name__}")
                self._layers[node] = made
                calls[str(node.target)] = calls.get(str(node.target), 0) + 1
        covered = {place for layer in self._layers.values() for place in layer.places}
        if covered != set(places.values()):
            missing = sorted(set(places.values()) - covered)
            raise NotWrittenOut(f"{list(named)[missing[0]]}, which no layer in the graph holds")
        self._modules = modules
        self._called_once = all(count == 1 for count in calls.values())
        self._output = next(node for node in reversed(self._graph.nodes) if node.op == "output").args[0]
        self._order = list(self._graph.nodes)
        self._source = {node: node.all_input_nodes[0] if node.all_input_nodes else None for node in self._order}
        self._given_once = {node for node in self._layers if len(node.users) == 1}
        self._needed = self._with_gradient()

    def train(
        self, weights: Float32[ndarray, "weights"], group: Sequence[LocalWork], local: LocalTraining
    ) -> Float32[ndarray, "clients weights"]:
        """How far each client's weights moved."""
        with torch.no_grad():
            begun, held = start_of(weights, group, self._shapes, self._device)
            added = corrections(group, self._shapes, self._device)
            draws = [dropout_source(work.seed, self._device) for work in group] if self._dropouts else []
            fused = self._called_once and not (
                local.optimiser is LocalOptimiser.ADAM
                or local.momentum
                or local.weight_decay
                or local.proximal
                or added
            )
            if fused:
                for step in steps(group):
                    self._step(held, step, Sink(held, step.active, -local.lr), draws)
            else:
                stepper = Stepper(local, held, start=begun, correction=added)
                gradients = [torch.zeros_like(each) for each in held]
                for step in steps(group):
                    for each in gradients:
                        each.zero_()
                    self._step(held, step, Sink(gradients, step.active, 1.0), draws)
                    stepper.step(gradients, step.active)
            return moved_rows(begun, held)

    def _step(self, held: Sequence[torch.Tensor], step: Step, sink: Sink, draws: Sequence[torch.Generator]) -> None:
        group = Group(held=[each[: step.active] for each in held], clients=step.active, sink=sink)
        features = torch.from_numpy(step.features).to(self._device).flatten(0, 1)
        targets = torch.from_numpy(step.targets).to(self._device).flatten(0, 1)
        shares = None if step.shares is None else torch.from_numpy(step.shares.astype(np.float32)).to(self._device)
        chance = _Chance(draws, None if step.shares is None else (step.shares > 0).sum(axis=1).tolist())
        values, saved = self._forward(features, group, chance)
        if not self.activation_bytes:
            held_bytes = sum(each.nbytes for each in values.values() if isinstance(each, torch.Tensor))
            self.activation_bytes = held_bytes // step.active
        slope = self._slope(values[self._output], targets, step.active, shares)
        self._backward(slope, group, values, saved)

    def _forward(self, features: torch.Tensor, group: Group, chance: _Chance) -> tuple[Values, Values]:
        values: Values = {}
        saved: Values = {}
        for node in self._order:
            if node.op == "placeholder":
                values[node] = features
            elif node in self._layers:
                values[node], saved[node] = self._layers[node].forward(values[node.args[0]], group)
            elif node in self._dropouts:
                mask = chance.mask(values[node.args[0]], group.clients, self._dropouts[node].rate)
                values[node], saved[node] = values[node.args[0]] * mask, mask
            elif node.op != "output":
                values[node], saved[node] = self._plain(node, values)
        return values, saved

    def _plain(self, node: fx.Node, values: Values) -> tuple[Any, Any]:
        """Something without parameters of its own: run as it stands, remembered by autograd if it is on the way."""
        inputs = {each: values[each] for each in node.all_input_nodes}
        if node.target in _RELUS or isinstance(self._modules.get(str(node.target)), nn.ReLU):
            source = node.all_input_nodes[0]
            # What a layer gives to nobody else is not needed again.
            return (inputs[source].relu_() if source in self._given_once else inputs[source].relu()), None
        differentiated = [
            each
            for each in node.all_input_nodes
            if each in self._needed and isinstance(inputs[each], torch.Tensor) and inputs[each].is_floating_point()
        ]
        if not differentiated:
            return self._run(node, inputs), None
        with torch.enable_grad():
            leaves = {each: inputs[each].detach().requires_grad_() for each in differentiated}
            result = self._run(node, {**inputs, **leaves})
        if not isinstance(result, torch.Tensor):
            return result, None
        return result.detach(), (result, list(leaves.items()))

    def _run(self, node: fx.Node, inputs: Values) -> Any:
        args = fx.map_arg(node.args, inputs.__getitem__)
        kwargs = fx.map_arg(node.kwargs, inputs.__getitem__)
        if node.op == "call_module":
            return self._modules[str(node.target)](*args, **kwargs)
        if node.op == "call_method":
            # Rows may lie channels last, which ``view`` does not take.
            name = "reshape" if node.target == "view" else str(node.target)
            return getattr(args[0], name)(*args[1:], **kwargs)
        function: Any = node.target
        return function(*args, **kwargs)

    def _backward(self, slope: torch.Tensor, group: Group, values: Values, saved: Values) -> None:
        slopes: Values = {}
        for node in reversed(self._order):
            if node.op == "output":
                slopes[node.args[0]] = slope
                continue
            if node not in slopes or node.op == "placeholder":
                continue
            arrived = slopes.pop(node)
            source = self._source[node]
            if node in self._layers and source is not None:
                wanted = source in self._needed
                below = self._layers[node].backward(arrived, values[source], saved[node], group, wanted)
                if wanted:
                    _add(slopes, source, below)
            elif node in self._dropouts and source is not None:
                _add(slopes, source, arrived * saved[node])
            elif saved[node] is None:
                if source is not None and source in self._needed:
                    _add(slopes, source, torch.ops.aten.threshold_backward(arrived, values[node], 0))
            else:
                result, leaves = saved[node]
                found = torch.autograd.grad(result, [leaf for _, leaf in leaves], arrived, allow_unused=True)
                for (each, _), below in zip(leaves, found, strict=True):
                    if below is not None:
                        _add(slopes, each, below)

    def _with_gradient(self) -> set[fx.Node]:
        """Nodes whose value depends on a trained layer."""
        needed: set[fx.Node] = set()
        for node in self._graph.nodes:
            if node in self._layers or any(each in needed for each in node.all_input_nodes):
                needed.add(node)
        return needed


_RELUS: tuple[Any, ...] = (torch.relu, nn.functional.relu, "relu")


def _add(slopes: Values, node: fx.Node, slope: torch.Tensor) -> None:
    # A sum is a tensor of its own.
    slopes[node] = slopes[node] + slope if node in slopes else slope


class _Chance:
    """Each client's dropout masks from its own source; where a batch is ragged, of its real records only."""

    def __init__(self, draws: Sequence[torch.Generator], counts: list[int] | None) -> None:
        self._draws, self._counts = draws, counts

    def mask(self, values: torch.Tensor, clients: int, rate: float) -> torch.Tensor:
        """What to multiply ``values`` with."""
        shaped = values.view(clients, -1, *values.shape[1:])
        mask = torch.zeros_like(shaped)
        for client in range(clients):
            count = shaped.shape[1] if self._counts is None else self._counts[client]
            drawn = torch.rand((count, *shaped.shape[2:]), generator=self._draws[client], device=values.device)
            mask[client, :count] = (drawn >= rate) / (1.0 - rate)
        return mask.view_as(values)


def _pool_first(graph: fx.Graph, module: nn.Module) -> None:
    """A ReLU before a largest-of-each-window pooling may as well come after it, where there is less to do."""
    for pool in list(graph.nodes):
        if not _is(pool, module, nn.MaxPool2d, (nn.functional.max_pool2d, torch.max_pool2d)):
            continue
        relu = pool.args[0]
        if _is(relu, module, nn.ReLU, _RELUS) and len(relu.users) == 1:
            pool.replace_input_with(relu, relu.all_input_nodes[0])
            with graph.inserting_after(pool):
                after = graph.call_function(torch.relu, (pool,))
            pool.replace_all_uses_with(after, delete_user_cb=lambda user, own=after: user is not own)
            graph.erase_node(relu)


def _is(node: fx.Node, module: nn.Module, kind: type[nn.Module], functions: tuple[Any, ...]) -> bool:
    if node.op == "call_module":
        return type(module.get_submodule(str(node.target))) is kind
    return node.op in ("call_function", "call_method") and node.target in functions


class _Tracer(fx.Tracer):
    """Takes our dropout as one layer, as it takes PyTorch's own."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, OwnDropout) or bool(super().is_leaf_module(m, module_qualified_name))


def _trace(module: nn.Module) -> fx.Graph:
    """The module's graph. Raises ``NotWrittenOut`` where it cannot be traced, or has more than one input."""
    if not list(module.children()):
        raise NotWrittenOut("a module without layers in it")
    try:
        graph: fx.Graph = _Tracer().trace(module)
    except Exception as error:  # the user's forward runs here and may raise anything; another engine takes the module
        raise NotWrittenOut(f"its forward cannot be traced ({type(error).__name__})") from error
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    outputs = [node for node in graph.nodes if node.op == "output"]
    if len(inputs) != 1 or not isinstance(outputs[0].args[0], fx.Node):
        raise NotWrittenOut("a forward with other than one input and one output")
    return graph
