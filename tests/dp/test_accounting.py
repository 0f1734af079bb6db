import itertools
import math
from dataclasses import replace
from fractions import Fraction

import dp_accounting
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mibao.dp import concentrated_rho, epsilon_spent, noise_added, require_affordable, rho_of, share_variance
from mibao.dp.accounting import sum_distance
from mibao.errors import BudgetExhausted, InputError
from mibao.events import RoundTrained
from mibao.types import Mechanism, RandomId, Strategy
from vectors_io import vectors

VECTORS = vectors("dp", "sum_of_discrete_gaussians")
DELTA = 1e-5


def release(*, contributors=5, invited=5, multiplier=7.5):
    share = share_variance(squared_sensitivity=10**12, noise_multiplier=multiplier, contributors=invited)
    return noise_added(
        session=RandomId(bytes(16)),
        round_number=0,
        contributors=contributors,
        variance_each=share,
        squared_sensitivity=10**12,
        dimension=31,
    )


def sum_pmf(variance, contributors, reach=60):
    """The distribution of a sum of discrete Gaussians on -reach..reach, by convolving the definition."""
    values = np.arange(-reach, reach + 1)
    one = np.exp(-(values.astype(np.longdouble) ** 2) / (2 * np.longdouble(variance)))
    one /= one.sum()
    total = one
    for _ in range(contributors - 1):
        total = np.convolve(total, one)
    return total


def renyi(pmf, shift, alpha):
    """D_alpha(Z || Z + shift), by its definition; what lies outside weighs less than the float error."""
    if shift == 0:
        return 0.0
    shift = abs(shift)
    p, q = pmf[shift:], pmf[:-shift]
    common = (p > 1e-300) & (q > 1e-300)
    return float(np.log((p[common] ** alpha * q[common] ** (1 - alpha)).sum()) / (alpha - 1))


@pytest.mark.parametrize("contributors", [1, 2, 3, 6])
@pytest.mark.parametrize("variance", [0.25, 0.4, 1.0, 3.0])
def test_the_bound_holds_against_the_renyi_divergence_itself(variance, contributors):
    pmf = sum_pmf(variance, contributors)
    for alpha, shift in itertools.product((1.05, 1.5, 2.0, 4.0, 8.0), (1, 2, 3)):
        rho = concentrated_rho(
            l2_sensitivity=float(shift), variance_each=variance, contributors=contributors, dimension=1
        )
        assert renyi(pmf, shift, alpha) <= alpha * rho + 1e-9


@pytest.mark.parametrize("shifts", [(1, 0, 0), (1, 1, 0), (2, 1, 1)])
def test_the_bound_holds_in_several_dimensions(shifts):
    # The coordinates of the noise are independent: divergences add.
    for variance, contributors in ((0.25, 3), (0.5, 4), (2.0, 5)):
        pmf = sum_pmf(variance, contributors)
        rho = concentrated_rho(
            l2_sensitivity=math.hypot(*shifts), variance_each=variance, contributors=contributors, dimension=3
        )
        for alpha in (1.1, 2.0, 5.0):
            assert sum(renyi(pmf, shift, alpha) for shift in shifts) <= alpha * rho + 1e-9


def test_without_tau_the_bound_would_be_broken_where_noise_is_small():
    variance, contributors = 0.25, 2
    plain = 1.0 / (2 * contributors * variance)
    worst = max(renyi(sum_pmf(variance, contributors), 1, alpha) - alpha * plain for alpha in (1.05, 2.0, 4.0))
    assert worst > 1e-3
    # And where it is not small, tau is nothing.
    assert sum_distance(variance_each=16.0, contributors=5) < 1e-60


def test_the_privacy_loss_on_a_small_domain_stays_within_epsilon_and_delta():
    variance, contributors, rounds = 2.0, 4, 3
    pmf = sum_pmf(variance, contributors).astype(np.float64)
    rho = concentrated_rho(l2_sensitivity=1.0, variance_each=variance, contributors=contributors, dimension=1)
    epsilon = dp_epsilon(rounds * rho)
    # Three rounds, the record shifting each sum by one: the joint distribution on a box, by definition.
    core = pmf[len(pmf) // 2 - 25 : len(pmf) // 2 + 26]
    p, q = core[1:], core[:-1]
    joint_p = np.multiply.outer(np.multiply.outer(p, p), p)
    joint_q = np.multiply.outer(np.multiply.outer(q, q), q)
    assert np.maximum(joint_p - math.exp(epsilon) * joint_q, 0.0).sum() <= DELTA
    # The check has teeth: at half that epsilon the loss is far over delta.
    assert np.maximum(joint_p - math.exp(epsilon / 2) * joint_q, 0.0).sum() > 10 * DELTA


def dp_epsilon(rho):
    accountant = dp_accounting.rdp.RdpAccountant()
    accountant.compose(dp_accounting.ZCDpEvent(rho))
    return accountant.get_epsilon(DELTA)


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: f"n{case['contributors']}")
def test_known_answers_of_the_theorem(case):
    tau = sum_distance(variance_each=case["variance_each"], contributors=case["contributors"])
    rho = concentrated_rho(
        l2_sensitivity=case["l2_sensitivity"],
        variance_each=case["variance_each"],
        contributors=case["contributors"],
        dimension=case["dimension"],
    )
    assert tau == pytest.approx(float(case["tau"]), rel=1e-12, abs=1e-300)
    assert rho == pytest.approx(float(case["rho"]), rel=2e-12)
    assert rho >= float(case["rho"])  # rounded up


def test_epsilon_is_what_dp_accounting_says_when_called_directly():
    events = [release()] * 39 + [release(contributors=4)]
    total = (39 + 5 / 4) / (2 * 7.5**2)
    assert epsilon_spent(events, delta=DELTA) == pytest.approx(dp_epsilon(total), rel=1e-9)
    direct = dp_accounting.rdp.RdpAccountant()
    direct.compose(dp_accounting.GaussianDpEvent(7.5), 39)
    direct.compose(dp_accounting.GaussianDpEvent(7.5 * math.sqrt(4 / 5)))
    assert epsilon_spent(events, delta=DELTA) == pytest.approx(direct.get_epsilon(DELTA), rel=1e-9)


def test_no_release_costs_nothing():
    assert epsilon_spent([], delta=DELTA) == 0.0


@given(st.integers(2, 5), st.floats(1.0, 50.0))
def test_a_contributor_less_costs_its_share_of_the_noise(contributors, multiplier):
    full = rho_of(release(contributors=contributors, multiplier=multiplier))
    fewer = rho_of(release(contributors=contributors - 1, multiplier=multiplier))
    assert fewer / full == pytest.approx(contributors / (contributors - 1), rel=1e-9)


def test_what_colluders_know_of_their_noise_protects_nobody():
    assert rho_of(release(), colluders=2) == pytest.approx(rho_of(release(contributors=3)), rel=1e-9)
    assert epsilon_spent([release()], delta=DELTA, colluders=1) > epsilon_spent([release()], delta=DELTA)
    with pytest.raises(InputError, match="expected under 5 colluders, got 5"):
        rho_of(release(), colluders=5)


def test_the_budget_stops_before_the_release_that_would_exceed_it():
    spent = [release()] * 10
    ten = epsilon_spent(spent, delta=DELTA)
    eleven = epsilon_spent([*spent, release()], delta=DELTA)
    require_affordable(spent, release(), epsilon=eleven, delta=DELTA)
    with pytest.raises(BudgetExhausted, match=f"{ten:.4g} spent of .* promised .* after 10 releases"):
        require_affordable(spent, release(), epsilon=eleven * (1 - 1e-9), delta=DELTA)


def test_an_event_that_is_not_understood_is_never_free():
    trained = RoundTrained(session=RandomId(bytes(16)), strategy=Strategy.FEDSGD, round=0, invited=5, survivors=5)
    with pytest.raises(InputError, match="no privacy bound is known for a round-trained event"):
        epsilon_spent([trained], delta=DELTA)
    with pytest.raises(InputError, match="no privacy bound is known for a noise-added event"):
        epsilon_spent([replace(release(), mechanism=Mechanism.NONE)], delta=DELTA)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan])
def test_a_delta_that_promises_nothing_is_refused(delta):
    with pytest.raises(InputError, match="expected a delta between 0 and 1"):
        epsilon_spent([release()], delta=delta)


@pytest.mark.parametrize(("variance", "contributors"), [(0.2499, 5), (1.0, 0), (math.inf, 5), (math.nan, 5)])
def test_noise_that_the_theorem_does_not_cover_is_refused(variance, contributors):
    with pytest.raises(InputError, match="at least one contributor and a variance of 1/4 or more"):
        concentrated_rho(l2_sensitivity=1.0, variance_each=variance, contributors=contributors, dimension=1)


@pytest.mark.parametrize(("sensitivity", "dimension"), [(0.0, 1), (math.inf, 1), (math.nan, 1), (1.0, 0)])
def test_a_sensitivity_or_dimension_of_nothing_is_refused(sensitivity, dimension):
    with pytest.raises(InputError, match="expected a positive sensitivity and dimension"):
        concentrated_rho(l2_sensitivity=sensitivity, variance_each=1.0, contributors=2, dimension=dimension)


def test_the_share_in_the_event_is_the_share_that_was_drawn():
    event = release(contributors=4)
    each = (event.noise_multiplier * event.sensitivity) ** 2 / event.contributors
    assert each == pytest.approx(float(Fraction(7.5) ** 2 * 10**12 / 5), rel=1e-12)


@pytest.mark.parametrize("epsilon", [math.nan, -1.0])
def test_a_budget_that_is_no_number_of_0_or_more_is_refused(epsilon):
    with pytest.raises(InputError, match="expected a budget of 0 or more"):
        require_affordable([], release(), epsilon=epsilon, delta=DELTA)
