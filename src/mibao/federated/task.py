"""One definition of what is trained, how, and under which promise; run by the simulator, later by Flower."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, fields
from fractions import Fraction
from types import MappingProxyType
from typing import TYPE_CHECKING

from jaxtyping import Float64
from numpy import ndarray

from mibao import dp
from mibao.codec import canonical
from mibao.crypto.kdf import domain_tag
from mibao.crypto.keys import SignerPublicKey
from mibao.crypto.rng import random_bytes
from mibao.errors import InputError
from mibao.events import NoiseAdded
from mibao.federated.models import Model
from mibao.federated.records import Records
from mibao.federated.strategies import FedSGD, Strategy
from mibao.secagg import Session, default_threshold
from mibao.types import RandomId

if TYPE_CHECKING:
    from mibao.federated.simulation import Result

MODULUS_BITS = 64
PLAIN_SCALE_BITS = 24
MIN_SITES = 3
NO_DROPOUTS: Mapping[int, Set[int]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Privacy:
    """Record-level differential privacy, with noise that every site adds its share of.

    Attributes:
        clip: The L2 norm that a record's gradient is clipped to.
        noise_multiplier: Standard deviation of the noise in the sum over the sensitivity, when all sites take part.
        delta: The delta at which epsilon is stated.
        max_epsilon: The budget: a round that might exceed it does not begin.
        scale_bits: Gradients are rounded to ``2**-scale_bits``.

    Raises:
        InputError: a number is out of range.
    """

    clip: float
    noise_multiplier: float
    delta: float
    max_epsilon: float = math.inf
    scale_bits: int = 20

    def __post_init__(self) -> None:
        if not 0.0 < self.noise_multiplier < math.inf:
            raise InputError(f"privacy: expected a positive noise multiplier, got {self.noise_multiplier:g}")
        if not 0.0 < self.delta < 1.0:
            raise InputError(f"privacy: expected a delta between 0 and 1, got {self.delta:g}")
        if not self.max_epsilon > 0.0:
            raise InputError(f"privacy: expected a positive budget, got {self.max_epsilon:g}")
        self.squared_sensitivity(dimension=1)

    def squared_sensitivity(self, *, dimension: int) -> int:
        """What one record can change in the sum, squared, in squared grid units. Raises ``InputError`` for a clip
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

    def noise_added(
        self, *, session_id: RandomId, round_number: int, contributors: int, sites: int, dimension: int
    ) -> NoiseAdded:
        """The record of a round in whose sum ``contributors`` of ``sites`` have their noise."""
        return dp.noise_added(
            session=session_id,
            round_number=round_number,
            contributors=contributors,
            variance_each=self.share_variance(dimension=dimension, sites=sites),
            squared_sensitivity=self.squared_sensitivity(dimension=dimension),
            dimension=dimension,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Task:
    """A model, where each site's records are, a strategy, and what protects the records.

    Attributes:
        model: What is trained.
        data: Gives a site's records by its number, 0 and up; called only where that site's node runs.
        strategy: How rounds work.
        privacy: Differential privacy, or none.
        aggregation: "secagg": uploads are summed under masks; there is no other way yet.

    Raises:
        InputError: another aggregation, or differential privacy is asked of a strategy whose upload is not a sum
            over records.
    """

    model: Model
    data: Callable[[int], Records]
    strategy: Strategy
    privacy: Privacy | None = None
    aggregation: str = "secagg"

    def __post_init__(self) -> None:
        if self.aggregation != "secagg":
            raise InputError(f"task: expected the aggregation 'secagg', got '{self.aggregation}'")
        if self.privacy is not None and not isinstance(self.strategy, FedSGD):
            raise InputError(
                "task: record-level privacy needs FedSGD, whose upload is a sum over records, "
                f"got {type(self.strategy).__name__}"
            )

    @property
    def scale_bits(self) -> int:
        """Uploads are in units of ``2**-scale_bits``."""
        return PLAIN_SCALE_BITS if self.privacy is None else self.privacy.scale_bits

    def fingerprint(self) -> bytes:
        """32 bytes that all sites must agree on: everything here except where the records are."""
        described: dict[str, canonical.Value] = {
            "model": _describe(self.model),
            "strategy": _describe(self.strategy),
            "privacy": {} if self.privacy is None else _describe(self.privacy),
            "aggregation": self.aggregation,
        }
        return hashlib.sha256(domain_tag("federated-task", canonical.encode(described))).digest()

    def session(
        self,
        *,
        session_id: RandomId,
        roster: Mapping[int, SignerPublicKey],
        round_number: int,
        weights: Float64[ndarray, "weights"],
    ) -> Session:
        """The secure sum of one round; sites and server each derive it, nobody receives it.

        More than two thirds of the sites must take part, and never fewer than three. The weights that the round
        begins with are bound into it: sites that were sent different ones never sum.

        Source: Pasquini, Francati and Ateniese, "Eluding Secure Aggregation in Federated Learning via Model
        Inconsistency", CCS 2022.
        """
        least = max(MIN_SITES, default_threshold(len(roster)))
        return Session(
            session_id=session_id,
            round=round_number,
            roster=roster,
            threshold=least,
            min_clients=least,
            length=self.strategy.upload_length(self.model),
            modulus_bits=MODULUS_BITS,
            task_hash=hashlib.sha256(
                domain_tag("federated-round", self.fingerprint(), weights.astype("<f8").tobytes())
            ).digest(),
        )

    def simulate(
        self,
        *,
        sites: int,
        rounds: int,
        dropouts: Mapping[int, Set[int]] = NO_DROPOUTS,
        randomness: Callable[[int], bytes] = random_bytes,
    ) -> Result:
        """The whole training in this process. Arguments and errors as :func:`mibao.federated.simulation.simulate`."""
        from mibao.federated.simulation import simulate  # noqa: PLC0415 - the simulator knows the task

        return simulate(self, sites=sites, rounds=rounds, dropouts=dropouts, randomness=randomness)


def plain_bound(*, sites: int) -> float:
    """The largest number that one of ``sites`` may upload without differential privacy: that many still sum exactly."""
    return float(2.0 ** (MODULUS_BITS - 2 - PLAIN_SCALE_BITS - sites.bit_length()))


def _describe(part: object) -> dict[str, canonical.Value]:
    described: dict[str, canonical.Value] = {"type": type(part).__name__}
    for field in fields(part):  # type: ignore[arg-type]  # models and strategies are dataclasses of numbers
        described[field.name] = float(getattr(part, field.name)).hex()  # 1 and 1.0 are the same task
    return described
