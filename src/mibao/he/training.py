"""Logistic regression fitted on records that the compute host sees only as ciphertexts.

Nesterov's accelerated gradient, the sigmoid a polynomial of degree 5. Records lie packed: slot ``(feature, row)`` of a
ciphertext, features outermost, so that summing over features by rotations leaves each row's score in every block, and
a gradient takes a number of rotations that grows with the logarithm of features and rows. (One ciphertext a feature
takes ten times the key switches: a rotation for each feature and bit of the row's number.) An iteration uses five
levels; after :data:`ITERATIONS_A_REFRESH` the key holder decrypts the weights and encrypts them anew.

**What the key holder sees**: the weights at every refresh, hence the course of the training, besides the final model.
It is the data owner, or whom the data owners trust with that. **What the host sees**: numbers of rows, features and
iterations, the step and momentum, and nothing of records, labels or weights. It could compute anything else instead;
weights from a dishonest host may say whatever it likes, and must be checked on records with known labels.

Source: Kim, Song, Kim, Lee, Cheon, "Logistic regression model training based on the approximate homomorphic
encryption", BMC Medical Genomics 11, 2018, with the sum over rows masked and spread at one level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray

from mibao.errors import InputError
from mibao.he.engine import Engine, GaloisKeys, RelinearizationKey, SecretKey
from mibao.he.leveled import Arithmetic, Leveled, level_scales
from mibao.he.parameters import Parameters

PARAMETERS = Parameters(ring_degree=16384, modulus_bits=(46, *(33,) * 10, 54), scale_bits=33)
LEVELS_AN_ITERATION = 5
ITERATIONS_A_REFRESH = PARAMETERS.depth // LEVELS_AN_ITERATION
SCORE_RANGE = 10.0  # of the polynomial; beyond it the gradient grows and pulls back
LARGEST_VALUE = 4.0  # standardised values are cut here, and rows shortened to the norm below: outliers leave the range
LARGEST_ROW_NORM = 8.0
MAX_ROWS = 1 << 14
MAX_FEATURES = 255
MAX_ITERATIONS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """What both sides know before the first ciphertext.

    Attributes:
        rows, features: Of the records; the intercept is one more feature.
        iterations: Gradient steps.
        step: The learning rate; :func:`suggested_step` has one that converges.
    """

    rows: int
    features: int
    iterations: int
    step: float

    def __post_init__(self) -> None:
        """Raise ``InputError`` for a size or step out of range."""
        if not 1 <= self.rows <= MAX_ROWS or not 1 <= self.features <= MAX_FEATURES:
            raise InputError(
                f"training: expected at most {MAX_ROWS} rows and {MAX_FEATURES} features, "
                f"got {self.rows} and {self.features}"
            )
        if not 1 <= self.iterations <= MAX_ITERATIONS or not 0 < self.step < 1000:
            raise InputError(f"training: expected 1 to {MAX_ITERATIONS} iterations and a positive step under 1000")

    @property
    def blocks(self) -> int:
        """Blocks of slots in a ciphertext, one a feature: a power of two."""
        return 1 << self.features.bit_length()  # features + 1 for the intercept, rounded up

    @property
    def block_rows(self) -> int:
        """Rows in one ciphertext."""
        return PARAMETERS.slots // self.blocks

    @property
    def ciphertexts(self) -> int:
        """Ciphertexts that carry the records."""
        return -(-self.rows // self.block_rows)

    @property
    def feature_steps(self) -> list[int]:
        """Rotations that sum over features: around the whole ciphertext, so every block ends with the sum."""
        return [self.block_rows << bit for bit in range(self.blocks.bit_length() - 1)]

    @property
    def row_steps(self) -> list[int]:
        """Rotations that sum over a block's rows, into its first slot."""
        return [1 << bit for bit in range(self.block_rows.bit_length() - 1)]

    @property
    def spread_step(self) -> int:
        """The rotation to the right that brings a number spread to the left back over its own block."""
        return (PARAMETERS.slots - self.block_rows + 1) % PARAMETERS.slots

    @property
    def rotations(self) -> tuple[int, ...]:
        """All steps that take a key."""
        return tuple(sorted({*self.feature_steps, *self.row_steps, self.spread_step} - {0}))

    def momentum(self, iteration: int) -> float:
        """How far iteration ``iteration`` (from 0) looks ahead."""
        return iteration / (iteration + 3.0)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class EncryptedRecords:
    """What the host computes on: the packed records, and the part of the gradient that holds the labels."""

    packed: list[Leveled]
    label_moment: Leveled


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class EncryptedWeights:
    """Weights after some iterations; each is spread over its feature's block.

    ``ahead`` holds the ciphertexts and factors whose sum is the point at which the next gradient is taken.
    """

    weights: Leveled
    ahead: tuple[tuple[Leveled, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LogisticWeights:
    """A fitted model, for records in the units that they were given in."""

    coefficients: Float64[ndarray, "features"]
    intercept: float

    def decision(self, records: Float64[ndarray, "rows features"]) -> Float64[ndarray, "rows"]:
        """Scores: positive for the class of label 1."""
        scores: Float64[ndarray, "rows"] = records @ self.coefficients + self.intercept
        return scores


class TrainingKeyHolder:
    """The side with the records, the labels and the secret key."""

    __slots__ = ("_engine", "_labels", "_mean", "_plan", "_previous", "_rows", "_secret", "_std", "_weights")

    def __init__(
        self,
        records: Float64[ndarray, "rows features"],
        labels: Bool[ndarray, "rows"],
        *,
        plan: TrainingPlan,
        engine: Engine,
        secret: SecretKey,
    ) -> None:
        """Standardise the records; nothing is encrypted yet.

        Raises:
            InputError: the records do not suit the plan, are not finite, or have labels of one class only.
        """
        if records.shape != (plan.rows, plan.features) or labels.shape != (plan.rows,):
            raise InputError(f"training: expected records of shape ({plan.rows}, {plan.features}), got {records.shape}")
        self._rows, self._mean, self._std = training_rows(records)
        if labels.all() or not labels.any():
            raise InputError("training: expected labels of both classes")
        self._labels, self._plan, self._engine, self._secret = labels, plan, engine, secret
        self._weights = self._previous = np.zeros(plan.features + 1)

    def evaluation_keys(self) -> tuple[RelinearizationKey, GaloisKeys]:
        """What the host computes with; nothing secret."""
        rotations = self._engine.generate_galois_keys(self._secret, self._plan.rotations)
        return self._engine.generate_relinearization_key(self._secret), rotations

    def encrypt_records(self) -> EncryptedRecords:
        """The records and labels for the host."""
        plan = self._plan
        packed = []
        for start in range(0, plan.rows, plan.block_rows):
            block = np.zeros((plan.blocks, plan.block_rows))
            held = self._rows[start : start + plan.block_rows] / SCORE_RANGE
            block[: held.shape[1], : held.shape[0]] = held.T
            packed.append(self._encrypted(block.reshape(-1)))
        moment = (self._labels - 0.5) @ self._rows * (plan.step / plan.rows)
        return EncryptedRecords(packed=packed, label_moment=self._encrypted(self._spread(moment)))

    def start(self) -> EncryptedWeights:
        """Weights of zero, encrypted."""
        zero = self._encrypted(self._spread(self._weights))
        return EncryptedWeights(weights=zero, ahead=((zero, 1.0),))

    def refresh(self, state: EncryptedWeights, *, iteration: int) -> EncryptedWeights:
        """The same weights with all their levels back, after ``iteration`` iterations. The key holder sees them.

        Raises:
            InputError: weights that are not finite or out of all proportion: the step is too large, or the host errs.
        """
        self._read(state, iteration)
        momentum = self._plan.momentum(iteration)
        ahead = (1.0 + momentum) * self._weights - momentum * self._previous
        weights, looked = self._encrypted(self._spread(self._weights)), self._encrypted(self._spread(ahead))
        return EncryptedWeights(weights=weights, ahead=((looked, 1.0),))

    def finish(self, state: EncryptedWeights) -> LogisticWeights:
        """The model. Raises as :meth:`refresh`."""
        self._read(state, self._plan.iterations)
        scaled = self._weights[:-1] / self._std
        return LogisticWeights(coefficients=scaled, intercept=float(self._weights[-1] - scaled @ self._mean))

    def _read(self, state: EncryptedWeights, iteration: int) -> None:
        """Weights and, from the point ahead, those of the iteration before: every block's first slot."""
        self._weights = self._decrypted(state.weights)
        held = [self._decrypted(value) for value, _ in state.ahead]
        momentum = self._plan.momentum(iteration)
        if len(held) == 2:
            self._previous = held[1]
        elif momentum:
            self._previous = ((1.0 + momentum) * self._weights - held[0]) / momentum

    def _decrypted(self, value: Leveled) -> Float64[ndarray, "weights"]:
        slots = self._engine.decrypt(self._secret, value.ciphertext)
        weights = slots.reshape(self._plan.blocks, self._plan.block_rows)[: self._plan.features + 1, 0]
        if not np.all(np.abs(weights) < 1e3):  # a NaN compares false
            raise InputError("training: the weights left their range; take a smaller step")
        return weights.copy()

    def _spread(self, weights: Float64[ndarray, "weights"]) -> Float64[ndarray, "slots"]:
        padded = np.concatenate([weights, np.zeros(self._plan.blocks - weights.size)])
        return np.repeat(padded, self._plan.block_rows)

    def _encrypted(self, slots: Float64[ndarray, "slots"]) -> Leveled:
        plaintext = self._engine.encode(slots, scale=level_scales(self._engine)[0])
        return Leveled(ciphertext=self._engine.encrypt(self._secret, plaintext), level=0)


class TrainingHost:
    """The side that computes and reads nothing."""

    __slots__ = ("_arithmetic", "_plan", "_polynomial", "_records")

    def __init__(
        self,
        records: EncryptedRecords,
        keys: tuple[RelinearizationKey, GaloisKeys],
        *,
        plan: TrainingPlan,
        engine: Engine,
    ) -> None:
        self._records, self._plan = records, plan
        self._arithmetic = Arithmetic(engine, relinearization=keys[0], rotations=keys[1])
        self._polynomial = sigmoid_polynomial()

    def iterate(self, state: EncryptedWeights, *, iteration: int) -> EncryptedWeights:
        """The weights one step further, five levels down.

        Raises:
            InputError: fewer than five levels are left: they want a refresh.
        """
        arithmetic, level = self._arithmetic, max(value.level for value, _ in state.ahead)
        moved = self._descent(state, level)
        for value, factor in state.ahead:
            moved = arithmetic.sum(moved, arithmetic.lowered(value, level + LEVELS_AN_ITERATION, factor=factor))
        momentum = self._plan.momentum(iteration + 1)
        return EncryptedWeights(weights=moved, ahead=((moved, 1.0 + momentum), (state.weights, -momentum)))

    def _descent(self, state: EncryptedWeights, level: int) -> Leveled:
        """Minus the gradient times the step, each feature's spread over its block."""
        arithmetic, plan = self._arithmetic, self._plan
        _, _, outer = self._polynomial
        inner, factors = [], []
        for packed in self._records.packed:
            score = self._score(packed, state, level)
            scaled = arithmetic.lowered(packed, level + 1, factor=-outer * SCORE_RANGE)
            factors.append(arithmetic.product(scaled, score))
            inner.append(self._inner(score))
        summed = arithmetic.folded(arithmetic.sum_of_products(factors, inner), plan.row_steps)
        mask = np.zeros((plan.blocks, plan.block_rows))
        mask[:, 0] = plan.step / plan.rows
        spread = arithmetic.folded(arithmetic.times(summed, mask.reshape(-1)), plan.row_steps)
        spread = arithmetic.rotated(spread, plan.spread_step)
        return arithmetic.sum(spread, self._records.label_moment)

    def _score(self, packed: Leveled, state: EncryptedWeights, level: int) -> Leveled:
        """Each row's score as a share of the range, in every block. Factors ride on the records, which have levels."""
        arithmetic = self._arithmetic
        records = [arithmetic.lowered(packed, level, factor=factor) for _, factor in state.ahead]
        products = arithmetic.sum_of_products([value for value, _ in state.ahead], records)
        return arithmetic.folded(products, self._plan.feature_steps)

    def _inner(self, score: Leveled) -> Leveled:
        """``(score**2 + centre)**2 + rest``: the sigmoid less a half is this times ``outer * score``."""
        centre, rest, _ = self._polynomial
        arithmetic = self._arithmetic
        squared = arithmetic.shifted(arithmetic.square(score), centre)
        return arithmetic.shifted(arithmetic.square(squared), rest)


def fit_encrypted(
    records: Float64[ndarray, "rows features"],
    labels: Bool[ndarray, "rows"],
    *,
    plan: TrainingPlan,
    engine: Engine,
    secret: SecretKey,
) -> LogisticWeights:
    """Both sides in one process: how they take turns. Raises as :class:`TrainingKeyHolder`."""
    holder = TrainingKeyHolder(records, labels, plan=plan, engine=engine, secret=secret)
    host = TrainingHost(holder.encrypt_records(), holder.evaluation_keys(), plan=plan, engine=engine)
    state = holder.start()
    for iteration in range(plan.iterations):
        if iteration and iteration % ITERATIONS_A_REFRESH == 0:
            state = holder.refresh(state, iteration=iteration)
        state = host.iterate(state, iteration=iteration)
    return holder.finish(state)


def fit_in_clear(
    records: Float64[ndarray, "rows features"], labels: Bool[ndarray, "rows"], *, plan: TrainingPlan
) -> LogisticWeights:
    """The same iterations on records in clear: what encryption must not change."""
    rows, mean, std = training_rows(records)
    centre, rest, outer = sigmoid_polynomial()
    weights = ahead = np.zeros(plan.features + 1)
    for iteration in range(plan.iterations):
        score = rows @ ahead / SCORE_RANGE
        slope = outer * score * ((score**2 + centre) ** 2 + rest) - (labels - 0.5)
        moved = ahead - plan.step / plan.rows * (slope @ rows)
        momentum = plan.momentum(iteration + 1)
        ahead, weights = moved + momentum * (moved - weights), moved
    scaled = weights[:-1] / std
    return LogisticWeights(coefficients=scaled, intercept=float(weights[-1] - scaled @ mean))


def training_rows(
    records: Float64[ndarray, "rows features"],
) -> tuple[Float64[ndarray, "rows weights"], Float64[ndarray, "features"], Float64[ndarray, "features"]]:
    """Standardised records with a one behind them, outliers cut; and the mean and deviation of each feature.

    Raises:
        InputError: a value is not finite.
    """
    if not np.all(np.isfinite(records)):
        raise InputError("training: expected finite values, got a NaN or an infinity")
    mean, std = records.mean(axis=0), records.std(axis=0)
    std = np.where(std > 0, std, 1.0)
    standard = np.clip((records - mean) / std, -LARGEST_VALUE, LARGEST_VALUE)
    rows = np.concatenate([standard, np.ones((len(records), 1))], axis=1)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows * np.minimum(1.0, LARGEST_ROW_NORM / norms), mean, std


def suggested_step(records: Float64[ndarray, "rows features"]) -> float:
    """Twice the inverse of the logistic loss's smoothness on these records; told to the host, it says little of them.

    Source: Nesterov, "Introductory Lectures on Convex Optimization", 2004, section 2.2: the step 1 / L; the
    polynomial's slope lies under the 1/4 that L takes, and twice the step was faster on each data set tried.
    """
    rows, _, _ = training_rows(records)
    largest = float(np.linalg.eigvalsh(rows.T @ rows / len(rows))[-1])
    return 2.0 / (0.25 * largest)


def sigmoid_polynomial() -> tuple[float, float, float]:
    """``(centre, rest, outer)``: the sigmoid is about ``1/2 + outer * u * ((u**2 + centre)**2 + rest)``, u a share.

    The least-squares polynomial of degree 5 on ``±SCORE_RANGE``; off by 0.09 at most.
    """
    shares = np.cos(np.linspace(0.0, math.pi, 2001))
    powers = np.stack([shares, shares**3, shares**5], axis=1)
    (first, third, fifth), *_ = np.linalg.lstsq(powers, 1.0 / (1.0 + np.exp(-SCORE_RANGE * shares)) - 0.5, rcond=None)
    centre = third / (2.0 * fifth)
    return float(centre), float(first / fifth - centre**2), float(fifth)
