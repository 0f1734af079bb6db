"""Local training as anyone would write it, one client after the other; and a group at once through ``torch.func``."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float32
from numpy import ndarray
from torch import nn

from mibao.federated.local_training import (
    ADAM_BETAS,
    ADAM_EPS,
    LocalOptimiser,
    LocalTraining,
    LocalWork,
    Stepper,
    steps,
)

LossFunction: TypeAlias = Callable[..., Any]


class Loop:
    """One client after the other, with PyTorch's own autograd and optimisers."""

    def __init__(
        self, module: nn.Module, named: Mapping[str, nn.Parameter], loss: LossFunction, *, device: str
    ) -> None:
        self._module, self._loss, self._device = copy.deepcopy(module).train(), loss, device
        self._layers = own_dropout(self._module)
        self._parameters = [self._module.get_parameter(name) for name in named]

    def train(
        self, weights: Float32[ndarray, "weights"], group: Sequence[LocalWork], local: LocalTraining
    ) -> Float32[ndarray, "clients weights"]:
        """How far each client's weights moved."""
        return np.stack([self._one(weights, work, local) for work in group])

    def _one(
        self, weights: Float32[ndarray, "weights"], work: LocalWork, local: LocalTraining
    ) -> Float32[ndarray, "weights"]:
        start = torch.from_numpy(weights if work.start is None else work.start.astype(np.float32)).to(self._device)
        correction = None
        if work.correction is not None:
            correction = torch.from_numpy(work.correction.astype(np.float32)).to(self._device)
        with torch.no_grad():
            for parameter, part in zip(self._parameters, self._split(start), strict=True):
                parameter.copy_(part)
        for layer in self._layers:
            layer.draws = dropout_source(work.seed, self._device) if layer is self._layers[0] else self._layers[0].draws
        optimiser = self._optimiser(local)
        for step in steps([work]):
            real = slice(None) if step.shares is None else step.shares[0] > 0
            features = torch.from_numpy(step.features[0][real]).to(self._device)
            targets = torch.from_numpy(step.targets[0][real]).to(self._device)
            optimiser.zero_grad(set_to_none=True)
            self._loss(self._module(features), targets).backward()
            self._adjust(start, correction, local)
            optimiser.step()
        ended = torch.cat([parameter.detach().reshape(-1) for parameter in self._parameters])
        return np.asarray((ended - start).cpu().numpy())

    def _split(self, flat: torch.Tensor) -> list[torch.Tensor]:
        parts = flat.split([parameter.numel() for parameter in self._parameters])
        return [part.view(each.shape) for part, each in zip(parts, self._parameters, strict=True)]

    def _optimiser(self, local: LocalTraining) -> torch.optim.Optimizer:
        if local.optimiser is LocalOptimiser.ADAM:
            return torch.optim.Adam(
                self._parameters, lr=local.lr, betas=ADAM_BETAS, eps=ADAM_EPS, weight_decay=local.weight_decay
            )
        return torch.optim.SGD(self._parameters, lr=local.lr, momentum=local.momentum, weight_decay=local.weight_decay)

    def _adjust(self, start: torch.Tensor, correction: torch.Tensor | None, local: LocalTraining) -> None:
        """Add the proximal term and the correction to the gradients; a parameter without one gets zeros."""
        for parameter in self._parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        with torch.no_grad():
            if local.proximal:
                for parameter, begun in zip(self._parameters, self._split(start), strict=True):
                    parameter.grad.add_(parameter - begun, alpha=local.proximal)
            if correction is not None:
                for parameter, added in zip(self._parameters, self._split(correction), strict=True):
                    parameter.grad.add_(added)


class Functional:
    """A group of clients at once: ``torch.func`` differentiates the module for each of them."""

    def __init__(
        self, module: nn.Module, named: Mapping[str, nn.Parameter], loss: LossFunction, *, device: str
    ) -> None:
        self._module, self._loss, self._device = copy.deepcopy(module).train(), loss, device
        self._names = list(named)
        self._shapes = [each.shape for each in named.values()]
        for name in self._names:
            self._module.get_parameter(name).requires_grad_(False)

        def loss_of(parameters: tuple[torch.Tensor, ...], features: torch.Tensor, targets: torch.Tensor) -> Any:
            outputs = torch.func.functional_call(
                self._module, dict(zip(self._names, parameters, strict=True)), (features,)
            )
            return self._loss(outputs, targets)

        def weighted(
            parameters: tuple[torch.Tensor, ...], features: torch.Tensor, targets: torch.Tensor, shares: torch.Tensor
        ) -> Any:
            one = torch.func.vmap(
                lambda record, target: loss_of(parameters, record[None], target[None]), randomness="different"
            )
            return (one(features, targets) * shares).sum()

        self._gradient = torch.func.vmap(torch.func.grad(loss_of), randomness="different")
        self._ragged = torch.func.vmap(torch.func.grad(weighted), randomness="different")

    def train(
        self, weights: Float32[ndarray, "weights"], group: Sequence[LocalWork], local: LocalTraining
    ) -> Float32[ndarray, "clients weights"]:
        """How far each client's weights moved."""
        begun, held = start_of(weights, group, self._shapes, self._device)
        stepper = Stepper(local, held, start=begun, correction=corrections(group, self._shapes, self._device))
        for step in steps(group):
            features = torch.from_numpy(step.features).to(self._device)
            targets = torch.from_numpy(step.targets).to(self._device)
            alive = tuple(each[: step.active] for each in held)
            if step.shares is None:
                gradients = self._gradient(alive, features, targets)
            else:
                shares = torch.from_numpy(step.shares.astype(np.float32)).to(self._device)
                gradients = self._ragged(alive, features, targets, shares)
            stepper.step([whole(gradient, len(group)) for gradient in gradients], step.active)
        return moved_rows(begun, held)


def start_of(
    weights: Float32[ndarray, "weights"], group: Sequence[LocalWork], shapes: Sequence[Any], device: str
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Each parameter of a group as it begins, and a copy to train: a row a client."""
    if any(work.start is not None for work in group):
        rows = np.stack([weights if work.start is None else work.start.astype(np.float32) for work in group])
        flat = torch.from_numpy(rows).to(device)
    else:
        flat = torch.from_numpy(weights).to(device).expand(len(group), -1)
    begun = _parts(flat, shapes)
    return begun, [part.clone(memory_format=torch.contiguous_format) for part in begun]


def corrections(group: Sequence[LocalWork], shapes: Sequence[Any], device: str) -> list[torch.Tensor]:
    """What is added to gradients, a row a client; nothing where nobody adds anything."""
    if all(work.correction is None for work in group):
        return []
    size = sum(int(np.prod(tuple(shape))) for shape in shapes)
    rows = [np.zeros(size) if work.correction is None else work.correction for work in group]
    return _parts(torch.from_numpy(np.stack(rows).astype(np.float32)).to(device), shapes)


def moved_rows(begun: Sequence[torch.Tensor], held: Sequence[torch.Tensor]) -> Float32[ndarray, "clients weights"]:
    """How far each client's weights moved, as flat rows."""
    rows = held[0].new_empty(len(held[0]), sum(each[0].numel() for each in held))
    places = rows.split([each[0].numel() for each in held], dim=1)
    for before, after, place in zip(begun, held, places, strict=True):
        torch.sub(after.flatten(1), before.flatten(1), out=place)
    return np.asarray(rows.cpu().numpy())


def whole(gradient: torch.Tensor, clients: int) -> torch.Tensor:
    """A gradient of the first clients of a group with rows for the others, which are not looked at."""
    if len(gradient) == clients:
        return gradient
    padded = gradient.new_zeros(clients, *gradient.shape[1:])
    padded[: len(gradient)] = gradient
    return padded


def _parts(flat: torch.Tensor, shapes: Sequence[Any]) -> list[torch.Tensor]:
    sizes = [int(np.prod(tuple(shape))) for shape in shapes]
    return [
        part.reshape(len(flat), *shape) if part.is_contiguous() else part.unflatten(1, tuple(shape) or (1,))
        for part, shape in zip(flat.split(sizes, dim=1), shapes, strict=True)
    ]


class OwnDropout(nn.Module):
    """Dropout that draws from the client's own source, so that a client's masks do not depend on others'."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.draws: torch.Generator | None = None

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """``values`` with a share of ``rate`` zeroed and the others scaled up."""
        kept = torch.rand(values.shape, generator=self.draws, device=values.device) >= self.rate
        return values * kept / (1.0 - self.rate)


def own_dropout(module: nn.Module) -> list[OwnDropout]:
    """Replace the dropout layers in ``module``, and return those put there."""
    put = []
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Dropout and child.p > 0.0:
                layer = OwnDropout(child.p)
                setattr(parent, name, layer)
                put.append(layer)
    return put


def dropout_source(seed: int, device: str) -> torch.Generator:
    """Where one client's dropout masks come from."""
    return torch.Generator(device=device).manual_seed(seed & (1 << 62) - 1)
