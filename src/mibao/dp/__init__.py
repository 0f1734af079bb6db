"""Differential privacy, a module a step: clipping, noise addition, accounting."""

from mibao.dp.accounting import concentrated_rho, epsilon_spent, require_affordable, rho_of
from mibao.dp.clipping import clip_rows, clip_to_grid, squared_sensitivity
from mibao.dp.noise_addition import discrete_gaussian, noise_added, share_variance

__all__ = [
    "clip_rows",
    "clip_to_grid",
    "concentrated_rho",
    "discrete_gaussian",
    "epsilon_spent",
    "noise_added",
    "require_affordable",
    "rho_of",
    "share_variance",
    "squared_sensitivity",
]
