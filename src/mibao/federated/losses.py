"""Losses whose slope in the outputs is written out: each client's mean over its batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.nn import functional

Slope: TypeAlias = Callable[[torch.Tensor, torch.Tensor, int, "torch.Tensor | None"], torch.Tensor]


def slope_for(loss: Any) -> Slope | None:
    """The slope of ``loss``, or ``None`` where it is not written out (weights, smoothing, a function of one's own)."""
    if loss is functional.cross_entropy or _is_plain(loss, nn.CrossEntropyLoss):
        return _cross_entropy
    if loss is functional.mse_loss or _is_plain(loss, nn.MSELoss):
        return _mean_squared_error
    if loss is functional.binary_cross_entropy_with_logits or _is_plain(loss, nn.BCEWithLogitsLoss):
        return _binary_cross_entropy
    return None


def _is_plain(loss: Any, kind: type[nn.Module]) -> bool:
    if type(loss) is not kind or loss.reduction != "mean" or getattr(loss, "weight", None) is not None:
        return False
    plain = getattr(loss, "label_smoothing", 0.0) == 0.0 and getattr(loss, "ignore_index", -100) == -100
    return plain and getattr(loss, "pos_weight", None) is None


def _cross_entropy(
    outputs: torch.Tensor, targets: torch.Tensor, clients: int, shares: torch.Tensor | None
) -> torch.Tensor:
    """Softmax less the class, over the second dimension; sequences count each place."""
    if targets.is_floating_point():
        slope = outputs.softmax(1) - targets
    else:
        slope = outputs.softmax(1)
        places = targets.unsqueeze(1)
        slope.scatter_add_(1, places, torch.full_like(places, -1.0, dtype=slope.dtype))
    each = outputs[0, 0].numel() if outputs.ndim > 2 else 1
    return _weighed(slope, clients, shares, each=each)


def _mean_squared_error(
    outputs: torch.Tensor, targets: torch.Tensor, clients: int, shares: torch.Tensor | None
) -> torch.Tensor:
    return _weighed((outputs - targets).mul_(2.0), clients, shares, each=outputs[0].numel())


def _binary_cross_entropy(
    outputs: torch.Tensor, targets: torch.Tensor, clients: int, shares: torch.Tensor | None
) -> torch.Tensor:
    return _weighed(outputs.sigmoid() - targets, clients, shares, each=outputs[0].numel())


def _weighed(slope: torch.Tensor, clients: int, shares: torch.Tensor | None, *, each: int) -> torch.Tensor:
    if shares is None:
        return slope.mul_(clients / (len(slope) * each))
    return slope.mul_((shares.flatten() / each).view(-1, *[1] * (slope.ndim - 1)))
