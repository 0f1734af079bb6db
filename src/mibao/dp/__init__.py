"""Differential privacy, a module a step: clipping, noise addition, accounting."""

from mibao.dp.accounting import (
    concentrated_rho,
    epsilon_against_witness,
    epsilon_spent,
    require_affordable,
    rho_of,
)
from mibao.dp.clipping import clip_rows, clip_to_grid, clip_updates, squared_sensitivity
from mibao.dp.distributed import NoiseShares
from mibao.dp.noise_addition import discrete_gaussian, gaussian_added, gaussian_on_grid, noise_added, share_variance

__all__ = [
    "NoiseShares",
    "clip_rows",
    "clip_to_grid",
    "clip_updates",
    "concentrated_rho",
    "discrete_gaussian",
    "epsilon_against_witness",
    "epsilon_spent",
    "gaussian_added",
    "gaussian_on_grid",
    "noise_added",
    "require_affordable",
    "rho_of",
    "share_variance",
    "squared_sensitivity",
]
