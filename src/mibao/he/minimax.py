"""The polynomial of a given degree that stays closest to a function on an interval, and how close that is.

Ciphertexts take additions and products, so an activation becomes a polynomial. The best one equioscillates: its error
takes its largest size, with alternating signs, once more often than it has free coefficients. Remez exchange finds it.
Polynomials stand in the Chebyshev basis of their interval, which stays well conditioned where powers do not.

Source: Trefethen, Approximation Theory and Approximation Practice, 2013, chapter 10 (equioscillation, exchange).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Float64
from numpy import ndarray
from numpy.polynomial import chebyshev

from mibao.errors import InputError
from mibao.he.network import Activation, Basis, Function, Polynomial
from mibao.he.reference import apply

MAX_DEGREE = 63
_GRID_POINTS = 32  # between two extrema of the error, on average
_CHECK_POINTS = 20_001
_MAX_EXCHANGES = 60
_LEVELLED = 1e-7  # largest and smallest extremum differ by less: the exchange is over
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0
_GOLDEN_STEPS = 25
_STRUCTURE_TOLERANCE = 1e-12

_Curve = Callable[[Float64[ndarray, "count"]], Float64[ndarray, "count"]]


def minimax(function: _Curve, *, low: float, high: float, degree: int) -> Polynomial:
    """The best polynomial of at most ``degree`` for ``function`` on ``[low, high]``.

    On an interval around zero, what is odd or even about the function stays exactly so: ReLU, GELU and SiLU are
    ``x / 2`` and an even part, a sigmoid is 1/2 and an odd part, and half of the coefficients are zeros.

    Args:
        function: Takes and returns an array of shape (count,), float64; continuous on the interval.

    Returns:
        Its coefficients in the Chebyshev basis of the interval; ``error`` is the largest of 20,001 points.

    Raises:
        InputError: no such interval, a degree outside 1 to 63, or a function that is not finite there.
    """
    check_interval(low, high)
    if not 1 <= degree <= MAX_DEGREE:
        raise InputError(f"minimax: expected a degree of 1 to {MAX_DEGREE}, got {degree}")

    def on_unit(points: Float64[ndarray, "count"]) -> Float64[ndarray, "count"]:
        return np.asarray(function(_from_unit(points, low, high)), dtype=np.float64)

    grid = np.linspace(-1.0, 1.0, _CHECK_POINTS)
    exact = on_unit(grid)
    if exact.shape != grid.shape or not np.all(np.isfinite(exact)):
        raise InputError("minimax: expected a function with one finite value at each point of the interval")
    coefficients = _best(on_unit, degree, symmetric=math.isclose(-low, high, rel_tol=1e-12))
    worst = float(np.max(np.abs(chebyshev.chebval(grid, coefficients) - exact)))
    return Polynomial(coefficients=coefficients, basis=Basis.CHEBYSHEV, low=float(low), high=float(high), error=worst)


def activation_polynomial(function: Function, *, low: float, high: float, degree: int) -> Polynomial:
    """The best polynomial for an activation that has a name. Raises as :func:`minimax`."""
    layer = Activation(function=function)

    def curve(points: Float64[ndarray, "count"]) -> Float64[ndarray, "count"]:
        return apply(layer, [points[:, None]])[:, 0]

    return minimax(curve, low=low, high=high, degree=degree)


def depth_of(degree: int) -> int:
    """Products in a row that a polynomial of ``degree`` takes, those by its coefficients among them."""
    return math.ceil(math.log2(degree + 1))


def check_interval(low: float, high: float) -> None:
    """Refuse what is no interval. Raises ``InputError``."""
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"minimax: expected a finite interval with low < high, got [{low:g}, {high:g}]")


def _best(on_unit: _Curve, degree: int, *, symmetric: bool) -> Float64[ndarray, "terms"]:
    """Coefficients for a function on [-1, 1]; by symmetry from one half of it where the function allows."""
    if not symmetric:
        return exchange(on_unit, terms=range(degree + 1), low=-1.0, length=degree + 1)
    points = np.cos(np.linspace(0.0, math.pi / 2, 257))[:-1]
    right, left, middle = on_unit(points), on_unit(-points), float(on_unit(np.zeros(1))[0])
    tolerance = _STRUCTURE_TOLERANCE * (1.0 + float(np.max(np.abs(right))) + float(np.max(np.abs(left))))
    odd, even = (right - left) / 2, (right + left) / 2
    if np.max(np.abs(odd - odd[0] * points)) <= tolerance:
        slope, level, terms = float(odd[0]), 0.0, range(0, degree + 1, 2)
    elif np.max(np.abs(even - middle)) <= tolerance:
        slope, level, terms = 0.0, middle, range(1, degree + 1, 2)
    else:
        return exchange(on_unit, terms=range(degree + 1), low=-1.0, length=degree + 1)
    found = exchange(lambda x: on_unit(x) - slope * x - level, terms=terms, low=0.0, length=degree + 1)
    found[:2] += (level, slope)
    return found


def exchange(function: _Curve, *, terms: Sequence[int], low: float, length: int) -> Float64[ndarray, "terms"]:
    """Chebyshev coefficients, zeros outside ``terms``, whose error on ``[low, 1]`` is levelled.

    The ``terms`` must be independent on the interval: all of them anywhere, the even or the odd ones at or right of 0.
    """
    count = len(terms)
    reference = _first_reference(terms, low)
    grid = (low + 1.0) / 2 - (1.0 - low) / 2 * np.cos(np.linspace(0.0, math.pi, _GRID_POINTS * (count + 1)))
    signs = np.where(np.arange(count + 1) % 2 == 0, 1.0, -1.0)
    best, smallest = np.zeros(length), math.inf
    for _ in range(_MAX_EXCHANGES):
        basis = chebyshev.chebvander(reference, length - 1)[:, list(terms)]
        coefficients = np.zeros(length)
        coefficients[list(terms)] = np.linalg.solve(np.column_stack([basis, signs]), function(reference))[:-1]

        def error(
            points: Float64[ndarray, "count"], held: Float64[ndarray, "terms"] = coefficients
        ) -> Float64[ndarray, "count"]:
            return function(points) - np.asarray(chebyshev.chebval(points, held), dtype=np.float64)

        # With the reference among them, the points show every change of sign that it was solved for.
        extrema = _extrema(error, np.union1d(grid, reference))
        sizes = np.abs(error(extrema))
        if sizes.max() < smallest:
            best, smallest = coefficients, float(sizes.max())
        if len(extrema) < count + 1:  # rounding is all that is left
            break
        reference = _alternating(extrema, sizes, count + 1)
        sizes = np.abs(error(reference))
        if sizes.max() - sizes.min() <= _LEVELLED * sizes.max():
            break
    return best


def _first_reference(terms: Sequence[int], low: float) -> Float64[ndarray, "count"]:
    """The extrema of the first Chebyshev polynomial left out: where the error of a smooth function nearly peaks."""
    count = len(terms)
    if low in (-1.0, 0.0):  # all terms, or every second one
        left_out = terms[-1] + (1 if low < 0 else 2)
        return np.cos(math.pi * np.arange(count, -1, -1) / left_out)
    unit = (1.0 - np.cos(math.pi * (np.arange(count + 1) + 0.5) / (count + 1))) / 2
    return np.asarray(low + (1.0 - low) * unit, dtype=np.float64)


def _extrema(error: _Curve, grid: Float64[ndarray, "count"]) -> Float64[ndarray, "found"]:
    """Where the error is largest between two changes of its sign, refined by golden section."""
    values = error(grid)
    signs = np.where(values >= 0, 1, -1)
    starts = np.concatenate([[0], np.flatnonzero(signs[1:] != signs[:-1]) + 1, [len(grid)]])
    held = np.array([first + np.argmax(np.abs(values[first:last])) for first, last in pairwise(starts)])
    left, right = grid[np.maximum(held - 1, 0)], grid[np.minimum(held + 1, len(grid) - 1)]
    sign = signs[held]
    for _ in range(_GOLDEN_STEPS):
        inner_left, inner_right = right - _GOLDEN * (right - left), left + _GOLDEN * (right - left)
        rises = sign * error(inner_left) < sign * error(inner_right)
        left, right = np.where(rises, inner_left, left), np.where(rises, right, inner_right)
    refined = (left + right) / 2
    return np.asarray(np.where(sign * error(refined) > sign * values[held], refined, grid[held]))


def _alternating(
    points: Float64[ndarray, "found"], sizes: Float64[ndarray, "found"], count: int
) -> Float64[ndarray, "count"]:
    """``count`` neighbouring extrema, the smaller end dropped as long as there are too many."""
    first, last = 0, len(points)
    while last - first > count:
        if sizes[first] < sizes[last - 1]:
            first += 1
        else:
            last -= 1
    return points[first:last]


def _from_unit(points: Float64[ndarray, "count"], low: float, high: float) -> Float64[ndarray, "count"]:
    return np.asarray((low + high + points * (high - low)) / 2.0, dtype=np.float64)
