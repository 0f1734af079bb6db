"""Noise that no single party knows: every client adds a share, and enough survives dropouts and collusion.

Of ``n`` clients up to ``t`` may drop out and up to ``c`` may tell what noise they added. Each adds discrete Gaussian
noise of variance ``sigma**2 / (n - t - c)``; then whoever survives, at least ``sigma**2`` of noise stays unknown. A
round with fewer than ``n - t`` survivors is discarded, and charged all the same: that it was is known.

Source: Kairouz, Liu and Steinke, ICML 2021, sections 1 and 5; Agarwal, Kairouz and Liu, NeurIPS 2021, section 1.1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from jaxtyping import Int64
from numpy import ndarray

from mibao.dp.accounting import rho_of
from mibao.dp.noise_addition import discrete_gaussian, noise_added, share_variance
from mibao.errors import InputError
from mibao.events import NoiseAdded
from mibao.types import RandomId


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseShares:
    """How ``sigma = noise_multiplier * sensitivity`` is split among the clients of a secure sum.

    Attributes:
        clients: How many are invited, n.
        dropouts: How many may drop out, t.
        colluders: How many may tell their noise, c; they count whether they drop out or not.
        squared_sensitivity: What one unit of privacy can change in the sum, squared, in squared grid units, after
            clipping, rotation and rounding.
        noise_multiplier: Standard deviation of the noise that stays unknown over the sensitivity.
        dimension: Coordinates of the sum.

    Raises:
        InputError: a number is out of range, or nobody's noise would be left.
    """

    clients: int
    dropouts: int
    colluders: int
    squared_sensitivity: int
    noise_multiplier: float
    dimension: int

    def __post_init__(self) -> None:
        if self.dropouts < 0 or self.colluders < 0 or self.unknown < 1:
            raise InputError(
                "noise: expected a client left beside dropouts and colluders, "
                f"got {self.clients} clients, {self.dropouts} and {self.colluders}"
            )
        if self.dimension < 1:
            raise InputError(f"noise: expected a positive dimension, got {self.dimension}")
        _ = self.variance_each

    @property
    def unknown(self) -> int:
        """Clients whose noise surely stays: ``n - t - c``."""
        return self.clients - self.dropouts - self.colluders

    @property
    def least_survivors(self) -> int:
        """The fewest with which the sum may be released: ``n - t``; the session's ``min_clients``."""
        return self.clients - self.dropouts

    @property
    def variance_each(self) -> Fraction:
        """Of each client's noise: ``sigma**2 / (n - t - c)``, exact, in squared grid units."""
        return share_variance(
            squared_sensitivity=self.squared_sensitivity,
            noise_multiplier=self.noise_multiplier,
            contributors=self.unknown,
        )

    @property
    def noise_bits(self) -> int:
        """Bits, sign included, that hold one client's noise but with probability below ``2**-100`` a coordinate.

        A discrete Gaussian leaves ``±x`` with probability at most ``2 exp(-x**2 / (2 variance))``: twelve deviations.
        """
        return int(12 * float(self.variance_each) ** 0.5 + 1).bit_length() + 1

    def draw(self, randomness: Callable[[int], bytes]) -> Int64[ndarray, " dimension"]:
        """One client's noise. Raises ``InputError`` as :func:`mibao.dp.discrete_gaussian`."""
        return discrete_gaussian(self.dimension, variance=self.variance_each, randomness=randomness)

    def charge(self, *, session: RandomId, round_number: int, survivors: int) -> NoiseAdded:
        """The record of a round, released or discarded, to be accounted for with ``colluders``.

        A round with fewer than ``n - t`` survivors must not be released; it is charged like one with ``n - t``.

        Raises:
            InputError: more survivors than clients, or a negative number.
        """
        if not 0 <= survivors <= self.clients:
            raise InputError(f"noise: expected 0 to {self.clients} survivors, got {survivors}")
        return noise_added(
            session=session,
            round_number=round_number,
            contributors=max(survivors, self.least_survivors),
            variance_each=self.variance_each,
            squared_sensitivity=self.squared_sensitivity,
            dimension=self.dimension,
        )

    def rho(self, event: NoiseAdded) -> float:
        """What a charged round costs against the server with all its colluders, in zero-concentrated privacy."""
        return rho_of(event, colluders=self.colluders)
