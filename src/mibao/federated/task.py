"""One definition of what is trained, how, and under which promise; run by the simulator, later by Flower."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from mibao.codec import canonical
from mibao.crypto.kdf import domain_tag
from mibao.crypto.keys import SignerPublicKey
from mibao.errors import InputError
from mibao.federated import evaluation
from mibao.federated.adoption import adopt
from mibao.federated.compression import Compression
from mibao.federated.masks import OneShot, Round
from mibao.federated.models import Model
from mibao.federated.privacy import NoiseSource, Privacy, Unit
from mibao.federated.records import Records, as_records
from mibao.federated.strategies import FedAvg, FedSGD, Scaffold, Strategy
from mibao.federated.uploads import Shared, personal_places
from mibao.secagg import Session, default_threshold
from mibao.types import RandomId

if TYPE_CHECKING:
    from mibao.federated.simulation import Result

MODULUS_BITS = 64
PLAIN_SCALE_BITS = 24
MIN_SITES = 3
NO_DROPOUTS: Mapping[int, Set[int]] = MappingProxyType({})
NOTHING_SHARED: Shared = MappingProxyType({})


class Aggregation(Enum):
    """What the server sees of the uploads."""

    SECAGG = "secagg"  # their sum alone
    PLAIN = "plain"  # every one


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Task:
    """A model, where each site's records are, a strategy, and what protects the records.

    Attributes:
        model: What is trained: a :class:`~mibao.federated.models.Model`, a PyTorch module or what makes one, or a
            linear model of scikit-learn.
        data: Gives a site's records by its number, 0 and up, as :class:`Records` or as a pair of features and
            targets; called only where that site's node runs.
        strategy: How rounds work.
        loss: Of a PyTorch module, ``loss(outputs, targets)``: the mean over a batch.
        privacy: Differential privacy, or none.
        aggregation: ``"secagg"``: uploads are summed under masks; ``"plain"``: the server sees each of them.
        held_out: Gives the records that a site sets aside to measure the model on, as ``data`` does, or ``None`` where
            it has none. The metrics leave as a sum over sites, under masks where uploads do.
        compression: How updates are made smaller.

    Raises:
        InputError: parts that do not go together: another aggregation, privacy of records with a strategy whose
            upload is not a sum over records, a robust rule with a secure sum, evaluation at sites with privacy,
            updates made smaller in a way that does not sum with a secure sum.
    """

    model: Any
    data: Callable[[int], Any]
    strategy: Strategy
    loss: Any = None
    privacy: Privacy | None = None
    aggregation: str = Aggregation.SECAGG.value
    held_out: Callable[[int], Any] | None = None
    compression: Compression | None = None
    _personal: list[Any] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.aggregation not in [each.value for each in Aggregation]:
            raise InputError(f"task: expected the aggregation 'secagg' or 'plain', got '{self.aggregation}'")
        self._check_parts()
        if not isinstance(self.model, Model):
            object.__setattr__(
                self, "model", adopt(self.model, loss=self.loss, records=lambda: as_records(self.data(0)))
            )
        elif self.loss is not None:
            raise InputError(f"task: {type(self.model).__name__} has a loss of its own, got another")
        self.personal_places()

    def _check_parts(self) -> None:
        kind, rule = type(self.strategy).__name__, self.strategy.rule
        if rule is not None and not rule.secure_sum:
            name = type(rule).__name__
            if self.secure:
                raise InputError(f"task: {name} looks at uploads one by one, which a secure sum hides: use 'plain'")
            if self.privacy is not None:
                raise InputError(f"task: {name} has no account of privacy; privacy needs the mean")
        self._check_compression(kind)
        if self.privacy is None:
            return
        if self.held_out is not None:
            raise InputError(
                "task: metrics of the sites' own records have no account of privacy: evaluate on records set aside"
            )
        sums = isinstance(self.strategy, FedSGD)
        if self.privacy.unit is Unit.RECORD and not sums:
            raise InputError(f"task: record-level privacy needs FedSGD, whose upload is a sum over records, got {kind}")
        if self.privacy.unit is Unit.CLIENT and (sums or isinstance(self.strategy, Scaffold)):
            raise InputError(f"task: client-level privacy needs FedAvg or one of its kin, got {kind}")
        if self.privacy.noise is NoiseSource.DISTRIBUTED and not self.secure:
            raise InputError("task: distributed noise needs the aggregation 'secagg': one share alone protects nobody")

    def _check_compression(self, kind: str) -> None:
        if self.compression is None:
            return
        if isinstance(self.strategy, FedSGD | Scaffold):
            raise InputError(f"task: compression is of updates, as FedAvg and its kin upload them, got {kind}")
        if self.privacy is not None:
            raise InputError("task: compression has no account of privacy: noise fills what was left out")
        if self.secure and not self.compression.summable:
            raise InputError(
                "task: a secure sum takes the same coordinates of all sites, in whole numbers: with 'secagg' use the "
                f"places 'shared' and 32 bits, got '{self.compression.places}' and {self.compression.bits}; or 'plain'"
            )

    @property
    def secure(self) -> bool:
        """Whether uploads are summed under masks."""
        return self.aggregation == Aggregation.SECAGG.value

    @property
    def scale_bits(self) -> int:
        """Uploads are in units of ``2**-scale_bits``."""
        return PLAIN_SCALE_BITS if self.privacy is None else self.privacy.scale_bits

    @property
    def sum_length(self) -> int:
        """How many numbers a site adds to the sum: its upload and, where it takes a weighted mean, its count."""
        if self.compression is None:
            return self.whole_length
        size: int = self.model.size
        return self.whole_length - size + self.compression.length(size)

    @property
    def whole_length(self) -> int:
        """How many numbers that are before updates are made smaller."""
        counted = self.privacy is None and not isinstance(self.strategy, FedSGD)
        return self.strategy.upload_length(self.model) + counted

    def shared_places(self, *, seed: int, round_number: int) -> Int64[ndarray, "kept"] | None:
        """The coordinates of updates that all sites of a round send; ``None``: all, or each its own."""
        if self.compression is None:
            return None
        return self.compression.shared_places(self.model.size, seed=seed, round_number=round_number)

    def expanded(
        self, mean: Float64[ndarray, "upload"], *, seed: int, round_number: int
    ) -> Float64[ndarray, "weights"]:
        """The mean update, with zeros for what no site sent and the rest scaled up for it."""
        places = self.shared_places(seed=seed, round_number=round_number)
        if places is None:
            return mean
        whole = np.zeros(self.model.size)
        whole[places] = mean * (self.model.size / len(places))
        return whole

    def records(self, number: int) -> Records:
        """A site's records, checked.

        Raises:
            InputError: there are none, or they do not fit the model; names the site.
        """
        try:
            records = as_records(self.data(number))
            self.model.check(records)
        except InputError as error:
            raise InputError(f"site {number}: {error}") from error
        return records

    def personal_places(self) -> Bool[ndarray, "weights"]:
        """Which weights stay with each client. Raises ``InputError`` for patterns that fit nothing or everything."""
        if not self._personal:
            patterns = self.strategy.personal if isinstance(self.strategy, FedAvg) else ()
            self._personal.append(personal_places(self.model.tensors(self.model.initial()), patterns))
        places: Bool[ndarray, "weights"] = self._personal[0]
        return places

    @staticmethod
    def plain_bound(*, sites: int) -> float:
        """As :func:`plain_bound`."""
        return plain_bound(sites=sites)

    def fingerprint(self) -> bytes:
        """32 bytes that all sites must agree on: everything here except where the records are."""
        described: dict[str, canonical.Value] = {
            "model": self.model.describe(),
            "strategy": _describe(self.strategy),
            "privacy": {} if self.privacy is None else _describe(self.privacy),
            "compression": {} if self.compression is None else _describe(self.compression),
            "aggregation": self.aggregation,
            "evaluated": "centrally" if self.held_out is None else "at sites",
        }
        return hashlib.sha256(domain_tag("federated-task", canonical.encode(described))).digest()

    def session(
        self,
        *,
        session_id: RandomId,
        roster: Mapping[int, SignerPublicKey],
        round_number: int,
        weights: Float64[ndarray, "weights"],
        shared: Shared = NOTHING_SHARED,
        seed: int = 0,
        one_shot: OneShot | None = None,
    ) -> Round:
        """The secure sum of one round; sites and server each derive it, nobody receives it.

        More than two thirds of the sites must take part, and never fewer than three. The weights that the round
        begins with, and what else the server shares, are bound into it: sites that were sent different ones never sum.
        With ``one_shot`` its committee opens the sum; without, the sites among themselves.

        Source: Pasquini, Francati and Ateniese, "Eluding Secure Aggregation in Federated Learning via Model
        Inconsistency", CCS 2022.
        """
        least = least_sites(len(roster))
        bound = [weights.astype("<f8").tobytes()]
        for name, array in sorted(shared.items()):
            bound += [name.encode(), array.astype("<f8").tobytes()]
        if self.compression is not None:  # sites that sent other coordinates would give single ones away
            bound.append(seed.to_bytes(8, "big"))
        task_hash = hashlib.sha256(domain_tag("federated-round", self.fingerprint(), *bound)).digest()
        if one_shot is not None:
            return one_shot.session(
                session_id=session_id,
                roster=roster,
                round_number=round_number,
                least=least,
                length=self.sum_length,
                task_hash=task_hash,
                noise_std=self._site_noise_std(sites=len(roster)),
            )
        return Session(
            session_id=session_id,
            round=round_number,
            roster=roster,
            threshold=least,
            min_clients=least,
            length=self.sum_length,
            modulus_bits=MODULUS_BITS,
            task_hash=task_hash,
        )

    def _site_noise_std(self, *, sites: int) -> float:
        """Of the noise that one of ``sites`` adds, in units of the grid."""
        if self.privacy is None or self.privacy.noise is not NoiseSource.DISTRIBUTED:
            return 0.0
        return math.sqrt(self.privacy.share_variance(dimension=self.sum_length, sites=sites))

    def evaluation_session(
        self,
        *,
        session_id: RandomId,
        roster: Mapping[int, SignerPublicKey],
        round_number: int,
        weights: Float64[ndarray, "weights"],
    ) -> Session:
        """The secure sum of what sites measure after one round, bound to the weights as :meth:`session`."""
        tag = domain_tag("federated-evaluation", self.fingerprint(), weights.astype("<f8").tobytes())
        own = hashlib.sha256(domain_tag("federated-evaluation-session", session_id.value)).digest()
        least = least_sites(len(roster))
        return Session(
            session_id=RandomId(own[: RandomId.size]),
            round=round_number,
            roster=roster,
            threshold=least,
            min_clients=least,
            length=evaluation.LENGTH,
            modulus_bits=MODULUS_BITS,
            task_hash=hashlib.sha256(tag).digest(),
        )

    def simulate(self, **plan: Any) -> Result:
        """The whole training on this machine. Arguments and errors as :func:`mibao.federated.simulation.simulate`."""
        from mibao.federated.simulation import simulate  # noqa: PLC0415 - the simulator knows the task

        return simulate(self, **plan)


def least_sites(sites: int) -> int:
    """How many of ``sites`` a secure sum needs: over two thirds, and never fewer than three."""
    return max(MIN_SITES, default_threshold(sites))


def plain_bound(*, sites: int) -> float:
    """The largest number that one of ``sites`` may upload without differential privacy: that many still sum exactly."""
    return float(2.0 ** (MODULUS_BITS - 2 - PLAIN_SCALE_BITS - sites.bit_length()))


def _describe(part: object) -> dict[str, canonical.Value]:
    described: dict[str, canonical.Value] = {"type": type(part).__name__}
    for each in fields(part):  # type: ignore[arg-type]  # strategies and promises are dataclasses of settings
        described[each.name] = _described(getattr(part, each.name))
    return described


def _described(value: object) -> canonical.Value:
    if value is None or isinstance(value, str):
        return "" if value is None else str(value)
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, tuple):
        return [_described(each) for each in value]
    if is_dataclass(value):
        return _describe(value)
    return float(value).hex()  # type: ignore[arg-type]  # 1 and 1.0 are the same task
