"""Between a polynomial's coefficients and its residues in the NTT domain, in the order that SEAL keeps them.

Entry i is the value at ``root ** (2 * bitreverse(i) + 1)``, root the smallest primitive 2N-th root of unity.

Source: Longa, Naehrig, "Speeding up the Number Theoretic Transform", CANS 2016, algorithms 1 and 2.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Complex128, Float64, Int64, UInt64
from numpy import ndarray

from mibao.errors import InputError

MAX_PRIME_BITS = 60
_HALF_BITS = 30


def ntt(coefficients: Int64[ndarray, "degree"], *, prime: int) -> UInt64[ndarray, "degree"]:
    """Residues of the polynomial with these (signed) coefficients.

    Raises:
        InputError: the degree is no power of two, or the prime has over 60 bits or is not 1 modulo twice the degree.
    """
    powers = _powers(coefficients.size, prime)
    values = coefficients % np.int64(prime)
    blocks = 1
    while blocks < values.size:
        halves = values.reshape(blocks, 2, -1)
        turned = modular_product(halves[:, 1], powers[blocks : 2 * blocks, None], prime=prime)
        values = np.stack([_below(halves[:, 0] + turned, prime), _above(halves[:, 0] - turned, prime)], axis=1)
        blocks *= 2
    return values.reshape(-1).astype(np.uint64)


def inverse_ntt(residues: UInt64[ndarray, "degree"], *, prime: int) -> Int64[ndarray, "degree"]:
    """The coefficients, each the representative nearest to zero. Raises as :func:`ntt`."""
    inverses = _inverse_powers(residues.size, prime)
    values = residues.astype(np.int64)
    blocks = values.size // 2
    while blocks:
        pairs = values.reshape(blocks, 2, -1)
        sums = _below(pairs[:, 0] + pairs[:, 1], prime)
        differences = _above(pairs[:, 0] - pairs[:, 1], prime)
        turned = modular_product(differences, inverses[blocks : 2 * blocks, None], prime=prime)
        values = np.stack([sums, turned], axis=1)
        blocks //= 2
    scaled = modular_product(values.reshape(-1), np.int64(pow(residues.size, -1, prime)), prime=prime)
    return np.where(scaled > prime // 2, scaled - prime, scaled)


def modular_product(
    left: Int64[ndarray, "..."], right: Int64[ndarray, "..."] | np.int64, *, prime: int
) -> Int64[ndarray, "..."]:
    """``left * right`` modulo the prime, for residues in ``[0, prime)``; shapes broadcast.

    The right factor is cut into halves of 30 bits, so that each quotient in float64 is off by at most one.
    """
    high, low = right >> np.int64(_HALF_BITS), right & np.int64((1 << _HALF_BITS) - 1)
    upper = _small_product(_small_product(left, high, prime), np.int64(1 << _HALF_BITS), prime)
    return _below(upper + _small_product(left, low, prime), prime)


def _small_product(
    left: Int64[ndarray, "..."], right: Int64[ndarray, "..."] | np.int64, prime: int
) -> Int64[ndarray, "..."]:
    """The same for a right factor of at most 30 bits. Both products wrap around 2**64; their difference does not."""
    quotient = np.rint(left * (right * (1.0 / prime))).astype(np.int64)
    rest = left * right - quotient * np.int64(prime)
    return _below(_above(rest, prime), prime)


def _below(values: Int64[ndarray, "..."], prime: int) -> Int64[ndarray, "..."]:
    lower: Int64[ndarray, "..."] = values - np.where(values >= prime, np.int64(prime), np.int64(0))
    return lower


def _above(values: Int64[ndarray, "..."], prime: int) -> Int64[ndarray, "..."]:
    higher: Int64[ndarray, "..."] = values + ((values >> np.int64(63)) & np.int64(prime))
    return higher


def embedding(coefficients: Float64[ndarray, "degree"]) -> Complex128[ndarray, "degree"]:
    """The polynomial's values at the odd powers of ``exp(i * pi / N)``, from the first on; their order is not SEAL's.

    Off by a few roundings of float64, relative to the largest value.
    """
    turn = np.exp(1j * np.pi * np.arange(coefficients.size) / coefficients.size)
    values: Complex128[ndarray, "degree"] = np.fft.ifft(coefficients * turn) * coefficients.size
    return values


@lru_cache(maxsize=64)
def _powers(degree: int, prime: int) -> Int64[ndarray, "degree"]:
    """Powers of the root at bit-reversed exponents."""
    root = _smallest_root(degree, prime)
    return _bit_reversed(_successive_powers(root, degree, prime))


@lru_cache(maxsize=64)
def _inverse_powers(degree: int, prime: int) -> Int64[ndarray, "degree"]:
    root = pow(_smallest_root(degree, prime), -1, prime)
    return _bit_reversed(_successive_powers(root, degree, prime))


def _successive_powers(root: int, count: int, prime: int) -> Int64[ndarray, "count"]:
    powers = [1]
    while len(powers) < count:
        powers.append(powers[-1] * root % prime)
    return np.array(powers, dtype=np.int64)


def _bit_reversed(values: Int64[ndarray, "count"]) -> Int64[ndarray, "count"]:
    bits = values.size.bit_length() - 1
    order = np.zeros(values.size, dtype=np.int64)
    for bit in range(bits):
        order |= ((np.arange(values.size) >> bit) & 1) << (bits - 1 - bit)
    reversed_values: Int64[ndarray, "count"] = values[order]
    return reversed_values


def _smallest_root(degree: int, prime: int) -> int:
    if degree < 2 or degree & (degree - 1) or prime >> MAX_PRIME_BITS or prime % (2 * degree) != 1:
        raise InputError(
            f"residues: expected a degree that is a power of two and a prime under {MAX_PRIME_BITS} bits that is 1 "
            f"modulo twice the degree, got degree {degree}"
        )
    for base in range(2, prime):
        root = pow(base, (prime - 1) // (2 * degree), prime)
        if pow(root, degree, prime) == prime - 1:
            break
    square, candidate, smallest = root * root % prime, root, root
    for _ in range(degree):  # all primitive roots are the odd powers of one
        smallest = min(smallest, candidate)
        candidate = candidate * square % prime
    return smallest
