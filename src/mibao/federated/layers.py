"""Layers with a row of parameters for each client: forward, and the gradients written out.

Activations come in as ``clients * records`` rows. A gradient goes into a :class:`Sink`, which is a buffer of
gradients or, for plain SGD, the parameters themselves, so that the step is part of the product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn
from torch.nn import functional

_AFFINE = ("weight", "bias")


class Sink:
    """Where gradients go: times ``alpha``, into the first ``active`` rows of ``buffers``."""

    def __init__(self, buffers: Sequence[torch.Tensor], active: int, alpha: float) -> None:
        self._buffers, self._active, self._alpha = buffers, active, alpha

    def product(self, place: int, left: torch.Tensor, right: torch.Tensor, shape: tuple[int, ...]) -> None:
        """Add ``left @ right``, client by client; ``shape`` is the parameter's, seen as a matrix."""
        self._buffers[place][: self._active].view(self._active, *shape).baddbmm_(left, right, alpha=self._alpha)

    def add(self, place: int, gradient: torch.Tensor) -> None:
        """Add a gradient as it is."""
        target = self._buffers[place][: self._active]
        target.add_(gradient.reshape(target.shape), alpha=self._alpha)

    def add_at(self, place: int, rows: torch.Tensor, gradient: torch.Tensor, width: int) -> None:
        """Add rows of a gradient at places counted through all clients."""
        target = self._buffers[place][: self._active].view(-1, width)
        target.index_add_(0, rows, gradient, alpha=self._alpha)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The clients of one step: their rows of all parameters, how many they are, and where gradients go."""

    held: Sequence[torch.Tensor]
    clients: int
    sink: Sink


@runtime_checkable
class Layer(Protocol):
    """One layer with trained parameters."""

    places: tuple[int, ...]

    def forward(self, values: torch.Tensor, group: Group) -> tuple[torch.Tensor, Any]:
        """The outputs, and what the backward pass needs."""
        ...

    def backward(
        self, slope: torch.Tensor, values: torch.Tensor, saved: Any, group: Group, wanted: bool
    ) -> torch.Tensor | None:
        """Gradients into the group's sink; the slope in ``values``, if it is wanted."""
        ...


def layer_for(layer: nn.Module, trained: Mapping[str, int]) -> Layer | None:
    """The batched form of ``layer`` whose parameters stand at ``trained``; ``None`` where there is none."""
    made = _MAKERS.get(type(layer))
    whole = set(trained) == {name for name, _ in layer.named_parameters()}
    return made(trained, layer) if made is not None and whole and _is_plain(layer) else None


def _is_plain(layer: Any) -> bool:
    """Whether it uses none of the options that have no batched form here."""
    if isinstance(layer, nn.Embedding):
        odd = layer.max_norm is not None or layer.sparse or layer.scale_grad_by_freq
        return not odd and layer.padding_idx is None
    if isinstance(layer, nn.Conv2d):
        return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return True


class _Linear:
    def __init__(self, trained: Mapping[str, int], layer: nn.Linear) -> None:
        self._weight, self._bias = trained["weight"], trained.get("bias")
        self.places = tuple(trained.values())

    def forward(self, values: torch.Tensor, group: Group) -> tuple[torch.Tensor, Any]:
        weight = group.held[self._weight]
        rows = values.reshape(group.clients, -1, values.shape[-1])
        if self._bias is None:
            outputs = torch.bmm(rows, weight.transpose(1, 2))
        else:
            outputs = torch.baddbmm(group.held[self._bias].unsqueeze(1), rows, weight.transpose(1, 2))
        return outputs.view(*values.shape[:-1], weight.shape[1]), None

    def backward(
        self, slope: torch.Tensor, values: torch.Tensor, saved: Any, group: Group, wanted: bool
    ) -> torch.Tensor | None:
        weight = group.held[self._weight]
        arrived = slope.reshape(group.clients, -1, weight.shape[1])
        rows = values.reshape(group.clients, -1, weight.shape[2])
        # Before the weights are changed.
        below = torch.bmm(arrived, weight).view(values.shape) if wanted else None
        group.sink.product(self._weight, arrived.transpose(1, 2), rows, tuple(weight.shape[1:]))
        if self._bias is not None:
            group.sink.add(self._bias, arrived.sum(1))
        return below


class _Embedding:
    def __init__(self, trained: Mapping[str, int], layer: nn.Embedding) -> None:
        self._weight = trained["weight"]
        self.places = tuple(trained.values())
        self._entries, self._width = layer.num_embeddings, layer.embedding_dim

    def forward(self, values: torch.Tensor, group: Group) -> tuple[torch.Tensor, Any]:
        first = torch.arange(group.clients, device=values.device).mul_(self._entries)
        rows = (values.reshape(group.clients, -1) + first[:, None]).flatten()
        outputs = group.held[self._weight].reshape(-1, self._width).index_select(0, rows)
        return outputs.view(*values.shape, self._width), rows

    def backward(
        self, slope: torch.Tensor, values: torch.Tensor, saved: Any, group: Group, wanted: bool
    ) -> torch.Tensor | None:
        group.sink.add_at(self._weight, saved, slope.reshape(-1, self._width), self._width)
        return None


class _Conv2d:
    """One convolution a client, channels last: there the kernels are several times as fast as on groups."""

    def __init__(self, trained: Mapping[str, int], layer: nn.Conv2d) -> None:
        self._weight, self._bias = trained["weight"], trained.get("bias")
        self.places = tuple(trained.values())
        self._stride, self._padding, self._dilation = list(layer.stride), list(layer.padding), list(layer.dilation)
        self._blocks = layer.groups

    def forward(self, values: torch.Tensor, group: Group) -> tuple[torch.Tensor, Any]:
        rows = values.contiguous(memory_format=torch.channels_last).chunk(group.clients)
        filters = [each.contiguous(memory_format=torch.channels_last) for each in group.held[self._weight]]
        outputs = [
            functional.conv2d(
                each,
                filters[client],
                None if self._bias is None else group.held[self._bias][client],
                self._stride,
                self._padding,
                self._dilation,
                self._blocks,
            )
            for client, each in enumerate(rows)
        ]
        return _together(outputs), (rows, filters)

    def backward(
        self, slope: torch.Tensor, values: torch.Tensor, saved: Any, group: Group, wanted: bool
    ) -> torch.Tensor | None:
        rows, filters = saved
        arrived = slope.contiguous(memory_format=torch.channels_last).chunk(group.clients)
        parts = [
            torch.ops.aten.convolution_backward(
                arrived[client],
                rows[client],
                filters[client],
                None if self._bias is None else [len(filters[client])],
                self._stride,
                self._padding,
                self._dilation,
                False,
                [0, 0],
                self._blocks,
                [wanted, True, self._bias is not None],
            )
            for client in range(group.clients)
        ]
        group.sink.add(self._weight, torch.stack([filters for _, filters, _ in parts]))
        if self._bias is not None:
            group.sink.add(self._bias, torch.stack([bias for _, _, bias in parts]))
        return _together([below for below, _, _ in parts]) if wanted else None


class _LayerNorm:
    def __init__(self, trained: Mapping[str, int], layer: nn.LayerNorm) -> None:
        self.pair = (trained["weight"], trained.get("bias"))
        self.places = tuple(trained.values())
        self._shape, self._eps = list(layer.normalized_shape), layer.eps

    def forward(self, values: torch.Tensor, group: Group) -> tuple[torch.Tensor, Any]:
        normal, mean, spread = torch.ops.aten.native_layer_norm(values, self._shape, None, None, self._eps)
        return _affine(normal, group, self.pair, last=len(self._shape)), (normal, mean, spread)

    def backward(
        self, slope: torch.Tensor, values: torch.Tensor, saved: Any, group: Group, wanted: bool
    ) -> torch.Tensor | None:
        normal, mean, spread = saved
        inner = _affine_backward(slope, normal, group, self.pair, last=len(self._shape))
        if not wanted:
            return None
        below: torch.Tensor = torch.ops.aten.native_layer_norm_backward(
            inner.contiguous(), values, self._shape, mean, spread, None, None, [True, False, False]
        )[0]
        return below


class _GroupNorm:
    def __init__(self, trained: Mapping[str, int], layer: nn.GroupNorm) -> None:
        self.pair = (trained["weight"], trained.get("bias"))
        self.places = tuple(trained.values())
        self._blocks, self._eps = layer.num_groups, layer.eps

    def forward(self, values: torch.Tensor, group: Group) -> tuple[torch.Tensor, Any]:
        sizes = (len(values), values.shape[1], values[0, 0].numel())
        normal, mean, spread = torch.ops.aten.native_group_norm(
            values.contiguous(), None, None, *sizes, self._blocks, self._eps
        )
        last = normal.movedim(1, -1)
        outputs = _affine(last, group, self.pair, last=1).movedim(-1, 1).contiguous()
        return outputs, (normal, mean, spread)

    def backward(
        self, slope: torch.Tensor, values: torch.Tensor, saved: Any, group: Group, wanted: bool
    ) -> torch.Tensor | None:
        normal, mean, spread = saved
        inner = _affine_backward(slope.movedim(1, -1), normal.movedim(1, -1), group, self.pair, last=1)
        if not wanted:
            return None
        sizes = (len(values), values.shape[1], values[0, 0].numel())
        below: torch.Tensor = torch.ops.aten.native_group_norm_backward(
            inner.movedim(-1, 1).contiguous(), values.contiguous(), mean, spread, None, *sizes, self._blocks,
            [True, False, False],
        )[0]  # fmt: skip
        return below


def _affine(normal: torch.Tensor, group: Group, places: tuple[int, int | None], *, last: int) -> torch.Tensor:
    """Scaled and shifted over the ``last`` dimensions."""
    weight, bias = places
    rows = normal.reshape(group.clients, -1, *normal.shape[normal.ndim - last :])
    outputs = rows * group.held[weight].unsqueeze(1)
    if bias is not None:
        outputs = outputs + group.held[bias].unsqueeze(1)
    return outputs.view(normal.shape)


def _affine_backward(
    slope: torch.Tensor, normal: torch.Tensor, group: Group, places: tuple[int, int | None], *, last: int
) -> torch.Tensor:
    """Gradients of scale and shift into the sink; the slope in the normalised values."""
    weight, bias = places
    tail = normal.shape[normal.ndim - last :]
    arrived, rows = slope.reshape(group.clients, -1, *tail), normal.reshape(group.clients, -1, *tail)
    inner = (arrived * group.held[weight].unsqueeze(1)).view(normal.shape)
    group.sink.add(weight, (arrived * rows).sum(1))
    if bias is not None:
        group.sink.add(bias, arrived.sum(1))
    return inner


def _together(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    return rows[0] if len(rows) == 1 else torch.cat(list(rows))


_MAKERS: Mapping[type[nn.Module], Callable[[Mapping[str, int], Any], Layer]] = {
    nn.Linear: _Linear,
    nn.Embedding: _Embedding,
    nn.Conv2d: _Conv2d,
    nn.LayerNorm: _LayerNorm,
    nn.GroupNorm: _GroupNorm,
}
