import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mibao.dp import clip_to_grid
from mibao.errors import InputError
from mibao.federated import LinearRegression, LogisticRegression, Records, pool

MODELS = (LinearRegression(features=3), LogisticRegression(features=3))


def some_records(seed, *, count=30):
    rng = np.random.default_rng(seed)
    return Records(features=rng.normal(size=(count, 3)), targets=rng.integers(0, 2, count).astype(np.float64))


def loss(model, weights, records):
    """Each record's loss by its definition."""
    scores = records.features @ weights[:-1] + weights[-1]
    if isinstance(model, LinearRegression):
        return (scores - records.targets) ** 2 / 2
    return np.logaddexp(0.0, scores) - records.targets * scores


@given(st.sampled_from(MODELS), st.integers(0, 1000))
def test_gradients_are_the_slopes_of_each_records_loss(model, seed):
    records = some_records(seed, count=5)
    weights = np.random.default_rng(seed + 1).normal(size=model.size)
    gradients = model.gradients(weights, records)
    for axis, step in enumerate(np.eye(model.size) * 1e-6):
        slope = (loss(model, weights + step, records) - loss(model, weights - step, records)) / 2e-6
        assert gradients[:, axis] == pytest.approx(slope, abs=1e-7)


@given(st.data(), st.integers(1, 70), st.integers(1, 40), st.integers(0, 1000))
def test_no_record_moves_another_by_a_single_bit(data, count, features, seed):
    rng = np.random.default_rng(seed)
    everyone = Records(
        features=np.asfortranarray(rng.normal(size=(count, features))), targets=rng.integers(0, 2, count).astype(float)
    )
    chosen = data.draw(st.lists(st.integers(0, count - 1), min_size=1, unique=True))
    some = Records(features=everyone.features[chosen], targets=everyone.targets[chosen])
    for model in (LinearRegression(features=features), LogisticRegression(features=features)):
        weights = rng.normal(size=model.size)
        beside_all, beside_some = model.gradients(weights, everyone), model.gradients(weights, some)
        assert np.array_equal(beside_all[chosen], beside_some)
        clipped = clip_to_grid(beside_all, clip=0.7, scale_bits=20)
        assert np.array_equal(clipped[chosen], clip_to_grid(beside_some, clip=0.7, scale_bits=20))


def test_records_are_a_copy_that_cannot_be_changed():
    features = np.ones((2, 1))
    records = Records(features=features, targets=np.zeros(2))
    features[0] = np.nan
    assert records.features.tolist() == [[1.0], [1.0]]
    with pytest.raises(ValueError, match="read-only"):
        records.features[0] = 2.0


@given(st.integers(0, 200))
def test_the_pooled_least_squares_solution_leaves_no_gradient(seed):
    model, records = LinearRegression(features=3), some_records(seed)
    weights = model.fit(records)
    assert model.gradients(weights, records).sum(axis=0) == pytest.approx(np.zeros(4), abs=1e-9)


@given(st.integers(0, 200))
def test_the_pooled_logistic_solution_leaves_no_gradient_but_the_penalty(seed):
    model, records = LogisticRegression(features=3), some_records(seed)
    weights = model.fit(records, l2=0.5)
    penalty = np.append(0.5 * weights[:-1], 0.0)
    assert model.gradients(weights, records).sum(axis=0) + penalty == pytest.approx(np.zeros(4), abs=1e-8)


def test_the_pooled_logistic_solution_is_scikit_learns():
    linear_model = pytest.importorskip("sklearn.linear_model")
    records = some_records(5, count=200)
    theirs = linear_model.LogisticRegression(C=1.0, tol=1e-10).fit(records.features, records.targets)
    ours = LogisticRegression(features=3).fit(records)
    assert ours == pytest.approx(np.append(theirs.coef_[0], theirs.intercept_), abs=1e-5)


def test_predictions_and_accuracy():
    model = LogisticRegression(features=1)
    records = Records(features=np.array([[-1.0], [2.0], [3.0], [0.0]]), targets=np.array([0.0, 1.0, 0.0, 1.0]))
    weights = np.array([1.0, 0.0])
    assert model.predict(weights, records.features).tolist() == [0.0, 1.0, 1.0, 0.0]
    assert model.accuracy(weights, records) == 0.5
    assert LinearRegression(features=1).predict(weights, records.features).tolist() == [-1.0, 2.0, 3.0, 0.0]


def test_logits_of_any_size_give_finite_gradients():
    model = LogisticRegression(features=1)
    records = Records(features=np.array([[1e4], [-1e4]]), targets=np.array([0.0, 1.0]))
    assert model.gradients(np.array([1.0, 0.0]), records).tolist() == [[1e4, 1.0], [1e4, -1.0]]


def test_pooling_keeps_every_record_in_order():
    parts = [some_records(1, count=2), some_records(2, count=3)]
    pooled = pool(parts)
    assert pooled.features.tolist() == parts[0].features.tolist() + parts[1].features.tolist()
    assert pooled.targets.tolist() == parts[0].targets.tolist() + parts[1].targets.tolist()


def test_records_show_their_number_and_nothing_else():
    assert repr(some_records(1, count=2)) == "<Records: 2 rows of 3 features>"


@pytest.mark.parametrize("model", MODELS)
def test_features_of_another_width_are_refused(model):
    with pytest.raises(InputError, match="model: expected 3 features, got 2"):
        model.predict(model.initial(), np.zeros((1, 2)))


def test_a_class_that_is_neither_0_nor_1_is_refused():
    records = Records(features=np.zeros((1, 3)), targets=np.array([2.0]))
    for use in (MODELS[1].fit, lambda r: MODELS[1].gradients(np.zeros(4), r)):
        with pytest.raises(InputError, match="expected targets 0 and 1"):
            use(records)


def test_a_penalty_of_nothing_is_refused():
    with pytest.raises(InputError, match="expected a positive l2"):
        MODELS[1].fit(some_records(1), l2=0.0)


def test_an_empty_site_is_refused():
    with pytest.raises(InputError, match="at least one record, got none"):
        Records(features=np.zeros((0, 3)), targets=np.zeros(0))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_record_that_is_not_finite_is_refused(value):
    with pytest.raises(InputError, match="records: expected finite values"):
        Records(features=np.array([[1.0, value]]), targets=np.zeros(1))
    with pytest.raises(InputError, match="records: expected finite values"):
        Records(features=np.zeros((1, 2)), targets=np.array([value]))


def test_parts_of_different_widths_are_refused():
    narrow = Records(features=np.zeros((1, 2)), targets=np.zeros(1))
    with pytest.raises(InputError, match="same number of features"):
        pool([narrow, some_records(1)])
    with pytest.raises(InputError, match="same number of features"):
        pool([])
