"""The promise of a task: whose data, how much noise, who adds it, and when to stop."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from enum import Enum
from fractions import Fraction

from mibao import dp
from mibao.errors import InputError
from mibao.events import NoiseAdded
from mibao.types import RandomId


class Unit(Enum):
    """Who is protected: data sets are neighbours if one has one more of these."""

    RECORD = "record"
    CLIENT = "client"


class NoiseSource(Enum):
    """Who adds the noise."""

    DISTRIBUTED = "distributed"  # every site its share, before the mask: the server never sees a sum without noise
    CENTRAL = "central"  # the server, which is trusted with the sum


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveClipping:
    """A clip that follows a quantile of the clients' norms, found under the same privacy.

    Each client also says whether its update was clipped; the noisy share of those moves the clip. The noise of the
    updates is raised by as much as the answer costs, so that together they cost what ``noise_multiplier`` says.

    Attributes:
        quantile: The share of clients to be left unclipped.
        lr: How fast the clip follows.
        count_noise: Standard deviation of the noise in the number of unclipped clients.

    Source: Andrew et al., "Differentially Private Learning with Adaptive Clipping", NeurIPS 2021, algorithm 1.
    """

    quantile: float = 0.5
    lr: float = 0.2
    count_noise: float = 5.0

    def __post_init__(self) -> None:
        if not 0.0 < self.quantile < 1.0 or not 0.0 < self.lr < math.inf or not 0.5 < self.count_noise < math.inf:
            raise InputError("adaptive clipping: expected a quantile in 0..1, a positive lr, a count noise over 0.5")


@dataclass(frozen=True, slots=True, kw_only=True)
class Privacy:
    """Differential privacy of each client, or of each record, in everything that is released.

    Attributes:
        clip: The L2 norm that a client's update is clipped to; a record's gradient, if records are the unit.
        noise_multiplier: Standard deviation of the noise in the sum over the sensitivity, when all sites take part.
        delta: The delta at which epsilon is stated.
        max_epsilon: The budget: a round that might exceed it does not begin.
        scale_bits: Numbers are rounded to ``2**-scale_bits``.
        unit: ``Unit.CLIENT``, or ``Unit.RECORD`` with FedSGD.
        noise: Who adds it. Chance in drawing cohorts counts in favour of clients only if the noise is central.
        adaptive: The clip follows the clients' norms; needs central noise.

    Raises:
        InputError: a number is out of range, or the parts do not go together.
    """

    clip: float
    noise_multiplier: float
    delta: float
    max_epsilon: float = math.inf
    scale_bits: int = 20
    unit: Unit = Unit.CLIENT
    noise: NoiseSource = NoiseSource.DISTRIBUTED
    adaptive: AdaptiveClipping | None = field(default=None)

    def __post_init__(self) -> None:
        if not 0.0 < self.noise_multiplier < math.inf:
            raise InputError(f"privacy: expected a positive noise multiplier, got {self.noise_multiplier:g}")
        if not 0.0 < self.delta < 1.0:
            raise InputError(f"privacy: expected a delta between 0 and 1, got {self.delta:g}")
        if not self.max_epsilon > 0.0:
            raise InputError(f"privacy: expected a positive budget, got {self.max_epsilon:g}")
        if self.adaptive is not None:
            if (self.unit, self.noise) != (Unit.CLIENT, NoiseSource.CENTRAL):
                raise InputError("privacy: an adaptive clip needs clients as the unit, and central noise")
            self.update_multiplier()
        self.squared_sensitivity(dimension=1)

    def squared_sensitivity(self, *, dimension: int) -> int:
        """What one unit can change in the sum, squared, in squared grid units. Raises ``InputError`` for a clip
        out of range.
        """
        return dp.squared_sensitivity(clip=self.clip, scale_bits=self.scale_bits, dimension=dimension)

    def share_variance(self, *, dimension: int, sites: int) -> Fraction:
        """The variance of the noise that each of ``sites`` adds, in squared grid units. Raises ``InputError``."""
        return dp.share_variance(
            squared_sensitivity=self.squared_sensitivity(dimension=dimension),
            noise_multiplier=self.noise_multiplier,
            contributors=sites,
        )

    def update_multiplier(self) -> float:
        """The noise multiplier of the updates alone: larger than the promised one by what an adaptive clip costs.

        Raises:
            InputError: the count's noise alone is less than what was promised for both.

        Source: Andrew et al., NeurIPS 2021, theorem 1.
        """
        if self.adaptive is None:
            return self.noise_multiplier
        left = self.noise_multiplier**-2.0 - (2.0 * self.adaptive.count_noise) ** -2.0
        if left <= 0.0:
            raise InputError(
                f"privacy: expected a count noise over {self.noise_multiplier / 2:g}, half of the noise multiplier"
            )
        return float(left**-0.5)

    def with_clip(self, clip: float) -> Privacy:
        """The same promise with another clip."""
        return replace(self, clip=clip)

    def next_clip(self, unclipped: float, *, clients: float) -> Privacy:
        """The same promise with the clip moved, from the noisy number of clients that were not clipped."""
        if self.adaptive is None:
            return self
        share = min(1.0, max(0.0, unclipped / clients))
        moved = self.clip * math.exp(-self.adaptive.lr * (share - self.adaptive.quantile))
        largest = math.ldexp(1.0, dp.clipping.MAX_CLIP_BITS - self.scale_bits)
        return replace(self, clip=min(max(moved, math.ldexp(1.0, 4 - self.scale_bits)), largest))

    def noise_added(
        self, *, session_id: RandomId, round_number: int, contributors: int, sites: int, dimension: int,
        sampling_rate: float = 1.0,
    ) -> NoiseAdded:  # fmt: skip
        """The record of a round in whose sum ``contributors`` of ``sites`` have their noise, or the server's is."""
        if self.noise is NoiseSource.CENTRAL:
            return dp.gaussian_added(
                session=session_id,
                round_number=round_number,
                squared_sensitivity=self.squared_sensitivity(dimension=dimension),
                noise_multiplier=self.noise_multiplier,
                dimension=dimension,
                sampling_rate=sampling_rate,
            )
        return dp.noise_added(
            session=session_id,
            round_number=round_number,
            contributors=contributors,
            variance_each=self.share_variance(dimension=dimension, sites=sites),
            squared_sensitivity=self.squared_sensitivity(dimension=dimension),
            dimension=dimension,
        )
