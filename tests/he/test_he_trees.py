"""Trees on ciphertexts: the polynomials' answers but for noise, and classes like the model's."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.model_selection import train_test_split
from sklearn.tree import DecisionTreeClassifier

from counts import counts
from mibao.errors import InputError
from mibao.he.engine_seal import SealEngine
from mibao.he.forests import LEAF, Forest, Tree, evaluate_forest
from mibao.he.leveled import Arithmetic, Leveled
from mibao.he.models_trees import forest_of
from mibao.he.sign import compose_sign
from mibao.he.trees import FeatureScale, TreeCircuit, _parameters, compile_trees, fit_scale


def forest(trees, base, features):
    return Forest(low=np.full(features, -1e6), high=np.full(features, 1e6), trees=tuple(trees), base=np.asarray(base))


def tree_of(fitted, *, factor=1.0):
    """What a front end reads out of scikit-learn."""
    held = fitted.tree_
    inner = held.children_left >= 0
    value = held.value[:, 0, :] * factor
    return Tree(
        feature=np.where(inner, held.feature, LEAF).astype(np.int64),
        threshold=np.where(inner, held.threshold, 0.0),
        left=np.where(inner, held.children_left, 0).astype(np.int64),
        right=np.where(inner, held.children_right, 0).astype(np.int64),
        value=np.where(inner[:, None], 0.0, value),
    )


def boosted(records, labels, *, trees=20):
    model = GradientBoostingClassifier(n_estimators=trees, max_depth=3, random_state=0).fit(records, labels)
    share = np.mean(labels)
    members = [tree_of(member, factor=model.learning_rate) for member in model.estimators_[:, 0]]
    return model, forest(members, [np.log(share / (1 - share))], records.shape[1])


def cancer(seed=0):
    records, labels = load_breast_cancer(return_X_y=True)
    return train_test_split(records, labels, test_size=0.3, random_state=seed, stratify=labels)


def random_tree(rng, *, features, depth, outputs):
    """A tree of that depth whose nodes stop early at random."""
    nodes = []

    def grow(left_depth):
        index = len(nodes)
        nodes.append([LEAF, 0.0, 0, 0, rng.normal(size=outputs)])
        if left_depth and (index == 0 or rng.random() < 0.8):
            nodes[index][:2] = int(rng.integers(features)), float(rng.uniform(-1, 1))
            nodes[index][2], nodes[index][3] = grow(left_depth - 1), grow(left_depth - 1)
            nodes[index][4] = np.zeros(outputs)
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
    trees = [random_tree(rng, features=3, depth=depth, outputs=outputs) for _ in range(count)]
    ensemble = forest(trees, rng.normal(size=outputs), 3)
    sign = compose_sign(separation=2.0**-6, max_error=1e-3)
    circuit = TreeCircuit(
        forest=ensemble,
        scale=fit_scale(records, rounds=False),
        sign=sign,
        parameters=_parameters(sign.depth + depth),
        agreement=1.0,
        ambiguous_share=0.0,
    )
    clear = ~circuit.ambiguous(records)
    largest = sum(float(np.max(np.abs(tree.value))) for tree in ensemble.trees)
    errors = np.abs(circuit.evaluate_in_clear(records) - evaluate_forest(ensemble, records))[clear]
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


def test_on_ciphertexts_trees_give_what_their_polynomials_give():
    train, test, labels, _ = cancer()
    chosen = [7, 27]
    trees = [
        tree_of(DecisionTreeClassifier(max_depth=depth, random_state=depth).fit(train[:, chosen], labels))
        for depth in (1, 2)
    ]
    held = forest(trees, [0.5, -0.5], 2)
    sign = compose_sign(separation=2.0**-4, max_error=0.01, noise=2.0**-12)
    circuit = TreeCircuit(
        forest=held,
        scale=fit_scale(train[:, chosen], rounds=True),
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


@pytest.mark.parametrize("seed", range(counts(short=1, long=8)))
def test_boosted_trees_keep_their_classes_on_records_they_have_not_seen(seed):
    train, test, labels, _ = cancer(seed)
    model, ensemble = boosted(train, labels)
    assert np.allclose(evaluate_forest(ensemble, test)[:, 0], model.decision_function(test))
    circuit = compile_trees(ensemble, train, agreement=0.997)
    both = np.concatenate([train, test])
    kept = classes(circuit.evaluate_in_clear(both)) == (model.decision_function(both) > 0)
    assert np.mean(kept) >= 0.995
    assert 0 < circuit.ambiguous_share < 0.3
    assert any("same class on the calibration records" in line for line in circuit.explain())


def test_what_the_front_ends_read_is_compiled():
    train, test, labels, _ = cancer()
    model = RandomForestClassifier(n_estimators=8, max_depth=3, random_state=0).fit(train, labels)
    held = forest_of(model, low=train.min(axis=0), high=train.max(axis=0))
    circuit = compile_trees(held, train, agreement=0.99)
    kept = classes(circuit.evaluate_in_clear(test)) == (model.predict(test) == 1)
    assert np.mean(kept) >= 0.99


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
    ranks = fit_scale(calibration, rounds=False).apply(calibration)
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
    double = replace(single, forest=forest([tree, tree], np.zeros(1), 2))
    assert double.comparisons == single.comparisons


def compile_pair(tree):
    records = np.random.default_rng(2).uniform(-1, 1, (50, 2))
    sign = compose_sign(separation=2.0**-5, max_error=0.01)
    return TreeCircuit(
        forest=forest([tree], np.zeros(1), 2),
        scale=fit_scale(records, rounds=False),
        sign=sign,
        parameters=_parameters(sign.depth + 3),
        agreement=1.0,
        ambiguous_share=0.0,
    )


STUMP = Tree(
    feature=np.array([0, LEAF, LEAF]),
    threshold=np.array([0.5, 0.0, 0.0]),
    left=np.array([1, 0, 0]),
    right=np.array([2, 0, 0]),
    value=np.array([[0.0], [1.0], [2.0]]),
)


def test_trees_too_deep_or_without_a_decision_are_refused():
    deep = random_tree(np.random.default_rng(5), features=1, depth=14, outputs=1)
    leaf = Tree(
        feature=np.array([LEAF]),
        threshold=np.zeros(1),
        left=np.zeros(1, dtype=np.int64),
        right=np.zeros(1, dtype=np.int64),
        value=np.ones((1, 1)),
    )
    for tree in (deep, leaf):
        with pytest.raises(InputError, match="trees: expected a depth of 1 to 8"):
            compile_trees(forest([tree], np.zeros(1), 1), np.zeros((3, 1)))


def test_calibration_records_of_another_width_are_refused():
    with pytest.raises(InputError, match="trees: expected calibration records of 3 features"):
        compile_trees(forest([STUMP], np.zeros(1), 3), np.zeros((9, 2)))


def test_thresholds_nearer_to_records_than_any_comparison_tells_are_refused():
    records = np.random.default_rng(0).normal(size=(2000, 1))
    ordered = np.sort(records[:, 0])
    near = replace(
        STUMP, threshold=np.full(3, (ordered[1000] + ordered[1001]) / 2), value=np.array([[0.0], [-1.0], [1.0]])
    )
    shifted = forest([near], [0.9], 1)
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
        fit_scale(calibration, rounds=False)


def test_another_number_of_ciphertexts_is_refused():
    circuit = compile_pair(STUMP)
    engine = SealEngine(circuit.parameters)
    key = engine.generate_relinearization_key(engine.generate_secret_key())
    with pytest.raises(InputError, match="trees: expected 2 ciphertexts, one a feature, got 0"):
        circuit.evaluate([], Arithmetic(engine, relinearization=key))
