"""A PyTorch model trained on with polynomials in its activations' places, so that encryption costs it no accuracy.

Importing this module imports PyTorch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import fx, nn

from mibao.errors import InputError
from mibao.he.minimax import activation_polynomial
from mibao.he.models_torch import activation_at, trace
from mibao.he.network import Function
from mibao.he.polynomial_activation import PolynomialActivation

DEFAULT_DEGREE = 3
LARGEST_GRADIENT = 1.0


def with_polynomials(
    model: Any, calibration: Any, *, degree: int = DEFAULT_DEGREE, margin: float = 0.1, trainable: bool = True
) -> Any:
    """A copy of ``model`` with a :class:`PolynomialActivation` wherever it calls an activation.

    Each starts as the minimax polynomial on the interval that ``calibration`` shows there, ``margin`` of its width
    added on both sides. A sigmoid or softmax at the very end stays: it is the client's work, after decryption.

    Args:
        model: A ``torch.nn.Module`` that torch.fx can trace. Dropout must be a module, not a function.
        calibration: A tensor of records as the model takes them.
        degree: 2 or 3 costs two products in a row, up to 7 three, up to 15 four.
        trainable: Whether training may change the coefficients, too.

    Raises:
        InputError: the model cannot be traced, has no activation, or does not take the records.
    """
    held = copy.deepcopy(model).eval()
    graph = trace(held)
    found: dict[str, PolynomialActivation] = {}

    class Run(fx.Interpreter):  # type: ignore[misc]
        """Runs the records through, each activation replaced as soon as its interval is known."""

        def run_node(self, n: Any) -> Any:
            function = activation_at(graph, n)
            if function is None:
                return super().run_node(n)
            (values, *_), _ = self.fetch_args_kwargs_from_env(n)
            name = f"polynomial_{len(found)}_{function.value}"
            found[name] = _fitted(function, values, degree=degree, margin=margin, trainable=trainable)
            n.meta["polynomial"] = name
            return found[name](values)

    try:
        with torch.no_grad():
            Run(graph).run(calibration)
    except RuntimeError as error:
        raise InputError("model: it does not take the calibration's records") from error
    if not found:
        raise InputError("model: expected an activation to replace (ReLU, GELU, SiLU, Sigmoid or Tanh), found none")
    _replace(graph, found)
    return graph.train(model.training)


def _fitted(function: Function, values: Any, *, degree: int, margin: float, trainable: bool) -> PolynomialActivation:
    low, high = float(values.min()), float(values.max())
    room = margin * (high - low) if high > low else 1.0
    polynomial = activation_polynomial(function, low=low - room, high=high + room, degree=degree)
    made = PolynomialActivation(polynomial, trainable=trainable)
    made.to(values.device, values.dtype)
    return made


def _replace(graph: Any, found: dict[str, PolynomialActivation]) -> None:
    for node in list(graph.graph.nodes):
        name = node.meta.pop("polynomial", None)
        if name is not None:
            graph.add_submodule(name, found[name])
            with graph.graph.inserting_after(node):
                new = graph.graph.call_module(name, (node.args[0],))
            node.replace_all_uses_with(new)
            graph.graph.erase_node(node)
    graph.delete_all_unused_submodules()
    graph.recompile()


def finetune(
    model: Any,
    batches: Iterable[tuple[Any, Any]],
    *,
    loss: Callable[[Any, Any], Any],
    epochs: int = 5,
    learning_rate: float = 1e-3,
    range_penalty: float = 1.0,
    optimizer: Any = None,
) -> list[float]:
    """Train ``model`` on with its polynomials, and return the mean loss of each epoch, the penalty included.

    What leaves a polynomial's interval is added to the loss, so that values stay where the polynomial is meant for;
    gradients are clipped at norm 1, as a polynomial grows fast outside.

    Args:
        model: From :func:`with_polynomials`; changed in place, and left in evaluation mode.
        batches: Pairs of inputs and targets, gone through once an epoch: a DataLoader or a list.
        loss: Of the model's output and the targets, such as ``torch.nn.functional.cross_entropy``.
        range_penalty: Weight of the mean square distance outside the intervals.
        optimizer: One over ``model.parameters()``; by default Adam at ``learning_rate``.

    Raises:
        InputError: no polynomial in the model, no batch, or a loss that is not finite.
    """
    activations = [module for module in model.modules() if isinstance(module, PolynomialActivation)]
    if not activations:
        raise InputError("model: expected PolynomialActivation modules; call with_polynomials first")
    steps = optimizer if optimizer is not None else torch.optim.Adam(model.parameters(), lr=learning_rate)

    def objective(outputs: Any, targets: Any) -> Any:
        return loss(outputs, targets) + range_penalty * sum(activation.excess for activation in activations)

    means = []
    model.train()
    for _ in range(epochs):
        losses = [_step(model, batch, objective, steps) for batch in batches]
        if not losses:
            raise InputError("batches: expected at least one an epoch; pass a list or a DataLoader, not an iterator")
        means.append(math.fsum(losses) / len(losses))
    model.eval()
    return means


def _step(model: Any, batch: tuple[Any, Any], objective: Callable[[Any, Any], Any], optimizer: Any) -> float:
    inputs, targets = batch
    optimizer.zero_grad()
    value = objective(model(inputs), targets)
    if not torch.isfinite(value):
        raise InputError("training: the loss is not finite; lower the learning rate or the degree")
    value.backward()
    nn.utils.clip_grad_norm_(model.parameters(), LARGEST_GRADIENT)
    optimizer.step()
    return float(value.detach())
