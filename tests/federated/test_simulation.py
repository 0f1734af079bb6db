from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from federated_cases import PRIVACY, byte_source, regression_sites, still_sites, task_over
from mibao import dp
from mibao.codec import records
from mibao.errors import BudgetExhausted, InputError, ProtocolError
from mibao.events import NoiseAdded, PrivacySpent
from mibao.federated import FedAvg, FedSGD, LinearRegression, Privacy, Unit, pool, simulate, transport

FEATURES = 4000


def noise_of_one_round(*, dropped=frozenset(), seed=1):
    """Noise in the released sum over its promised standard deviation with all sites, through every message."""
    task = task_over(still_sites(features=FEATURES), privacy=PRIVACY, strategy=FedSGD(lr=1.0, divisor=1.0))
    result = task.simulate(clients=5, rounds=1, dropouts={0: dropped}, randomness=byte_source(seed))
    sensitivity = np.sqrt(PRIVACY.squared_sensitivity(dimension=FEATURES + 1)) * 2.0**-PRIVACY.scale_bits
    return -result.weights / (PRIVACY.noise_multiplier * sensitivity), result


def has_variance(noise, share):
    """Whether the empirical variance is ``share`` within 4.5 standard errors."""
    return abs(np.var(noise) / share - 1.0) < 4.5 * np.sqrt(2.0 / noise.size)


def test_linear_regression_trained_together_is_pooled_least_squares():
    parts = regression_sites(sites=3)
    task = task_over(parts, strategy=FedSGD(lr=0.9, divisor=float(len(pool(parts)))))
    result = task.simulate(clients=3, rounds=20, randomness=byte_source(1))
    expected = LinearRegression(features=4).fit(pool(parts))
    assert np.abs(result.weights - expected).max() < 1e-6
    assert result.sum_exact
    assert (result.epsilon, result.delta, result.rounds) == (None, None, 20)


def test_fedavg_trained_together_comes_near_pooled_least_squares():
    parts = regression_sites(sites=4)
    task = task_over(parts, strategy=FedAvg(lr=0.3, local_epochs=4))
    result = task.simulate(clients=4, rounds=10, dropouts={2: {0}}, randomness=byte_source(1))
    assert result.weights == pytest.approx(LinearRegression(features=4).fit(pool(parts)), abs=0.02)
    assert result.sum_exact


def test_the_released_sum_carries_the_noise_that_is_accounted():
    noise, result = noise_of_one_round()
    assert has_variance(noise, 1.0)
    event = next(event for event in result.events if isinstance(event, NoiseAdded))
    assert event.noise_multiplier == pytest.approx(PRIVACY.noise_multiplier)


def test_when_a_site_drops_out_its_noise_is_missing_and_is_accounted_so():
    noise, result = noise_of_one_round(dropped=frozenset({2}))
    assert has_variance(noise, 4 / 5)
    assert not has_variance(noise, 1.0)
    event = next(event for event in result.events if isinstance(event, NoiseAdded))
    assert event.contributors == 4
    assert event.noise_multiplier == pytest.approx(PRIVACY.noise_multiplier * np.sqrt(4 / 5))
    assert result.survivors == ((0, 1, 3, 4),)


def test_noise_that_is_left_out_is_noticed(monkeypatch):
    monkeypatch.setattr(dp, "discrete_gaussian", lambda count, **_: np.zeros(count, dtype=np.int64))
    noise, _ = noise_of_one_round()
    assert not has_variance(noise, 1.0)


@pytest.mark.parametrize("wrong", [Fraction(5, 6), Fraction(5, 4), Fraction(5), Fraction(1, 5)])
def test_noise_of_another_rate_is_noticed(monkeypatch, wrong):
    right = dp.discrete_gaussian
    monkeypatch.setattr(
        dp,
        "discrete_gaussian",
        lambda count, *, variance, randomness: right(count, variance=variance * wrong, randomness=randomness),
    )
    noise, _ = noise_of_one_round()
    assert not has_variance(noise, 1.0)


def test_no_two_sites_or_rounds_share_their_noise():
    task = task_over(still_sites(features=50), privacy=PRIVACY, strategy=FedSGD(lr=1.0, divisor=1.0))
    first = task.simulate(clients=5, rounds=1, randomness=byte_source(1)).weights
    second = task.simulate(clients=5, rounds=1, randomness=byte_source(2)).weights
    os_drawn = task.simulate(clients=5, rounds=1).weights
    assert not np.any(first == second)
    assert not np.any(first == os_drawn)


def test_one_record_moves_a_sum_by_no_more_than_the_sensitivity(monkeypatch):
    # Noise held still, so that only the record differs.
    monkeypatch.setattr(dp, "discrete_gaussian", lambda count, **_: np.zeros(count, dtype=np.int64))
    parts = regression_sites(sites=3)
    outlier = replace(
        parts[1],
        features=np.vstack([parts[1].features, np.full((1, 4), 1e9)]),
        targets=np.append(parts[1].targets, -1e9),
    )
    sums = []
    for middle in (parts[1], outlier):
        task = task_over([parts[0], middle, parts[2]], privacy=PRIVACY, strategy=FedSGD(lr=1.0, divisor=1.0))
        sums.append(task.simulate(clients=3, rounds=1, randomness=byte_source(1)).weights)
    moved = np.ldexp(sums[1] - sums[0], PRIVACY.scale_bits)
    assert 0.5 * PRIVACY.clip * 2**PRIVACY.scale_bits < np.linalg.norm(moved)
    assert float((moved**2).sum()) <= PRIVACY.squared_sensitivity(dimension=5)


def test_epsilon_is_that_of_the_recorded_noise_and_grows_with_every_round():
    task = task_over(regression_sites(sites=6), privacy=PRIVACY)
    result = task.simulate(clients=6, rounds=4, dropouts={1: {4}}, randomness=byte_source(1))
    noise = [event for event in result.events if isinstance(event, NoiseAdded)]
    spent = [event.epsilon for event in result.events if isinstance(event, PrivacySpent)]
    assert [event.contributors for event in noise] == [6, 5, 6, 6]
    assert spent == [dp.epsilon_spent(noise[: k + 1], delta=1e-5) for k in range(4)]
    assert spent == sorted(set(spent))
    assert result.epsilon == spent[-1]
    assert result.delta == PRIVACY.delta


def test_the_budget_stops_the_run_before_it_is_exceeded():
    task = task_over(regression_sites(sites=5), privacy=PRIVACY)
    three = task.simulate(clients=5, rounds=3, randomness=byte_source(1))
    # The last round must be affordable even with the noise of four sites, the fewest with which a sum comes out.
    noise = [event for event in three.events if isinstance(event, NoiseAdded)]
    fewest = replace(noise[2], contributors=4, noise_multiplier=float(noise[2].noise_multiplier * np.sqrt(4 / 5)))
    needed = dp.epsilon_spent([*noise[:2], fewest], delta=1e-5)
    assert three.epsilon < needed
    enough = replace(task, privacy=replace(PRIVACY, max_epsilon=needed * (1 + 1e-9)))
    assert enough.simulate(clients=5, rounds=3, randomness=byte_source(1)).epsilon == pytest.approx(three.epsilon)
    short = replace(task, privacy=replace(PRIVACY, max_epsilon=needed * (1 - 1e-9)))
    with pytest.raises(BudgetExhausted, match="after 2 releases, another would exceed it"):
        short.simulate(clients=5, rounds=3, randomness=byte_source(1))


def test_a_sum_that_is_not_what_went_in_is_reported(monkeypatch):
    honest = transport.run_round

    def off_by_one(server, clients, **kwargs):
        released = honest(server, clients, **kwargs)
        return replace(released, total=released.total + np.uint64(1))

    monkeypatch.setattr(transport, "run_round", off_by_one)
    assert not task_over(regression_sites()).simulate(clients=3, rounds=1, randomness=byte_source(1)).sum_exact


def test_equal_randomness_gives_equal_runs_and_every_event_can_be_stored():
    task = task_over(regression_sites(), privacy=PRIVACY)
    first, again = (simulate(task, clients=3, rounds=2, randomness=byte_source(3)) for _ in range(2))
    assert np.array_equal(first.weights, again.weights)
    assert first.events == again.events
    assert [records.decode(records.encode(event)) for event in first.events] == list(first.events)


def test_bytes_are_counted():
    result = task_over(regression_sites(sites=5)).simulate(
        clients=5, rounds=2, dropouts={1: {0}}, randomness=byte_source(1)
    )
    assert result.plain_bytes == (5 + 4) * 5 * 4
    assert result.upload_bytes > (5 + 4) * 5 * 8
    assert result.seconds > 0.0


def test_a_round_with_too_few_sites_left_reveals_nothing():
    with pytest.raises(ProtocolError):
        task_over(regression_sites(sites=5)).simulate(
            clients=5, rounds=1, dropouts={0: {0, 1}}, randomness=byte_source(1)
        )


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"clients": 2, "rounds": 1}, "expected 3 sites or more for a secure sum, got 2"),
        ({"clients": 0, "rounds": 1}, "expected 1 client or more and 1 round or more, got 0 and 1"),
        ({"clients": 3, "rounds": 0}, "got 3 and 0"),
        ({"clients": 3, "rounds": 1, "cohort": 4}, "expected a cohort of 1 to 3 clients, got 4"),
        ({"clients": 3, "rounds": 1, "engine": "fast"}, "expected the engine 'auto', 'messages', 'sums' or 'ray'"),
        ({"clients": 3, "rounds": 1, "seed": -1}, "expected a seed of 0 or more"),
        ({"clients": 3, "rounds": 1, "dropouts": {1: {0}}}, r"got sites \[0\] in round 1"),
        ({"clients": 3, "rounds": 1, "dropouts": {0: {3}}}, r"got sites \[3\] in round 0"),
    ],
)
def test_a_plan_that_cannot_be_run_is_refused(plan, message):
    with pytest.raises(InputError, match=message):
        task_over(regression_sites()).simulate(**plan, randomness=byte_source(1))


def test_noise_too_small_for_the_theorem_is_refused():
    privacy = Privacy(clip=1.0, noise_multiplier=1e-7, delta=1e-5, unit=Unit.RECORD)
    with pytest.raises(InputError, match="a variance of 1/4 or more each"):
        task_over(regression_sites(), privacy=privacy).simulate(clients=3, rounds=1, randomness=byte_source(1))
