"""Trees on ciphertexts: the polynomials' answers but for noise, and classes like the model's."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mibao.he.sign import compose_sign
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.model_selection import train_test_split

from counts import counts
from mibao.errors import InputError
from mibao.he.engine_seal import SealEngine
from mibao.he.leveled import Arithmetic, Leveled
from mibao.he.trees import LEAF, Ensemble, FeatureScale, Tree, TreeCircuit, _parameters, compile_trees, fit_scale


def tree_of(fitted, *, factor=1.0):
    """What a front end reads out of scikit-learn."""
    held = fitted.tree_
    value = held.value[:, 0, :] if held.value.shape[2] > 1 else held.value[:, :, 0]
    return Tree(
        feature=held.feature.astype(np.int64),
        threshold=held.threshold.astype(np.float64),
        left=held.children_left.astype(np.int64),
        right=held.children_right.astype(np.int64),
        value=value * factor,
    )


def boosted(records, labels, *, trees=20):
    model = GradientBoostingClassifier(n_estimators=trees, max_depth=3, random_state=0).fit(records, labels)
    share = np.mean(labels)
    members = tuple(tree_of(member, factor=model.learning_rate) for member in model.estimators_[:, 0])
    return model, Ensemble(trees=members, base=np.array([np.log(share / (1 - share))]))


def cancer(seed=0):
    records, labels = load_breast_cancer(return_X_y=True)
    return train_test_split(records, labels, test_size=0.3, random_state=seed, stratify=labels)


def random_tree(rng, *, features, depth, outputs):
    """A tree of that depth whose nodes stop early at random."""
    nodes = []

    def grow(left_depth):
        index = len(nodes)
        nodes.append([0, 0.0, LEAF, LEAF, rng.normal(size=outputs)])
        if left_depth and (index == 0 or rng.random() < 0.8):
            nodes[index][:2] = int(rng.integers(features)), float(rng.uniform(-1, 1))
            nodes[index][2] = grow(left_depth - 1)
            nodes[index][3] = grow(left_depth - 1)
        return index

    grow(depth)
    feature, threshold, left, right, value = (list(column) for column in zip(*nodes, strict=True))
    return Tree(
        feature=np.array(feature),
        threshold=np.array(threshold),
        left=np.array(left),
        right=np.array(right),
        value=np.array(value),
    )


def classes(scores):
    return np.argmax(scores, axis=1) if scores.shape[1] > 1 else scores[:, 0] > 0


@settings(max_examples=counts(short=30, long=500), deadline=None)
@given(
    depth=st.integers(1, 5),
    count=st.integers(1, 4),
    outputs=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_rows_away_from_every_threshold_get_the_model_s_scores(depth, count, outputs, seed):
    rng = np.random.default_rng(seed)
    records = rng.uniform(-1, 1, (200, 3))
    ensemble = Ensemble(
        trees=tuple(random_tree(rng, features=3, depth=depth, outputs=outputs) for _ in range(count)),
        base=rng.normal(size=outputs),
    )
    sign = compose_sign(separation=2.0**-6, max_error=1e-3)
    circuit = TreeCircuit(
        ensemble=ensemble,
        scale=fit_scale(records),
        sign=sign,
        parameters=_parameters(sign.depth + depth),
        agreement=1.0,
        ambiguous_share=0.0,
    )
    clear = ~circuit.ambiguous(records)
    largest = sum(float(np.max(np.abs(tree.value))) for tree in ensemble.trees)
    errors = np.abs(circuit.evaluate_in_clear(records) - ensemble.scores(records))[clear]
    assert np.max(errors, initial=0.0) <= 2.0 * depth * 1e-3 * largest
    assert np.any(clear) or count * depth > 4


def encrypted_scores(circuit, records):
    engine = SealEngine(circuit.parameters)
    secret = engine.generate_secret_key()
    arithmetic = Arithmetic(engine, relinearization=engine.generate_relinearization_key(secret))
    ranks = circuit.scale.apply(records)
    fresh = [
        Leveled(ciphertext=engine.encrypt(secret, engine.encode(-column, scale=arithmetic.scales[0])), level=0)
        for column in ranks.T
    ]
    answers = [engine.decrypt(secret, value.ciphertext) for value in circuit.evaluate(fresh, arithmetic)]
    return np.stack(answers, axis=1)[: len(records)]


def test_on_ciphertexts_a_forest_gives_what_its_polynomials_give():
    train, test, labels, _ = cancer()
    chosen = [7, 27]
    model = RandomForestClassifier(n_estimators=2, max_depth=2, random_state=0).fit(train[:, chosen], labels)
    ensemble = Ensemble(trees=tuple(tree_of(member, factor=0.5) for member in model.estimators_), base=np.zeros(2))
    assert np.allclose(ensemble.scores(test[:, chosen]), model.predict_proba(test[:, chosen]))
    sign = compose_sign(separation=2.0**-4, max_error=0.01, noise=2.0**-12)
    circuit = TreeCircuit(
        ensemble=ensemble,
        scale=fit_scale(train[:, chosen]),
        sign=sign,
        parameters=_parameters(sign.depth + 2),
        agreement=1.0,
        ambiguous_share=0.0,
    )
    scores = encrypted_scores(circuit, test[:, chosen])
    assert np.max(np.abs(scores - circuit.evaluate_in_clear(test[:, chosen]))) < 1e-3


@pytest.mark.long
def test_twenty_boosted_trees_of_depth_three_keep_their_classes_on_ciphertexts():
    train, test, labels, _ = cancer()
    model, ensemble = boosted(train, labels)
    circuit = compile_trees(ensemble, train)
    scores = encrypted_scores(circuit, test)
    assert np.max(np.abs(scores - circuit.evaluate_in_clear(test))) < 0.05
    assert np.mean(classes(scores) == (model.decision_function(test) > 0)) >= 0.995


@pytest.mark.parametrize("seed", [0, 2, 3])
def test_boosted_trees_keep_their_classes_on_records_they_have_not_seen(seed):
    train, test, labels, _ = cancer(seed)
    model, ensemble = boosted(train, labels)
    assert np.allclose(ensemble.scores(test)[:, 0], model.decision_function(test))
    circuit = compile_trees(ensemble, train, agreement=0.997)
    both = np.concatenate([train, test])
    kept = classes(circuit.evaluate_in_clear(both)) == (model.decision_function(both) > 0)
    assert np.mean(kept) >= 0.995
    assert 0 < circuit.ambiguous_share < 0.3
    assert any("same class on the calibration records" in line for line in circuit.explain())


def test_features_with_few_values_are_told_apart():
    rng = np.random.default_rng(0)
    records = np.stack([rng.integers(0, 2, 500), rng.integers(0, 5, 500), rng.integers(18, 80, 500)], axis=1) * 1.0
    labels = (records[:, 0] + records[:, 1] / 2 + records[:, 2] / 40 + rng.normal(size=500) / 4) > 3
    model, ensemble = boosted(records, labels, trees=10)
    circuit = compile_trees(ensemble, records)
    assert circuit.parameters.ring_degree == 16384  # values far apart take no sharp comparison
    kept = classes(circuit.evaluate_in_clear(records)) == (model.decision_function(records) > 0)
    assert np.all(kept)


@given(st.integers(0, 2**32 - 1))
def test_ranks_keep_the_order_and_their_range(seed):
    rng = np.random.default_rng(seed)
    calibration = rng.choice([0.0, 1.0, 1e6, -3.0, rng.normal()], (30, 2)) * rng.choice([1e-6, 1.0])
    ranks = fit_scale(calibration).apply(calibration)
    assert np.all(np.abs(ranks) <= 0.5)
    for column, ranked in zip(calibration.T, ranks.T, strict=True):
        order = np.argsort(column, kind="stable")
        assert np.all(np.diff(ranked[order]) >= 0)
        apart = np.diff(column[order]) > 1e-3 * np.ptp(column)
        assert np.all(np.diff(ranked[order])[apart] > 0)


def test_equal_comparisons_are_made_once():
    rng = np.random.default_rng(1)
    tree = random_tree(rng, features=2, depth=3, outputs=1)
    single = compile_pair(tree)
    double = replace(single, ensemble=Ensemble(trees=(tree, tree), base=np.zeros(1)))
    assert double.comparisons == single.comparisons


def compile_pair(tree):
    records = np.random.default_rng(2).uniform(-1, 1, (50, 2))
    sign = compose_sign(separation=2.0**-5, max_error=0.01)
    return TreeCircuit(
        ensemble=Ensemble(trees=(tree,), base=np.zeros(1)),
        scale=fit_scale(records),
        sign=sign,
        parameters=_parameters(sign.depth + 3),
        agreement=1.0,
        ambiguous_share=0.0,
    )


STUMP = Tree(
    feature=np.array([0, -2, -2]),
    threshold=np.array([0.5, 0.0, 0.0]),
    left=np.array([1, LEAF, LEAF]),
    right=np.array([2, LEAF, LEAF]),
    value=np.array([[0.0], [1.0], [2.0]]),
)


@pytest.mark.parametrize(
    "change",
    [
        {"left": np.array([2, LEAF, LEAF])},
        {"left": np.array([0, LEAF, LEAF])},
        {"right": np.array([LEAF, LEAF, LEAF])},
        {"right": np.array([5, LEAF, LEAF])},
        {"feature": np.array([-1, 0, 0])},
    ],
    ids=range(5),
)
def test_arrays_that_are_no_tree_are_refused(change):
    with pytest.raises(InputError, match="trees: expected nodes in an order in which each follows its one parent"):
        replace(STUMP, **change)


@pytest.mark.parametrize("change", [{"threshold": np.full(3, np.nan)}, {"value": np.full((3, 1), np.inf)}], ids="tv")
def test_numbers_that_are_not_finite_are_refused(change):
    with pytest.raises(InputError, match="trees: expected finite thresholds and values"):
        replace(STUMP, **change)


def test_no_trees_or_trees_of_other_widths_are_refused():
    for trees, base in (((), np.zeros(1)), ((STUMP,), np.zeros(2))):
        with pytest.raises(InputError, match="trees: expected at least one tree, all with as many outputs as the base"):
            Ensemble(trees=trees, base=base)


def test_trees_too_deep_or_without_a_decision_are_refused():
    deep = random_tree(np.random.default_rng(5), features=1, depth=14, outputs=1)
    leaf = Tree(
        feature=np.array([-2]),
        threshold=np.zeros(1),
        left=np.array([LEAF]),
        right=np.array([LEAF]),
        value=np.ones((1, 1)),
    )
    for tree in (deep, leaf):
        with pytest.raises(InputError, match="trees: expected a depth of 1 to 8"):
            Ensemble(trees=(tree,), base=np.zeros(1))


def test_a_feature_that_records_lack_is_refused():
    other = replace(STUMP, feature=np.array([3, -2, -2]))
    with pytest.raises(InputError, match="trees: a node reads a feature that records of 2 features lack"):
        compile_trees(Ensemble(trees=(other,), base=np.zeros(1)), np.random.default_rng(0).normal(size=(9, 2)))


def test_thresholds_nearer_to_records_than_any_comparison_tells_are_refused():
    records = np.random.default_rng(0).normal(size=(2000, 1))
    ordered = np.sort(records[:, 0])
    near = replace(
        STUMP, threshold=np.full(3, (ordered[1000] + ordered[1001]) / 2), value=np.array([[0.0], [-1.0], [1.0]])
    )
    shifted = Ensemble(trees=(near,), base=np.array([0.9]))
    with pytest.raises(InputError, match="trees: the sharpest comparison that fits keeps"):
        compile_trees(shifted, records, agreement=1.0)


def test_records_that_do_not_suit_the_scale_are_refused():
    scale = FeatureScale(knots=np.array([[0.0, 1.0]]))
    for records in (np.zeros((2, 2)), np.array([[np.nan]])):
        with pytest.raises(InputError, match="trees: expected finite records of 1 features"):
            scale.apply(records)


@pytest.mark.parametrize("calibration", [np.zeros((1, 2)), np.full((3, 2), np.inf)], ids=["one", "infinite"])
def test_calibration_records_that_calibrate_nothing_are_refused(calibration):
    with pytest.raises(InputError, match="trees: expected at least two finite calibration records"):
        fit_scale(calibration)


def test_another_number_of_ciphertexts_is_refused():
    circuit = compile_pair(STUMP)
    engine = SealEngine(circuit.parameters)
    key = engine.generate_relinearization_key(engine.generate_secret_key())
    with pytest.raises(InputError, match="trees: expected 2 ciphertexts, one a feature, got 0"):
        circuit.evaluate([], Arithmetic(engine, relinearization=key))
