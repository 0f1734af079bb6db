from dataclasses import replace

import dp_accounting
import numpy as np
import pytest
from dp_accounting import pld

from counts import counts
from federated_cases import byte_source, regression_sites
from mibao import dp
from mibao.errors import BudgetExhausted, InputError, ProtocolError
from mibao.events import NoiseAdded, PrivacySpent
from mibao.federated import (
    AdaptiveClipping,
    FedAvg,
    FedSGD,
    LinearRegression,
    NoiseSource,
    Privacy,
    Records,
    Scaffold,
    Task,
    Unit,
    cohorts,
)

CENTRAL = Privacy(clip=1.0, noise_multiplier=1.0, delta=1e-5, noise=NoiseSource.CENTRAL)
FEATURES = 1500


def still(number):
    """A site whose update is zero: a round's sum is its noise and nothing else."""
    return Records(features=np.zeros((1, FEATURES)), targets=np.zeros(1))


def task(privacy=CENTRAL, *, data=still, features=FEATURES, **parts):
    return Task(model=LinearRegression(features=features), data=data, strategy=FedAvg(lr=1.0), privacy=privacy, **parts)


def released_noise(privacy, *, seed=1, **plan):
    """The noise of one released mean in units of what it is promised to be, and the run."""
    result = task(privacy).simulate(rounds=1, randomness=byte_source(seed), **plan)
    size = plan.get("cohort") or plan["clients"]
    sensitivity = np.sqrt(privacy.squared_sensitivity(dimension=FEATURES + 1)) * 2.0**-privacy.scale_bits
    return result.weights * size / (privacy.noise_multiplier * sensitivity), result


def has_variance(noise, share=1.0):
    """Whether the empirical variance is ``share`` within 4.5 standard errors."""
    return abs(np.var(noise) / share - 1.0) < 4.5 * np.sqrt(2.0 / noise.size)


@pytest.mark.parametrize("source", list(NoiseSource))
def test_a_released_sum_of_updates_carries_the_noise_that_is_accounted(source):
    noise, result = released_noise(replace(CENTRAL, noise=source), clients=8, engine="sums")
    assert has_variance(noise)
    (event,) = [event for event in result.events if isinstance(event, NoiseAdded)]
    assert event.noise_multiplier == pytest.approx(1.0)


def test_noise_that_is_left_out_or_of_another_rate_is_noticed(monkeypatch):
    right = dp.gaussian_on_grid
    for wrong in (0.0, 0.8, 1.25):
        monkeypatch.setattr(
            dp, "gaussian_on_grid", lambda count, w=wrong, **how: np.rint(w * right(count, **how)).astype(np.int64)
        )
        assert not has_variance(released_noise(CENTRAL, clients=8)[0])


def epsilon_by_the_library(rounds, *, multiplier, rate):
    event = dp_accounting.GaussianDpEvent(multiplier)
    if rate < 1.0:
        event = dp_accounting.PoissonSampledDpEvent(rate, event)
    accountant = pld.PLDAccountant()
    accountant.compose(event, rounds)
    return accountant.get_epsilon(1e-5)


@pytest.mark.parametrize("cohort", [5, 20])
def test_both_epsilons_are_those_of_dp_accounting_called_directly(cohort):
    result = task(features=3, data=lambda n: Records(features=np.ones((2, 3)), targets=np.ones(2))).simulate(
        clients=20, cohort=cohort, rounds=6, randomness=byte_source(3), engine="sums"
    )
    rounds = sum(isinstance(event, NoiseAdded) for event in result.events)
    assert rounds == 6
    assert result.epsilon == pytest.approx(epsilon_by_the_library(6, multiplier=1.0, rate=cohort / 20), rel=2e-3)
    assert result.epsilon_against_witness == pytest.approx(
        epsilon_by_the_library(6, multiplier=1.0, rate=1.0), rel=2e-3
    )
    assert result.epsilon <= result.epsilon_against_witness


def sizes_fit(sizes, *, clients, rate):
    """Whether numbers of clients are those of independent coins: their mean and their spread."""
    mean, variance, count = clients * rate, clients * rate * (1 - rate), len(sizes)
    return abs(np.mean(sizes) - mean) < 4.5 * np.sqrt(variance / count) and (
        abs(np.var(sizes) / variance - 1.0) < 4.5 * np.sqrt(2.0 / count)
    )


def test_private_cohorts_are_drawn_by_chance_one_client_at_a_time_and_a_wrong_rate_is_noticed():
    count = counts(short=2000, long=20_000)
    draw = byte_source(5)
    drawn = [cohorts.draw_by_chance(50, size=10, randomness=draw) for _ in range(count)]
    sizes = [len(each) for each in drawn]
    assert sizes_fit(sizes, clients=50, rate=0.2)
    times = np.bincount(np.concatenate(drawn), minlength=50)
    assert np.abs(times - count * 0.2).max() < 5.5 * np.sqrt(count * 0.16)
    assert not sizes_fit([len(cohorts.draw_by_chance(50, size=11, randomness=draw)) for _ in range(count)],
                         clients=50, rate=0.2)  # fmt: skip
    assert not sizes_fit([10] * count, clients=50, rate=0.2)  # cohorts of one size are not what the accountant means
    assert cohorts.draw_by_chance(7, size=7, randomness=draw) == tuple(range(7))


def test_a_run_takes_its_private_cohorts_from_there():
    result = task(features=2, data=lambda n: Records(features=np.ones((1, 2)), targets=np.ones(1))).simulate(
        clients=40, cohort=10, rounds=120, randomness=byte_source(2)
    )
    assert sizes_fit([report.invited for report in result.reports], clients=40, rate=0.25)


def test_a_client_however_large_moves_a_sum_by_no_more_than_the_sensitivity(monkeypatch):
    monkeypatch.setattr(dp, "gaussian_on_grid", lambda count, **_: np.zeros(count, dtype=np.int64))
    parts = regression_sites(sites=5)
    huge = Records(features=np.full((3, 4), 1e6), targets=np.full(3, -1e9))
    odd = Records(features=np.full((3, 4), 1e200), targets=np.full(3, 1e200))
    means = [
        task(data=[*parts[:4], last].__getitem__, features=4).simulate(clients=5, rounds=1, engine="sums").weights
        for last in (huge, odd)
    ]
    without = task(data=parts[:4].__getitem__, features=4).simulate(clients=4, rounds=1, engine="sums").weights
    limit = CENTRAL.squared_sensitivity(dimension=5)
    for mean in means:
        moved = np.ldexp(mean * 5 - without * 4, CENTRAL.scale_bits)
        assert float((moved**2).sum()) <= limit * (1 + 1e-9)
    # What is not finite counts as zeros: a refusal would say something about that client.
    assert means[1] * 5 == pytest.approx(without * 4)


def test_a_budget_ends_a_run_before_it_is_exceeded():
    plan = {"clients": 20, "cohort": 5, "randomness": byte_source(4)}
    small = {"features": 2, "data": lambda n: Records(features=np.ones((1, 2)), targets=np.ones(1))}
    needed = epsilon_by_the_library(4, multiplier=1.0, rate=0.25)
    short = replace(CENTRAL, max_epsilon=needed * 1.01)
    result = task(short, **small).simulate(rounds=9, stop_at_budget=True, **plan)
    assert result.rounds == 4
    assert "another would exceed it" in result.stopped
    assert result.epsilon <= short.max_epsilon
    assert result.epsilon == [event.epsilon for event in result.events if isinstance(event, PrivacySpent)][-1]
    with pytest.raises(BudgetExhausted, match="after 4 releases"):
        task(short, **small).simulate(rounds=9, **plan)


def test_cohorts_that_are_too_small_are_given_up_and_charged():
    small = {"features": 2, "data": lambda n: Records(features=np.ones((1, 2)), targets=np.ones(1))}
    result = task(**small).simulate(clients=12, cohort=3, rounds=30, randomness=byte_source(6), engine="sums")
    assert 0 < len(result.abandoned) < 30
    assert all("expected 3 sites or more in the sum" in why for why in result.abandoned.values())
    assert sum(isinstance(event, NoiseAdded) for event in result.events) == 30
    assert result.epsilon == pytest.approx(epsilon_by_the_library(30, multiplier=1.0, rate=0.25), rel=2e-3)


def test_the_clip_follows_the_clients_norms_within_the_same_epsilon():
    def data(number):
        return Records(features=np.ones((1, 2)), targets=np.full(1, 3.0))

    adaptive = replace(CENTRAL, clip=0.05, adaptive=AdaptiveClipping(quantile=0.5, lr=0.5, count_noise=2.0))
    private = task(adaptive, features=2, data=data, aggregation="plain")
    result = private.simulate(clients=30, rounds=25, randomness=byte_source(1))
    fixed = task(replace(CENTRAL, clip=0.05), features=2, data=data, aggregation="plain")
    other = fixed.simulate(clients=30, rounds=25, randomness=byte_source(1))
    scale = [event.sensitivity for event in result.events if isinstance(event, NoiseAdded)]
    assert scale[-1] > 4 * scale[0]
    assert result.epsilon == pytest.approx(other.epsilon)
    assert adaptive.update_multiplier() ** -2 + (2 * 2.0) ** -2 == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: replace(CENTRAL, noise=NoiseSource.DISTRIBUTED, adaptive=AdaptiveClipping()), "needs clients"),
        (lambda: replace(CENTRAL, noise_multiplier=9.0, adaptive=AdaptiveClipping(count_noise=4.0)), "count noise"),
        (lambda: AdaptiveClipping(quantile=1.0), "expected a quantile"),
        (lambda: task(replace(CENTRAL, unit=Unit.RECORD)), "record-level privacy needs FedSGD"),
        (lambda: task(replace(CENTRAL, noise=NoiseSource.DISTRIBUTED), aggregation="plain"), "distributed noise needs"),
        (lambda: replace(task(None), strategy=FedSGD(lr=1.0, divisor=1.0), privacy=CENTRAL), "client-level privacy"),
        (lambda: replace(task(None), strategy=Scaffold(lr=1.0, clients=3), privacy=CENTRAL), "client-level privacy"),
        (lambda: task().simulate(clients=5, rounds=1, engine="messages"), "the engine 'messages' runs secure sums"),
    ],
)
def test_promises_that_do_not_hold_together_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_central_and_distributed_noise_together_have_no_account():
    events = [
        replace(CENTRAL, noise=source).noise_added(
            session_id=dp_session(), round_number=0, contributors=3, sites=3, dimension=2
        )
        for source in NoiseSource
    ]
    with pytest.raises(InputError, match="central and distributed noise together"):
        dp.epsilon_spent(events, delta=1e-5)
    with pytest.raises(InputError, match="no colluders"):
        dp.epsilon_spent([e for e in events if e.contributors == 1], delta=1e-5, colluders=1)


def dp_session():
    from federated_cases import SESSION

    return SESSION


def diverging(number):
    if number == 1:
        return Records(features=np.full((2, 4), 1e200), targets=np.full(2, 1e200))
    if number == 2:
        return np.full((2, 4), np.nan), np.zeros(2)
    if number == 3:
        return np.zeros((2, 7)), np.zeros(2)
    if number == 4:
        return np.zeros((0, 4)), np.zeros(0)
    if number == 5:
        return "records"
    return regression_sites(sites=9)[number]


def test_a_site_that_fails_is_refused_by_name_and_the_round_goes_on():
    failing = replace(task(None, data=diverging, features=4, aggregation="plain"), strategy=FedAvg(lr=0.1))
    result = failing.simulate(clients=9, rounds=2)
    assert result.survivors == ((0, 6, 7, 8),) * 2
    why = {each.site: each.why for each in result.refused if each.round == 1}
    assert sorted(why) == [1, 2, 3, 4, 5]
    assert "not finite or too large: its training diverged" in why[1]
    assert "expected finite values" in why[2]
    assert "expected records of 4 features, got 7" in why[3]
    assert "at least one record, got none" in why[4]
    assert "expected Records, or a pair" in why[5]


@pytest.mark.parametrize("engine", ["sums", "messages"])
def test_a_secure_sum_without_enough_sites_does_not_come_out_and_says_who_was_missing(engine):
    failing = replace(task(None, data=diverging, features=4), strategy=FedAvg(lr=0.1))
    with pytest.raises(ProtocolError, match="site 2: records: expected finite values"):
        failing.simulate(clients=9, rounds=2, engine=engine)


def test_with_messages_too_the_round_goes_on_without_a_site_that_fails():
    def data(number):
        return diverging(number if number == 2 else 0)

    result = replace(task(None, data=data, features=4), strategy=FedAvg(lr=0.1)).simulate(clients=6, rounds=2)
    assert result.sum_exact is True
    assert result.survivors == ((0, 1, 3, 4, 5),) * 2
    assert [each.site for each in result.refused] == [2, 2]
