import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counts import counts
from mibao.errors import InputError
from mibao.he.minimax import activation_polynomial, depth_of, minimax
from mibao.he.network import Activation, Basis, Function
from mibao.he.reference import apply, polynomial_values

_SMOOTH = [Function.GELU, Function.SILU, Function.SIGMOID, Function.TANH]


def _error(function, polynomial, points):
    exact = apply(Activation(function=function), [points[:, None]])[:, 0]
    return exact - polynomial_values(polynomial, points)


def _alternations(errors, largest):
    """Neighbouring extrema of opposite sign that come within a thousandth of the largest."""
    signs = [math.copysign(1, value) for value in errors if abs(value) >= 0.999 * largest]
    return 1 + sum(one != other for one, other in pairwise(signs))


@settings(max_examples=counts(short=15, long=400), deadline=None)
@given(
    function=st.sampled_from(list(Function)),
    low=st.floats(-12, -0.5),
    high=st.floats(0.5, 12),
    degree=st.integers(1, 12),
)
def test_the_error_takes_its_largest_size_once_more_often_than_there_are_coefficients(function, low, high, degree):
    fitted = activation_polynomial(function, low=low, high=high, degree=degree)
    errors = _error(function, fitted, np.union1d(np.linspace(low, high, 40_001), 0.0))
    assert np.max(np.abs(errors)) <= fitted.error * (1 + 1e-3)
    assert fitted.error <= 1e-12 or _alternations(errors, fitted.error) >= degree + 2


@pytest.mark.parametrize("function", list(Function))
@pytest.mark.parametrize("degree", [2, 3, 7, 15, 16, 31])
def test_around_zero_half_of_the_coefficients_are_zeros_and_the_error_still_alternates(function, degree):
    fitted = activation_polynomial(function, low=-4.0, high=4.0, degree=degree)
    one_linear_and_even = function in (Function.RELU, Function.GELU, Function.SILU)
    absent = fitted.coefficients[3::2] if one_linear_and_even else fitted.coefficients[2::2]
    assert not absent.any()
    errors = _error(function, fitted, np.linspace(-4.0, 4.0, 40_001))
    assert fitted.error <= 1e-12 or _alternations(errors, fitted.error) >= degree + 2


@pytest.mark.parametrize("function", _SMOOTH)
def test_smooth_functions_come_within_rounding_at_a_high_degree(function):
    fitted = activation_polynomial(function, low=-3.0, high=3.0, degree=63)
    assert fitted.error < 1e-13


@pytest.mark.parametrize(
    ("curve", "degree", "error"),
    [
        (np.abs, 2, 1 / 8),  # x**2 + 1/8
        (np.abs, 3, 1 / 8),
        (lambda x: x**3, 2, 1 / 4),  # Chebyshev: 2**(1 - n)
        (lambda x: x**8, 7, 2.0**-7),
        (lambda x: 1 / (x - 2), 5, (2 - math.sqrt(3)) ** 5 / 3),  # Chebyshev 1859: (a - sqrt(a**2 - 1))**n / (a**2 - 1)
        (lambda x: 2 * x - 1, 4, 0.0),
        (np.ones_like, 1, 0.0),
    ],
)
def test_known_best_errors_on_minus_one_to_one(curve, degree, error):
    assert minimax(curve, low=-1.0, high=1.0, degree=degree).error == pytest.approx(error, rel=1e-6, abs=1e-14)


def test_bernsteins_constant_is_met_for_the_absolute_value():
    fitted = minimax(np.abs, low=-1.0, high=1.0, degree=40)
    assert 40 * fitted.error == pytest.approx(0.2801694990, rel=1e-3)


def test_a_kink_inside_a_lopsided_interval_is_met():
    wide = activation_polynomial(Function.RELU, low=-8.0, high=8.0, degree=15)
    lopsided = activation_polynomial(Function.RELU, low=-3.0, high=8.0, degree=15)
    assert lopsided.error < wide.error
    assert lopsided.basis is Basis.CHEBYSHEV and (lopsided.low, lopsided.high) == (-3.0, 8.0)


@pytest.mark.parametrize(("degree", "depth"), [(1, 1), (2, 2), (3, 2), (4, 3), (7, 3), (8, 4), (31, 5)])
def test_depth_counts_products_in_a_row(degree, depth):
    assert depth_of(degree) == depth


@pytest.mark.parametrize(
    ("low", "high", "degree", "message"),
    [
        (1.0, 1.0, 3, "expected a finite interval with low < high, got \\[1, 1\\]"),
        (2.0, 1.0, 3, "expected a finite interval with low < high, got \\[2, 1\\]"),
        (0.0, math.inf, 3, "expected a finite interval"),
        (math.nan, 1.0, 3, "expected a finite interval"),
        (0.0, 1.0, 0, "expected a degree of 1 to 63, got 0"),
        (0.0, 1.0, 64, "expected a degree of 1 to 63, got 64"),
    ],
)
def test_intervals_and_degrees_outside_their_ranges_are_refused(low, high, degree, message):
    with pytest.raises(InputError, match=message):
        minimax(np.tanh, low=low, high=high, degree=degree)


@pytest.mark.parametrize("curve", [lambda x: np.where(x > 0.5, np.nan, x), lambda x: np.full_like(x, np.inf)])
def test_a_function_without_one_finite_value_a_point_is_refused(curve):
    with pytest.raises(InputError, match="expected a function with one finite value at each point"):
        minimax(curve, low=-1.0, high=1.0, degree=3)
