"""Decision trees, forests and boosted trees on encrypted records: every comparison of a batch at once.

One ciphertext a feature carries that feature of N / 2 rows. A node's decision is the sign of threshold less feature,
+1 for left, as a composition of polynomials; equal nodes of different trees are compared once. A subtree's value is
``V(L) + V(R) + sign * (V(L) - V(R))``, each leaf's value divided beforehand by two for every node above it: one
product a node, and a level for each of a tree's.

The client first maps each feature by its rank among the calibration records, piecewise linearly
(:class:`FeatureScale`): thresholds of trained trees lie between records, so ranks keep both apart where raw values may
differ in the ninth digit. The map tells the client how the calibration records are distributed, feature by feature
(its knots are quantiles of theirs), and nothing of the thresholds. What lies nearer to a threshold than the
comparison's separation gets a value between both leaves': :meth:`TreeCircuit.ambiguous` says which rows those are, for
whoever has rows and model in clear.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from mibao.errors import InputError
from mibao.he.forests import LEAF, Forest, Tree, evaluate_forest
from mibao.he.leveled import Arithmetic, Leveled
from mibao.he.leveled_polynomial import chebyshev_value
from mibao.he.parameters import MAX_MODULUS_BITS, Parameters
from mibao.he.sign import SignComposition, compose_sign

MAX_TREE_DEPTH = 8
KNOTS = 257
SEPARATIONS = tuple(2.0**-bits for bits in (5, 6, 7, 8, 9))
DEFAULT_AGREEMENT = 0.999
_COMPARISON_ERROR = 0.01
_STAGE_NOISE = 2.0**-12
_RANK_SHARE = 0.9
_TIE_SHARE = 1e-9
_MIN_LEVEL_BITS, _MAX_LEVEL_BITS = 26, 42
_FIRST_EXTRA_BITS, _SPECIAL_EXTRA_BITS = 8, 4  # room for a score; less noise from switching keys


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeatureScale:
    """For each feature increasing knots, mapped to equal distances in [-1/2, 1/2]. Public: the client applies it.

    ``rounds``: records are rounded to float32 first, as the model does it.
    """

    knots: Float64[ndarray, "features knots"]
    rounds: bool = True

    def apply(self, records: Float64[ndarray, "rows features"]) -> Float64[ndarray, "rows features"]:
        """Ranks from -1/2 to 1/2; what lies outside the knots goes to the nearer end, which no threshold lies beyond.

        Raises:
            InputError: another width, or a value that is not finite.
        """
        if records.shape[1] != len(self.knots) or not np.all(np.isfinite(records)):
            raise InputError(f"trees: expected finite records of {len(self.knots)} features, got {records.shape}")
        held = records.astype(np.float32).astype(np.float64) if self.rounds else records
        columns = [self.rank(index, column) for index, column in enumerate(held.T)]
        return np.stack(columns, axis=1)

    def rank(self, feature: int, values: Float64[ndarray, "count"]) -> Float64[ndarray, "count"]:
        """The same for values of one feature."""
        knots = self.knots[feature]
        return np.asarray(np.interp(values, knots, np.linspace(-0.5, 0.5, knots.size)), dtype=np.float64)


def fit_scale(calibration: Float64[ndarray, "rows features"], *, rounds: bool) -> FeatureScale:
    """Nine tenths by rank among the calibration records, one tenth by value, so that ties lie apart too.

    Raises:
        InputError: fewer than two records, or a value that is not finite.
    """
    if len(calibration) < 2 or not np.all(np.isfinite(calibration)):
        raise InputError("trees: expected at least two finite calibration records")
    return FeatureScale(knots=np.stack([_feature_knots(column) for column in calibration.T]), rounds=rounds)


def _feature_knots(column: Float64[ndarray, "rows"]) -> Float64[ndarray, "knots"]:
    """The values at equal distances of the mixed position, increasing."""
    even = np.linspace(0.0, 1.0, KNOTS)
    span = float(np.ptp(column)) or 1.0
    values = np.quantile(column, even)
    values += even * (_TIE_SHARE * max(span, float(np.max(np.abs(column)))))  # ties become increasing
    positions = _RANK_SHARE * even + (1.0 - _RANK_SHARE) * (values - values[0]) / (values[-1] - values[0])
    return np.asarray(np.interp(even, positions, values), dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TreeCircuit:
    """A forest ready for ciphertexts.

    Attributes:
        scale: How the client maps records.
        sign: The comparison.
        parameters: Ring and modulus.
        agreement: Share of the calibration records whose class the polynomials keep.
        ambiguous_share: Share of them with a decision nearer than the separation.
    """

    forest: Forest
    scale: FeatureScale
    sign: SignComposition
    parameters: Parameters
    agreement: float
    ambiguous_share: float

    @property
    def comparisons(self) -> list[tuple[int, float]]:
        """Each different (feature, threshold), once."""
        return sorted({pair for tree in self.forest.trees for pair in _decisions(tree)})

    def evaluate_in_clear(self, records: Float64[ndarray, "rows features"]) -> Float64[ndarray, "rows outputs"]:
        """What the polynomials make of records in clear: the ciphertexts' answer but for their noise."""
        ranks = self.scale.apply(records)
        signs = {
            (feature, threshold): self.sign(self.rank(feature, threshold) - ranks[:, feature])
            for feature, threshold in self.comparisons
        }
        total = np.tile(self.forest.base, (len(records), 1))
        for tree in self.forest.trees:
            total += _soft_value(tree, 0, signs)
        return total

    def ambiguous(self, records: Float64[ndarray, "rows features"]) -> Bool[ndarray, "rows"]:
        """Rows with a decision, on the path they take, nearer to its threshold than the separation."""
        found = np.zeros(len(records), dtype=bool)
        ranks = self.scale.apply(records)
        rows = np.arange(len(records))
        for tree in self.forest.trees:
            thresholds = np.full(tree.left.size, np.inf)  # of leaves, which nothing lies near
            for node in np.flatnonzero(tree.feature != LEAF):
                thresholds[node] = self.rank(int(tree.feature[node]), float(tree.threshold[node]))
            for nodes in _walk(tree, records):
                found |= np.abs(ranks[rows, tree.feature[nodes]] - thresholds[nodes]) < self.sign.separation
        return found

    def rank(self, feature: int, threshold: float) -> float:
        """Where a threshold lies among the ranks."""
        return float(self.scale.rank(feature, np.array([threshold]))[0])

    def explain(self) -> list[str]:
        """Lines for people."""
        trees = self.forest.trees
        return [
            f"{len(trees)} trees of depth {self.forest.depth}, {len(self.comparisons)} comparisons",
            f"sign: degrees {[len(stage.coefficients) - 1 for stage in self.sign.stages]}, for ranks at least "
            f"{self.sign.separation:.1e} apart; {self.ambiguous_share:.1%} of the calibration records come nearer",
            f"same class on the calibration records: {self.agreement:.2%}",
            f"ring {self.parameters.ring_degree}, {self.parameters.depth} levels, {self.parameters.slots} rows a batch",
        ]

    def evaluate(self, ranks: Sequence[Leveled], arithmetic: Arithmetic) -> list[Leveled]:
        """Each output's ciphertext for one batch, from the negated ranks of each feature, fresh.

        Raises:
            InputError: another number of features.
        """
        if len(ranks) != len(self.scale.knots):
            raise InputError(f"trees: expected {len(self.scale.knots)} ciphertexts, one a feature, got {len(ranks)}")
        signs = {
            (feature, threshold): _sign_of(
                arithmetic, arithmetic.shifted(ranks[feature], self.rank(feature, threshold)), self.sign
            )
            for feature, threshold in self.comparisons
        }
        evaluation = _Evaluation(arithmetic, signs)
        return [evaluation.output(self.forest, output) for output in range(self.forest.outputs)]


def compile_trees(
    forest: Forest,
    calibration: Float64[ndarray, "rows features"],
    *,
    agreement: float = DEFAULT_AGREEMENT,
) -> TreeCircuit:
    """The circuit with the least sharp comparison that keeps the calibration records' classes.

    Args:
        calibration: Records like those that will be asked about.
        agreement: Share of them whose class (sign of the score, or largest one) must stay.

    Raises:
        InputError: another width, trees too deep or without a decision, or no composition that fits the parameters
            keeps ``agreement``.
    """
    if calibration.shape[1] != forest.features:
        raise InputError(f"trees: expected calibration records of {forest.features} features, got {calibration.shape}")
    if not 1 <= forest.depth <= MAX_TREE_DEPTH:
        raise InputError(f"trees: expected a depth of 1 to {MAX_TREE_DEPTH}, got {forest.depth}; set max_depth")
    scale, best = fit_scale(calibration, rounds=forest.rounds), 0.0
    classes = _classes(evaluate_forest(forest, calibration))
    for separation in SEPARATIONS:  # least sharp first: each costs a level or more
        sign = _comparison(separation)
        parameters = _parameters(sign.depth + forest.depth)
        if parameters is None:
            break
        made = TreeCircuit(
            forest=forest, scale=scale, sign=sign, parameters=parameters, agreement=1.0, ambiguous_share=0.0
        )
        best = float(np.mean(_classes(made.evaluate_in_clear(calibration)) == classes))
        if best >= agreement:
            return replace(made, agreement=best, ambiguous_share=float(np.mean(made.ambiguous(calibration))))
    raise InputError(
        f"trees: the sharpest comparison that fits keeps {best:.2%} of the calibration records' classes, "
        f"{agreement:.2%} were asked for; quantise features to fewer values before training, or allow less"
    )


@cache
def _comparison(separation: float) -> SignComposition:
    return compose_sign(separation=separation, max_error=_COMPARISON_ERROR, noise=_STAGE_NOISE)


def _parameters(depth: int) -> Parameters | None:
    """The smallest ring whose levels are long enough, each as long as 128-bit security allows; None when none is."""
    for degree in (16384, 32768):
        room = MAX_MODULUS_BITS[degree] - _FIRST_EXTRA_BITS - _SPECIAL_EXTRA_BITS
        bits = min(room // (depth + 2), _MAX_LEVEL_BITS)
        if bits >= _MIN_LEVEL_BITS:
            modulus_bits = (bits + _FIRST_EXTRA_BITS, *(bits,) * depth, bits + _SPECIAL_EXTRA_BITS)
            return Parameters(ring_degree=degree, modulus_bits=modulus_bits, scale_bits=bits)
    return None


def _classes(scores: Float64[ndarray, "rows outputs"]) -> Int64[ndarray, "rows"]:
    chosen = np.argmax(scores, axis=1) if scores.shape[1] > 1 else scores[:, 0] > 0
    return np.asarray(chosen, dtype=np.int64)


def _decisions(tree: Tree) -> Iterator[tuple[int, float]]:
    for node in np.flatnonzero(tree.feature != LEAF):
        yield int(tree.feature[node]), float(tree.threshold[node])


def _walk(tree: Tree, records: Float64[ndarray, "rows features"]) -> Iterator[Int64[ndarray, "rows"]]:
    """The node at which each row stands, decision by decision; at the end its leaf."""
    nodes, rows = np.zeros(len(records), dtype=np.int64), np.arange(len(records))
    yield nodes
    for _ in range(tree.depth):
        inner = tree.feature[nodes] != LEAF
        goes_left = records[rows, tree.feature[nodes]] <= tree.threshold[nodes]
        nodes = np.where(inner, np.where(goes_left, tree.left[nodes], tree.right[nodes]), nodes)
        yield nodes


def _soft_value(
    tree: Tree, node: int, signs: dict[tuple[int, float], Float64[ndarray, "rows"]]
) -> Float64[ndarray, "... outputs"]:
    """A subtree's value with decisions between -1 and 1."""
    if tree.feature[node] == LEAF:
        leaf: Float64[ndarray, "outputs"] = tree.value[node]
        return leaf
    left = _soft_value(tree, int(tree.left[node]), signs)
    right = _soft_value(tree, int(tree.right[node]), signs)
    sign = signs[int(tree.feature[node]), float(tree.threshold[node])][:, None]
    mixed: Float64[ndarray, "... outputs"] = ((left + right) + sign * (left - right)) / 2.0
    return mixed


def _sign_of(arithmetic: Arithmetic, value: Leveled, sign: SignComposition) -> Leveled:
    """Each stage's result is already a share of the next one's interval."""
    highs = [stage.high for stage in sign.stages[1:]] + [1.0]
    for stage, high in zip(sign.stages, highs, strict=True):
        value = chebyshev_value(arithmetic, value, stage.coefficients / high)
    return value


@dataclass(slots=True, eq=False)
class _Sum:
    """A sum not yet computed: a constant, decisions with weights, and products with whole factors."""

    constant: float = 0.0
    decisions: dict[tuple[int, float], float] = field(default_factory=dict)
    products: list[tuple[Leveled, int]] = field(default_factory=list)

    def plus(self, other: _Sum, factor: int) -> _Sum:
        decisions = dict(self.decisions)
        for decision, weight in other.decisions.items():
            decisions[decision] = decisions.get(decision, 0.0) + factor * weight
        products = self.products + [(product, factor * count) for product, count in other.products]
        return _Sum(self.constant + factor * other.constant, decisions, products)


class _Evaluation:
    """One batch's signs, and the subtrees' values from them."""

    def __init__(self, arithmetic: Arithmetic, signs: dict[tuple[int, float], Leveled]) -> None:
        self._arithmetic, self._signs = arithmetic, signs
        self._lowered: dict[tuple[tuple[int, float], int], Leveled] = {}

    def output(self, forest: Forest, output: int) -> Leveled:
        """Base and all trees; the products of all roots are relinearised together."""
        total, roots = _Sum(float(forest.base[output])), []
        for tree in forest.trees:
            value, pending = self._value(tree, 0, output, 1.0)
            total = total.plus(value, 1)
            roots += [] if pending is None else [pending]
        arithmetic = self._arithmetic
        if roots:
            level = max(difference.level for _, difference in roots)
            signs = [self._sign(decision, level) for decision, _ in roots]
            total.products.append((arithmetic.sum_of_products(signs, [difference for _, difference in roots]), 1))
        result = self._computed(total)
        if result is None:
            raise InputError("trees: an output that no feature decides; its answer would be in clear")
        return result

    def _value(
        self, tree: Tree, node: int, output: int, share: float
    ) -> tuple[_Sum, tuple[tuple[int, float], Leveled] | None]:
        """A subtree's sum, and the product of its root that is still to be made: sign and difference."""
        if tree.feature[node] == LEAF:
            return _Sum(float(tree.value[node, output]) * share), None
        decision = int(tree.feature[node]), float(tree.threshold[node])
        left, right = (self._made(tree, int(child[node]), output, share / 2.0) for child in (tree.left, tree.right))
        total, difference = left.plus(right, 1), left.plus(right, -1)
        computed = self._computed(difference)
        if computed is None:
            return total.plus(_Sum(0.0, {decision: difference.constant}), 1), None
        return total, (decision, computed)

    def _made(self, tree: Tree, node: int, output: int, share: float) -> _Sum:
        value, pending = self._value(tree, node, output, share)
        if pending is not None:
            decision, difference = pending
            product = self._arithmetic.product(self._sign(decision, difference.level), difference)
            value.products.append((product, 1))
        return value

    def _computed(self, sum_: _Sum) -> Leveled | None:
        """The sum as a ciphertext; None where it is a constant."""
        decisions = {decision: weight for decision, weight in sum_.decisions.items() if weight}
        counts = [(product, count) for product, count in sum_.products if count]
        parts = []
        if counts:
            parts.append(self._arithmetic.counted([p for p, _ in counts], [count for _, count in counts]))
        if decisions:
            held = [self._signs[decision] for decision in decisions]
            level = max([value.level + 1 for value in held] + [part.level for part in parts])
            parts.append(self._arithmetic.weighted(held, list(decisions.values()), level=level))
        if not parts:
            return None
        total = parts[0] if len(parts) == 1 else self._arithmetic.sum(*parts)
        return self._arithmetic.shifted(total, sum_.constant) if sum_.constant else total

    def _sign(self, decision: tuple[int, float], level: int) -> Leveled:
        key = decision, level
        if key not in self._lowered:
            self._lowered[key] = self._arithmetic.lowered(self._signs[decision], level)
        return self._lowered[key]
