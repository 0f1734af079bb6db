"""A polynomial in Chebyshev form on ciphertexts, at the least depth and with few products.

It is cut at powers of two, ``p = q * T + r``, until what is left is a weighted sum of Chebyshev polynomials that lie
above the level where it is needed; ``r`` has a level more than ``q``, so it is cut less.

Source: Chen, Chillotti, Song, "Improved Bootstrapping for Approximate Homomorphic Encryption", EUROCRYPT 2019,
section 4.2 (baby-step giant-step in the Chebyshev basis).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from mibao.errors import InputError
from mibao.he.leveled import Arithmetic, Leveled

_SMALL_LOG_DEGREE = 4  # from a degree of 16 on, sums of 8 Chebyshev polynomials save more products than they cost


def depth_of(coefficients: Float64[ndarray, "terms"]) -> int:
    """Levels that :func:`chebyshev_value` uses."""
    return int(np.flatnonzero(coefficients)[-1]).bit_length()


def chebyshev_value(arithmetic: Arithmetic, value: Leveled, coefficients: Float64[ndarray, "terms"]) -> Leveled:
    """``sum(c[k] * T_k(value))`` for values within [-1, 1], :func:`depth_of` levels down.

    Raises:
        InputError: no coefficient but the first differs from zero, or the levels are too few.
    """
    if not np.any(coefficients[1:]):
        raise InputError("polynomial: expected a degree of at least 1")
    trimmed = coefficients[: int(np.flatnonzero(coefficients)[-1]) + 1]
    evaluation = _Evaluation(arithmetic, value, trimmed.size - 1)
    return evaluation.at(trimmed, value.level + depth_of(trimmed))


class _Evaluation:
    """One value's Chebyshev polynomials, each computed once."""

    def __init__(self, arithmetic: Arithmetic, value: Leveled, degree: int) -> None:
        self._arithmetic = arithmetic
        self._first_level = value.level
        self._largest_in_sums = 3 if degree.bit_length() <= _SMALL_LOG_DEGREE else 7
        self._held = {1: value}

    def at(self, coefficients: Float64[ndarray, "terms"], level: int) -> Leveled:
        """The polynomial at ``level``."""
        degree = int(np.flatnonzero(coefficients)[-1])
        if degree <= self._largest_in_sums and (degree - 1).bit_length() < level - self._first_level:
            return self._sum(coefficients, level)
        half = 1 << (degree.bit_length() - 1)
        quotient, rest = _cut(coefficients, half)
        if np.any(quotient[1:]):
            product = self._arithmetic.product(self.at(quotient, level - 1), self._chebyshev(half))
        else:
            product = self._arithmetic.weighted([self._chebyshev(half)], [float(quotient[0])], level=level)
        if np.any(rest[1:]):
            return self._arithmetic.sum(product, self.at(rest, level))
        return self._arithmetic.shifted(product, float(rest[0])) if rest[0] else product

    def _sum(self, coefficients: Float64[ndarray, "terms"], level: int) -> Leveled:
        terms = [int(index) for index in np.flatnonzero(coefficients) if index]
        held = [self._chebyshev(index) for index in terms]
        total = self._arithmetic.weighted(held, [float(coefficients[index]) for index in terms], level=level)
        return self._arithmetic.shifted(total, float(coefficients[0])) if coefficients[0] else total

    def _chebyshev(self, index: int) -> Leveled:
        """``T_k``, as ``2 T_a T_b - T_(a - b)`` with ``a`` the largest power of two, or half of ``k``."""
        if index not in self._held:
            left = 1 << ((index - 1).bit_length() - 1)
            right = index - left
            arithmetic = self._arithmetic
            if left == right:
                square = arithmetic.square(self._chebyshev(left))
                self._held[index] = arithmetic.shifted(arithmetic.sum(square, square), -1.0)
            else:
                product = arithmetic.product(self._chebyshev(left), self._chebyshev(right))
                self._held[index] = arithmetic.counted([product, self._chebyshev(left - right)], [2, -1])
        return self._held[index]


def _cut(
    coefficients: Float64[ndarray, "terms"], half: int
) -> tuple[Float64[ndarray, "high"], Float64[ndarray, "low"]]:
    """Quotient and rest by ``T_half``, for a degree under twice ``half``."""
    degree = int(np.flatnonzero(coefficients)[-1])
    quotient, rest = coefficients[half : degree + 1].copy(), coefficients[:half].copy()
    quotient[1:] *= 2.0
    for index in range(1, degree - half + 1):
        rest[half - index] -= coefficients[half + index]
    return quotient, rest
