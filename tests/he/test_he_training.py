"""Logistic regression on encrypted records: the weights that the same iterations in clear lead to."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mibao.errors import InputError
from mibao.he.engine_seal import SealEngine
from mibao.he.leveled import Leveled
from mibao.he.training import (
    ITERATIONS_A_REFRESH,
    PARAMETERS,
    SCORE_RANGE,
    EncryptedWeights,
    TrainingHost,
    TrainingKeyHolder,
    TrainingPlan,
    fit_encrypted,
    fit_in_clear,
    sigmoid_polynomial,
    suggested_step,
    training_rows,
)

WITHIN = 0.01  # a point of accuracy


@pytest.fixture(scope="module")
def engine():
    return SealEngine(PARAMETERS)


def cancer(seed):
    records, labels = load_breast_cancer(return_X_y=True)
    return train_test_split(records, labels == 1, test_size=0.25, random_state=seed, stratify=labels)


def small(rows=40, features=3):
    rng = np.random.default_rng(5)
    records = rng.normal(size=(rows, features)) * [1.0, 20.0, 0.1][:features] + 7
    scores = records @ [1.0, -0.05, 4.0][:features]
    return records, scores > np.median(scores)


def accuracy(model, records, labels):
    return float(np.mean((model.decision(records) > 0) == labels))


def test_encryption_changes_no_weight_across_ciphertexts_iterations_and_refreshes(engine):
    rows = PARAMETERS.slots // 4 + 5
    records, labels = small(rows=rows)
    plan = TrainingPlan(rows=rows, features=3, iterations=ITERATIONS_A_REFRESH + 1, step=suggested_step(records))
    assert plan.ciphertexts == 2
    fitted = fit_encrypted(records, labels, plan=plan, engine=engine, secret=engine.generate_secret_key())
    clear = fit_in_clear(records, labels, plan=plan)
    assert np.max(np.abs((fitted.coefficients - clear.coefficients) * records.std(axis=0))) < 1e-3
    assert fitted.decision(records) == pytest.approx(clear.decision(records), abs=5e-3)


def test_in_clear_the_iterations_are_within_a_point_of_the_library_on_breast_cancer():
    points = []
    for seed in range(8):
        train, test, train_labels, test_labels = cancer(seed)
        plan = TrainingPlan(rows=len(train), features=30, iterations=12, step=suggested_step(train))
        ours = accuracy(fit_in_clear(train, train_labels, plan=plan), test, test_labels)
        peer = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(train, train_labels)
        points.append(ours - peer.score(test, test_labels))
    assert abs(np.mean(points)) <= WITHIN


@pytest.mark.long
def test_breast_cancer_fitted_on_ciphertexts_is_within_a_point_of_plaintext(engine):
    train, test, train_labels, test_labels = cancer(0)
    plan = TrainingPlan(rows=len(train), features=30, iterations=12, step=suggested_step(train))
    fitted = fit_encrypted(train, train_labels, plan=plan, engine=engine, secret=engine.generate_secret_key())
    clear = fit_in_clear(train, train_labels, plan=plan)
    peer = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(train, train_labels)
    assert accuracy(fitted, test, test_labels) >= accuracy(clear, test, test_labels) - WITHIN
    assert accuracy(fitted, test, test_labels) >= peer.score(test, test_labels) - WITHIN


def test_what_the_host_holds_decrypts_under_no_other_key(engine):
    records, labels = small()
    plan = TrainingPlan(rows=40, features=3, iterations=1, step=1.0)
    holder = TrainingKeyHolder(records, labels, plan=plan, engine=engine, secret=engine.generate_secret_key())
    held = holder.encrypt_records()
    other = engine.generate_secret_key()
    for value in (*held.packed, held.label_moment):
        assert np.max(np.abs(engine.decrypt(other, value.ciphertext))) > 1e3


@pytest.mark.parametrize("features", [1, 2, 3, 7, 30, 31, 255])
def test_features_and_rows_fill_the_slots_and_every_rotation_has_a_key(features):
    plan = TrainingPlan(rows=100, features=features, iterations=1, step=1.0)
    assert plan.blocks * plan.block_rows == PARAMETERS.slots
    assert features + 1 <= plan.blocks < 2 * (features + 1)
    assert {*plan.feature_steps, *plan.row_steps} <= set(plan.rotations)


def test_the_polynomial_follows_the_sigmoid_and_pulls_back_beyond_its_range():
    centre, rest, outer = sigmoid_polynomial()
    shares = np.linspace(-1, 1, 1001)
    values = 0.5 + outer * shares * ((shares**2 + centre) ** 2 + rest)
    assert np.max(np.abs(values - 1 / (1 + np.exp(-SCORE_RANGE * shares)))) < 0.09
    beyond = np.linspace(1, 3, 100)
    assert np.all(np.diff(outer * beyond * ((beyond**2 + centre) ** 2 + rest)) > 0)


def test_outliers_are_cut_so_that_scores_keep_their_range():
    records, _ = small()
    records[0, 0] = 1e9
    rows, _, _ = training_rows(records)
    assert np.max(np.linalg.norm(rows, axis=1)) <= 8.0 + 1e-9
    assert np.max(np.abs(rows)) <= 4.0


def test_a_step_so_large_that_weights_run_away_is_found_at_the_refresh(engine):
    records, labels = small()
    plan = TrainingPlan(rows=40, features=3, iterations=2, step=1.0)
    holder = TrainingKeyHolder(records, labels, plan=plan, engine=engine, secret=engine.generate_secret_key())
    state = holder.start()
    far = engine.encrypt(holder._secret, engine.encode_constant(5000.0, scale=2.0**33))
    with pytest.raises(InputError, match="training: the weights left their range; take a smaller step"):
        holder.refresh(replace(state, weights=replace(state.weights, ciphertext=far)), iteration=1)


def test_iterations_without_a_refresh_run_out_of_levels(engine):
    records, labels = small()
    plan, secret = TrainingPlan(rows=40, features=3, iterations=3, step=1.0), engine.generate_secret_key()
    holder = TrainingKeyHolder(records, labels, plan=plan, engine=engine, secret=secret)
    keys = engine.generate_relinearization_key(secret), engine.generate_galois_keys(secret, [1])
    host, start = TrainingHost(holder.encrypt_records(), keys, plan=plan, engine=engine), holder.start()
    used = Leveled(ciphertext=engine.lower(start.weights.ciphertext, PARAMETERS.depth), level=PARAMETERS.depth)
    with pytest.raises(InputError, match="levels: 10 are too few for this computation"):
        host.iterate(EncryptedWeights(weights=used, ahead=((used, 1.0),)), iteration=0)


@pytest.mark.parametrize("change", [{"rows": 0}, {"rows": (1 << 14) + 1}, {"features": 0}, {"features": 256}], ids=str)
def test_sizes_out_of_range_are_refused(change):
    with pytest.raises(InputError, match="training: expected at most 16384 rows and 255 features"):
        TrainingPlan(**({"rows": 10, "features": 3, "iterations": 1, "step": 1.0} | change))


@pytest.mark.parametrize("change", [{"iterations": 0}, {"iterations": 101}, {"step": 0.0}, {"step": float("nan")}])
def test_iterations_or_steps_out_of_range_are_refused(change):
    with pytest.raises(InputError, match="training: expected 1 to 100 iterations and a positive step"):
        TrainingPlan(**({"rows": 10, "features": 3, "iterations": 1, "step": 1.0} | change))


def test_records_that_do_not_suit_the_plan_are_refused(engine):
    records, labels = small()
    plan, secret = TrainingPlan(rows=40, features=3, iterations=1, step=1.0), engine.generate_secret_key()
    with pytest.raises(InputError, match=r"training: expected records of shape \(40, 3\), got \(39, 3\)"):
        TrainingKeyHolder(records[1:], labels[1:], plan=plan, engine=engine, secret=secret)
    with pytest.raises(InputError, match="training: expected labels of both classes"):
        TrainingKeyHolder(records, np.ones(40, dtype=bool), plan=plan, engine=engine, secret=secret)
    records[0, 0] = np.nan
    with pytest.raises(InputError, match="training: expected finite values"):
        TrainingKeyHolder(records, labels, plan=plan, engine=engine, secret=secret)
