import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated_cases import byte_source, regression_sites, task_over
from mibao.errors import InputError
from mibao.federated import (
    FedAdam,
    FedAvg,
    FedAvgM,
    FedBuff,
    FedProx,
    FedSGD,
    FedYogi,
    LinearRegression,
    Scaffold,
    pool,
)

MODEL = LinearRegression(features=4)


@given(st.integers(1, 6), st.integers(0, 100))
def test_a_fedsgd_round_is_one_gradient_step_on_the_pooled_records(sites, seed):
    parts = regression_sites(sites=sites, seed=seed, records=5)
    weights = np.random.default_rng(seed).normal(size=MODEL.size)
    strategy = FedSGD(lr=0.3, divisor=50.0)
    total = sum(strategy.upload(MODEL, weights, part) for part in parts)
    pooled = MODEL.gradients(weights, pool(parts)).sum(axis=0)
    assert strategy.update(weights, np.asarray(total), {}) == pytest.approx(weights - 0.3 / 50.0 * pooled, abs=1e-9)


def descended(part, weights, *, lr, steps, mu=0.0, correction=0.0):
    """Full-batch gradient descent, by its definition."""
    own = weights
    for _ in range(steps):
        own = own - lr * (MODEL.gradients(own, part).mean(axis=0) + mu * (own - weights) + correction)
    return own


def after(strategy, parts, *, rounds=1, engine="sums", **plan):
    return task_over(parts, strategy=strategy).simulate(
        clients=len(parts), rounds=rounds, engine=engine, randomness=byte_source(1), **plan
    )


@pytest.mark.parametrize("engine", ["sums", "messages"])
@pytest.mark.parametrize("seed", [1, 2])
def test_fedavg_weighs_each_site_by_its_records(engine, seed):
    parts = regression_sites(seed=seed, records=5)
    local = [descended(part, np.zeros(5), lr=0.1, steps=3) for part in parts]
    expected = np.average(local, axis=0, weights=[len(part) for part in parts])
    assert after(FedAvg(lr=0.1, local_epochs=3), parts, engine=engine).weights == pytest.approx(expected, abs=1e-5)


def test_fedavg_of_one_local_epoch_is_fedsgd_with_the_true_count():
    parts = regression_sites()
    averaged = after(FedAvg(lr=0.1), parts).weights
    stepped = after(FedSGD(lr=0.1, divisor=float(len(pool(parts)))), parts).weights
    assert averaged == pytest.approx(stepped, abs=1e-6)


def test_every_client_can_have_its_own_number_of_epochs():
    parts = regression_sites(records=5)
    local = [descended(part, np.zeros(5), lr=0.1, steps=steps) for part, steps in zip(parts, (1, 4, 2), strict=True)]
    expected = np.average(local, axis=0, weights=[len(part) for part in parts])
    assert after(FedAvg(lr=0.1, local_epochs=(1, 4, 2)), parts).weights == pytest.approx(expected, abs=1e-5)


def test_fedprox_holds_clients_near_the_shared_weights():
    parts = regression_sites(records=5)
    local = [descended(part, np.zeros(5), lr=0.1, steps=5, mu=0.7) for part in parts]
    expected = np.average(local, axis=0, weights=[len(part) for part in parts])
    assert after(FedProx(lr=0.1, local_epochs=5, mu=0.7), parts).weights == pytest.approx(expected, abs=1e-5)


def test_fedavgm_adds_up_a_velocity():
    strategy, state = FedAvgM(lr=0.1, server_lr=0.5, server_momentum=0.9), {}
    weights = strategy.update(np.zeros(2), np.array([1.0, -2.0]), state)
    weights = strategy.update(weights, np.array([1.0, 0.0]), state)
    assert weights == pytest.approx(0.5 * np.array([1.0 + 1.9, -2.0 - 1.8]))


def test_fedadam_and_fedyogi_follow_their_papers():
    for kind in (FedAdam, FedYogi):
        strategy, state, weights = kind(lr=0.1, server_lr=0.1, beta1=0.9, beta2=0.99, tau=0.01), {}, np.zeros(2)
        first, second, expected = np.zeros(2), np.full(2, 1e-4), np.zeros(2)
        for mean in (np.array([1.0, -0.5]), np.array([0.2, 0.1])):
            weights = strategy.update(weights, mean, state)
            first = 0.9 * first + 0.1 * mean
            if kind is FedAdam:
                second = 0.99 * second + 0.01 * mean**2
            else:
                second = second - 0.01 * mean**2 * np.sign(second - mean**2)
            expected = expected + 0.1 * first / (np.sqrt(second) + 0.01)
        assert weights == pytest.approx(expected)


@pytest.mark.parametrize("engine", ["sums", "messages"])
def test_scaffold_follows_its_paper_and_takes_the_drift_out(engine):
    parts, lr, steps = regression_sites(records=5), 0.05, 6
    weights, shared, own = np.zeros(5), np.zeros(5), [np.zeros(5)] * 3
    for _ in range(4):
        ended = [
            descended(p, weights, lr=lr, steps=steps, correction=shared - c) for p, c in zip(parts, own, strict=True)
        ]
        moved = [c - shared + (weights - end) / (steps * lr) for c, end in zip(own, ended, strict=True)]
        shared = shared + np.mean([m - c for m, c in zip(moved, own, strict=True)], axis=0)
        own, weights = moved, np.mean(ended, axis=0)
    result = after(Scaffold(lr=lr, local_epochs=steps, clients=3), parts, rounds=4, engine=engine)
    assert result.weights == pytest.approx(weights, abs=1e-4)


def test_fedbuff_counts_an_older_update_less_and_never_starts_from_what_is_too_old():
    parts = regression_sites(sites=4, records=5)
    fresh = after(FedBuff(lr=0.1, max_age=0), parts, rounds=3).weights
    assert fresh == pytest.approx(after(FedAvg(lr=0.1), parts, rounds=3).weights, abs=1e-6)
    aged = after(FedBuff(lr=0.1, max_age=3), parts, rounds=150).weights
    assert aged == pytest.approx(after(FedAvg(lr=0.1), parts, rounds=150).weights, abs=0.05)
    assert not np.array_equal(aged, fresh)


def test_personal_parameters_stay_with_their_clients():
    parts = regression_sites(records=5)
    result = after(FedAvg(lr=0.1, personal=("intercept",)), parts, rounds=3)
    assert result.weights[-1] == 0.0
    assert np.all(result.weights[:-1] != 0.0)
    # With its own intercept a client fits better than with everybody's.
    alone = after(FedAvg(lr=0.1), parts, rounds=3).weights
    assert not np.allclose(result.weights[:-1], alone[:-1])


@pytest.mark.parametrize(
    ("patterns", "message"),
    [(("head.*",), "the personal pattern 'head.*' fits none of coefficients, intercept"), (("*",), "all parameters")],
)
def test_personal_patterns_without_meaning_are_refused(patterns, message):
    with pytest.raises(InputError, match=message):
        task_over(regression_sites(), strategy=FedAvg(lr=0.1, personal=patterns))


def test_only_the_last_iterates_are_averaged():
    strategy, state = FedSGD(lr=1.0, divisor=1.0, average_last=3), {}
    weights = np.zeros(2)
    for value in (100.0, 1.0, 2.0, 6.0):
        weights = strategy.update(weights, weights - value, state)
    assert strategy.finish(weights, state).tolist() == [3.0, 3.0]
    assert FedAvg(lr=1.0).finish(weights, {}).tolist() == [6.0, 6.0]


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: FedSGD(lr=0.0, divisor=1.0), "lr"),
        (lambda: FedSGD(lr=1.0, divisor=float("inf")), "divisor"),
        (lambda: FedSGD(lr=1.0, divisor=1.0, average_last=0), "average_last"),
        (lambda: FedAvg(lr=float("nan")), "lr"),
        (lambda: FedAvg(lr=1.0, local_epochs=0), "local_epochs"),
        (lambda: FedAvg(lr=1.0, local_epochs=()), "local_epochs"),
        (lambda: FedAvg(lr=1.0, batch=0), "batch"),
        (lambda: FedProx(lr=1.0, mu=0.0), "mu"),
        (lambda: FedAvgM(lr=1.0, server_lr=0.0), "server_lr"),
        (lambda: FedAdam(lr=1.0, tau=0.0), "tau"),
        (lambda: Scaffold(lr=1.0, clients=0), "clients"),
    ],
)
def test_a_constant_that_is_not_positive_is_refused(make, name):
    with pytest.raises(InputError, match=f"expected a positive {name}"):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FedAvg(lr=1.0, optimiser="rmsprop"), "expected the optimiser 'sgd' or 'adam', got 'rmsprop'"),
        (lambda: FedAvg(lr=1.0, momentum=1.0), "expected a momentum in 0..1"),
        (lambda: FedYogi(lr=1.0, beta1=1.0), "FedYogi: expected betas in 0..1"),
        (lambda: Scaffold(lr=1.0, clients=3, momentum=0.9), "Scaffold: expected plain SGD"),
        (lambda: FedBuff(lr=1.0, max_age=-1), "expected a max_age of 0 or more"),
    ],
)
def test_settings_without_meaning_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
