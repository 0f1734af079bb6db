"""Five hospitals that hold the Wisconsin breast-cancer records between them, and how they train together.

Source: Wolberg, Mangasarian, Street and Street, "Breast Cancer Wisconsin (Diagnostic)", UCI Machine Learning
Repository, 1995, as shipped with scikit-learn.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from mibao.errors import MissingExtra
from mibao.federated import FedAvg, FedSGD, LogisticRegression, Privacy, Records, Task, Unit, pool

if TYPE_CHECKING:
    from sklearn.utils import Bunch

# (centre, spread) by which a measure is scaled: round numbers of the order of magnitude of each measure, written down
# by hand, public, the same at every hospital. Nothing is computed from the records when the demo runs. In earnest
# they would come from the instrument or the literature: constants tuned on the records would leak something of them.
SCALING: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "mean radius": (15.0, 4.0),
        "mean texture": (20.0, 4.0),
        "mean perimeter": (100.0, 25.0),
        "mean area": (700.0, 350.0),
        "mean smoothness": (0.1, 0.015),
        "mean compactness": (0.1, 0.05),
        "mean concavity": (0.1, 0.08),
        "mean concave points": (0.05, 0.04),
        "mean symmetry": (0.2, 0.03),
        "mean fractal dimension": (0.06, 0.007),
        "radius error": (0.4, 0.3),
        "texture error": (1.2, 0.5),
        "perimeter error": (3.0, 2.0),
        "area error": (40.0, 40.0),
        "smoothness error": (0.007, 0.003),
        "compactness error": (0.025, 0.02),
        "concavity error": (0.03, 0.03),
        "concave points error": (0.012, 0.006),
        "symmetry error": (0.02, 0.008),
        "fractal dimension error": (0.004, 0.003),
        "worst radius": (16.0, 5.0),
        "worst texture": (25.0, 6.0),
        "worst perimeter": (110.0, 35.0),
        "worst area": (900.0, 600.0),
        "worst smoothness": (0.13, 0.02),
        "worst compactness": (0.25, 0.15),
        "worst concavity": (0.3, 0.2),
        "worst concave points": (0.1, 0.07),
        "worst symmetry": (0.3, 0.06),
        "worst fractal dimension": (0.08, 0.02),
    }
)
LARGEST_SCALED = 3.0  # farther out, a measure counts as this far

NAMES = ("Harbour", "Hillside", "Lakeside", "Northgate", "Riverside")
# Benign and malignant records of each hospital: sizes and balances differ clearly.
SHARES = ((90, 15), (30, 60), (60, 25), (50, 8), (20, 40))
TEST_SHARE = (107, 64)  # 30 % of either class, seen by no hospital
SPLIT_SEED = 2026

ROUNDS = 40
FEDAVG_ROUNDS = 10
# Of the committee that opens the sums of masks' secrets: five parties, one of which may be corrupt.
COMMITTEE = 5
DROPOUTS: Mapping[int, Set[int]] = MappingProxyType({12: frozenset({2})})
# A site of the one-shot scheme is not told who stayed: its own account takes every round as if the fewest had, and
# stays under this bound; what was in fact spent is less.
PRIVACY = Privacy(clip=1.0, noise_multiplier=7.5, delta=1e-5, max_epsilon=4.5, unit=Unit.RECORD)
FEDSGD = FedSGD(lr=2.0, divisor=400.0, average_last=20)
FEDAVG = FedAvg(lr=1.0, local_epochs=10)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hospitals:
    """The scaled records (target 1: malignant): one part a hospital, and the test records that none of them has."""

    sites: tuple[Records, ...]
    test: Records

    def pooled(self) -> Records:
        """All hospitals' records in one place, for the unprotected model beside which the others are measured."""
        return pool(list(self.sites))

    def protected_task(self) -> Task:
        """Federated SGD with differential privacy."""
        return Task(model=self.model(), data=self.sites.__getitem__, strategy=FEDSGD, privacy=PRIVACY)

    def fedavg_task(self) -> Task:
        """Federated averaging without differential privacy; its uploads are masked all the same."""
        return Task(model=self.model(), data=self.sites.__getitem__, strategy=FEDAVG)

    def model(self) -> LogisticRegression:
        """The model that all of them train."""
        return LogisticRegression(features=len(SCALING))


def load_hospitals() -> Hospitals:
    """The five hospitals and the test records; the same every time, offline.

    Raises:
        MissingExtra: scikit-learn, which ships the records, is not installed.
    """
    data = _load()
    features = _scale(np.asarray(data.data, dtype=np.float64), [str(name) for name in data.feature_names])
    malignant = np.asarray(data.target == 0, dtype=np.float64)
    rng = np.random.default_rng(SPLIT_SEED)
    by_class = [rng.permutation(np.flatnonzero(malignant == value)) for value in (0.0, 1.0)]
    parts = [_take(by_class, share, before) for share, before in _with_offsets((TEST_SHARE, *SHARES))]
    test, *sites = [Records(features=features[part], targets=malignant[part]) for part in parts]
    return Hospitals(sites=tuple(sites), test=test)


def _load() -> Bunch:
    try:
        from sklearn.datasets import load_breast_cancer  # noqa: PLC0415 - heavy, and an extra
    except ImportError as error:
        raise MissingExtra("the demo", extra="demo") from error
    return load_breast_cancer()


def _scale(features: Float64[ndarray, "records features"], names: list[str]) -> Float64[ndarray, "records features"]:
    centres, spreads = (np.array([SCALING[name][part] for name in names]) for part in (0, 1))
    scaled: Float64[ndarray, "records features"] = np.clip(
        (features - centres) / spreads, -LARGEST_SCALED, LARGEST_SCALED
    )
    return scaled


def _with_offsets(shares: tuple[tuple[int, int], ...]) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    before = np.cumsum([(0, 0), *shares], axis=0)[:-1]
    return [(share, (int(benign), int(malignant))) for share, (benign, malignant) in zip(shares, before, strict=True)]


def _take(by_class: list[Int64[ndarray, "n"]], share: tuple[int, int], before: tuple[int, int]) -> Int64[ndarray, "n"]:
    return np.concatenate(
        [rows[start : start + count] for rows, count, start in zip(by_class, share, before, strict=True)]
    )
