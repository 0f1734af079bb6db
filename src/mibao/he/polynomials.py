"""Polynomials on ciphertexts in as few levels as their degree allows.

A series of degree n is split at ``T_k`` for the largest power of two ``k <= n``: ``p = q * T_k + r`` with both parts of
degree under ``k``. The powers of two follow from ``T_2k = 2 T_k**2 - 1``, so a degree under ``2**m`` takes m levels.

Source: Paterson, Stockmeyer, SIAM J. Comput. 2(1), 1973, in Chebyshev's basis: Chen, Chillotti, Song, EUROCRYPT 2019.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from mibao.he.lowering import Builder, Register

_ROOM = 1.0 + 2.0**-6  # over 1, what a term of the series may reach with its error


def evaluate_series(builder: Builder, source: Register, coefficients: Float64[ndarray, "terms"]) -> Register:
    """``sum_k coefficients[k] * T_k(source)`` for a source within [-1, 1]; at least degree 1."""
    used = np.flatnonzero(coefficients)
    trimmed = coefficients[: max(int(used[-1]) + 1 if used.size else 1, 2)]
    bases = {1: source}
    power = 1
    while 2 * power < len(trimmed):
        bases[2 * power] = _doubled(builder, bases[power])
        power *= 2
    return _split(builder, bases, trimmed)


def _doubled(builder: Builder, base: Register) -> Register:
    """``2 * base**2 - 1``: doubled by adding, which takes no level."""
    squared = builder.reduced(builder.square(base))
    doubled = builder.shift(builder.add(squared, squared), np.full(base.count, -1.0))
    builder.limit(doubled, np.full((base.count, 1), _ROOM))
    return doubled


def _split(builder: Builder, bases: dict[int, Register], coefficients: Float64[ndarray, "terms"]) -> Register:
    if len(coefficients) <= 2:
        slope = float(coefficients[1]) if len(coefficients) == 2 else 0.0
        scaled = builder.scale(bases[1], np.full(bases[1].count, slope))
        return builder.shift(scaled, np.full(bases[1].count, float(coefficients[0])))
    power = 1 << ((len(coefficients) - 1).bit_length() - 1)
    quotient, rest = divided(coefficients, power)
    if not np.any(quotient[1:]):
        product = builder.scale(bases[power], np.full(bases[power].count, float(quotient[0])))
    else:
        product = builder.reduced(builder.multiply(_split(builder, bases, quotient), bases[power]))
    if np.any(rest[1:]):
        return builder.add(product, _split(builder, bases, _trimmed(rest)))
    return builder.shift(product, np.full(product.count, float(rest[0])))


def divided(
    coefficients: Float64[ndarray, "terms"], power: int
) -> tuple[Float64[ndarray, "quotient"], Float64[ndarray, "rest"]]:
    """Quotient and rest of a Chebyshev series by ``T_power``, from ``2 T_a T_b = T_(a + b) + T_|a - b|``."""
    rest = np.array(coefficients[:power], dtype=np.float64)
    quotient = 2.0 * coefficients[power:]
    quotient[0] = coefficients[power]
    for index in range(1, len(quotient)):
        rest[abs(power - index)] -= coefficients[power + index]
    return quotient, rest


def _trimmed(coefficients: Float64[ndarray, "terms"]) -> Float64[ndarray, "terms"]:
    used = np.flatnonzero(coefficients)
    return coefficients[: used[-1] + 1] if used.size else coefficients[:1]
