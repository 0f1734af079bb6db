import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counts import counts
from mibao.errors import InputError
from mibao.he.minimax import exchange
from mibao.he.sign import compose_sign, odd_products


@settings(max_examples=counts(short=6, long=200), deadline=None)
@given(separation=st.floats(0.004, 0.5), max_error=st.sampled_from([0.1, 0.01, 1e-3, 1e-6]))
def test_beyond_the_separation_the_composition_is_the_sign_within_its_error(separation, max_error):
    made = compose_sign(separation=separation, max_error=max_error)
    points = np.linspace(separation, 1.0, 20_001)
    assert np.max(np.abs(made(points) - 1.0)) <= made.max_error * 1.001 <= max_error * 1.001
    assert np.allclose(made(-points), -made(points), rtol=0, atol=1e-12)


def test_nearer_to_zero_it_stays_between_the_signs():
    made = compose_sign(separation=0.01, max_error=1e-3)
    between = made(np.linspace(-0.01, 0.01, 10_001))
    assert np.max(np.abs(between)) <= 1.0 + made.max_error
    assert made(np.zeros(1))[0] == 0.0


def test_noise_on_the_way_is_not_amplified_past_the_error():
    made = compose_sign(separation=0.01, max_error=1e-3, noise=1e-4)
    rng = np.random.default_rng(0)
    values = np.linspace(0.01, 1.0, 5_000)
    for index, stage in enumerate(made.stages):
        values = values + (rng.uniform(-1e-4, 1e-4, size=values.shape) if index else 0.0)
        values = np.polynomial.chebyshev.chebval(values / stage.high, stage.coefficients)
    assert np.max(np.abs(values - 1.0)) <= made.max_error * 1.001


@pytest.mark.parametrize(
    ("separation", "max_error", "degrees"),
    [(0.5, 0.1, (3,)), (0.1, 0.01, (7, 7)), (0.01, 1e-3, (31, 31))],
)
def test_known_best_compositions(separation, max_error, degrees):
    made = compose_sign(separation=separation, max_error=max_error)
    assert tuple(len(stage.coefficients) - 1 for stage in made.stages) == degrees


def test_no_composition_of_less_depth_or_fewer_products_does_it():
    made = compose_sign(separation=0.03, max_error=1e-3)
    assert (made.depth, made.products) == (9, 12)
    for degrees in itertools.chain(itertools.product([3, 7, 15, 31], repeat=2), itertools.product([3, 7], repeat=3)):
        depth = sum((degree + 1).bit_length() - 1 for degree in degrees)
        if (depth, sum(odd_products(degree) for degree in degrees)) < (made.depth, made.products):
            low, high = 0.03, 1.0
            for degree in degrees:
                error = _smallest_error(degree, low / high)
                low, high = 1.0 - error, 1.0 + error
            assert error > 1e-3


def _smallest_error(degree, low):
    fitted = exchange(np.ones_like, terms=range(1, degree + 1, 2), low=low, length=degree + 1)
    return np.max(np.abs(np.polynomial.chebyshev.chebval(np.linspace(low, 1.0, 2_001), fitted) - 1.0))


def test_products_are_counted_as_by_hand():
    # 3: T_2, join. 7: T_2, T_3, T_4, join. 15: T_2, T_3, T_4, T_8, three joins. 31: seven and three.
    assert [odd_products(degree) for degree in (3, 7, 15, 31)] == [2, 4, 7, 10]


@pytest.mark.parametrize(
    ("separation", "max_error", "noise"), [(0.0, 0.1, 0), (1.0, 0.1, 0), (0.1, 0.0, 0), (0.1, 1.0, 0), (0.1, 0.1, 0.5)]
)
def test_figures_outside_their_ranges_are_refused(separation, max_error, noise):
    with pytest.raises(InputError, match=r"expected a separation and a max_error between 0 and 1, and noise under 0.1"):
        compose_sign(separation=separation, max_error=max_error, noise=float(noise))


def test_what_takes_too_much_depth_is_refused():
    with pytest.raises(InputError, match="takes a depth over 24; allow a larger separation or error"):
        compose_sign(separation=1e-9, max_error=1e-7)
