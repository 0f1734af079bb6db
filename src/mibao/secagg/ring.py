"""Exact products in ``Z_q[X] / (X**2048 + 1)`` between a public matrix and short secrets, for ``q`` a power of two.

Products run through complex floating-point transforms of half the length. The matrix is cut into limbs so narrow
that the proven error of a transform stays under 0.4: rounding to the nearest integer is then exact.

Source: Percival, Math. Comp. 72 (2003), on the error of weighted transforms; ``docs/spec/secagg.md``, section 10.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Complex128, Int64, UInt32, UInt64
from numpy import ndarray
from scipy import fft

from mibao.crypto import kdf, prg
from mibao.errors import InputError
from mibao.secagg.rlwe_parameters import RING_DEGREE, ROWS_PER_SECRET, ParameterSet

_HALF = RING_DEGREE // 2
# Rows transformed at a time: they stay in the second-level cache.
_ROWS = 32
# 3 k u for additions, (3 k + 4) sqrt(5) u for products, (3 k + 12) u for roots, k = 10: 148, and some to spare.
_ERROR_FACTOR = 160.0 * 2.0**-53
_ERROR_LIMIT = 0.4

Ring = UInt32[ndarray, " d"] | UInt64[ndarray, " d"]
Rows = Int64[ndarray, "rows 2048"]


@dataclass(frozen=True, slots=True)
class _Matrix:
    """Some rows: ``low + 2**32 * high``, both signed; ``high`` is empty for a modulus of 32 bits."""

    low: ndarray
    high: ndarray


def secrets_needed(length: int) -> int:
    """How many secrets mask a vector of ``length`` numbers: one for each 2**20."""
    return -(-length // (ROWS_PER_SECRET * RING_DEGREE))


def ring_type(parameters: ParameterSet) -> type[np.uint32] | type[np.uint64]:
    """The machine word in which sums modulo ``q`` are kept."""
    return np.uint32 if parameters.modulus_bits == 32 else np.uint64


def small_elements(seed: bytes, count: int, parameters: ParameterSet) -> Int64[ndarray, " count"]:
    """``count`` centred binomial numbers: the ones among 30 or 64 bits of the stream, less the half of them."""
    heads: Int64[ndarray, " count"] = _heads(seed, count, parameters).astype(np.int64) - parameters.coins // 2
    return heads


def add_error(total: Ring, seed: bytes, parameters: ParameterSet) -> float:
    """Add fresh small numbers to ``total`` in place; their empirical variance around 0, for a check of health."""
    heads = _heads(seed, len(total), parameters)
    counts = np.bincount(heads, minlength=parameters.coins + 1)
    centred = np.arange(len(counts)) - parameters.coins // 2
    total += heads
    total -= total.dtype.type(parameters.coins // 2)
    return float(counts @ (centred * centred)) / len(total)


def add_product(
    total: Ring,
    *,
    matrix_seed: bytes,
    secrets: Int64[ndarray, "secrets 2048"],
    parameters: ParameterSet,
    negative: bool = False,
) -> None:
    """Add the matrix times the secrets to ``total`` modulo its word, in place; take it off with ``negative``.

    Raises:
        InputError: a secret is so long that no limb keeps the product exact.
    """
    per_secret = ROWS_PER_SECRET * RING_DEGREE
    for group, start in enumerate(range(0, len(total), per_secret)):
        part = total[start : start + per_secret]
        rows = -(-len(part) // RING_DEGREE)
        matrix = _expand(matrix_seed, group, rows, parameters)
        secret = -secrets[group] if negative else secrets[group]
        _add_rows(part, matrix, secret, limb_bits=_limb_bits(secret))


def matrix_rows(matrix_seed: bytes, group: int, rows: int, parameters: ParameterSet) -> Rows:
    """The first rows of a secret's part of the matrix as signed integers: for tests and the estimate of attacks."""
    matrix = _expand(matrix_seed, group, rows, parameters)
    entries: Rows = matrix.low.astype(np.int64)
    return entries + (matrix.high.astype(np.int64) << 32) if matrix.high.size else entries


def product_error(secret: Int64[ndarray, " 2048"], *, limb_bits: int) -> float:
    """The proven bound on how far a transformed product is from the integer it stands for."""
    # A limb has 2048 entries of at most 2**(limb_bits - 1), or 2**limb_bits when it is a lower part and unsigned.
    largest = 2.0 ** (limb_bits - 1 if limb_bits == 32 else limb_bits)
    norm = float(np.sqrt(np.sum(secret.astype(np.float64) ** 2)))
    return _ERROR_FACTOR * largest * float(np.sqrt(RING_DEGREE)) * norm


def _limb_bits(secret: Int64[ndarray, " 2048"]) -> int:
    for bits in (32, 16, 8):
        if product_error(secret, limb_bits=bits) <= _ERROR_LIMIT:
            return bits
    raise InputError("ring: expected a secret short enough for an exact product")


def _heads(seed: bytes, count: int, parameters: ParameterSet) -> ndarray:
    if parameters.coins == 64:
        return np.asarray(np.bitwise_count(np.frombuffer(prg.keystream(seed, 8 * count), dtype="<u8")))
    words = np.frombuffer(prg.keystream(seed, 4 * count), dtype="<u4")
    return np.asarray(np.bitwise_count(words & np.uint32((1 << parameters.coins) - 1)))


def _expand(matrix_seed: bytes, group: int, rows: int, parameters: ParameterSet) -> _Matrix:
    seed = kdf.derive(matrix_seed, purpose="secagg/rlwe/matrix-rows", context=group.to_bytes(4, "big"))
    entries = rows * RING_DEGREE
    stream = prg.keystream(seed, entries * parameters.element_bytes)
    low = np.frombuffer(stream, dtype="<i4", count=entries).reshape(rows, RING_DEGREE)
    high = np.frombuffer(stream, dtype="<i2", offset=4 * entries)
    return _Matrix(low, high.reshape(-1, RING_DEGREE))


def _limbs(matrix: _Matrix, rows: slice, limb_bits: int) -> list[tuple[int, ndarray]]:
    """Each limb with the power of two that it counts for; only the highest of a word is signed."""
    mask = (1 << limb_bits) - 1
    found = []
    for base, bits, words in ((0, 32, matrix.low), (32, 16, matrix.high)):
        if not words.size:
            continue
        for shift in range(0, bits, limb_bits):
            limb = words[rows] >> shift
            found.append((base + shift, limb if shift + limb_bits >= bits else limb & mask))
    return found


@lru_cache(maxsize=1)
def _twists() -> tuple[Complex128[ndarray, " 1024"], Complex128[ndarray, " 1024"]]:
    angles = np.pi * np.arange(_HALF) / RING_DEGREE
    return np.exp(1j * angles), np.exp(-1j * angles)


def _add_rows(part: Ring, matrix: _Matrix, secret: Int64[ndarray, " 2048"], *, limb_bits: int) -> None:
    twist, untwist = _twists()
    spectrum = fft.fft((secret[:_HALF] + 1j * secret[_HALF:]) * twist)
    rows = len(matrix.low)
    work = np.empty((min(_ROWS, rows), _HALF), dtype=np.complex128)
    for first in range(0, rows, _ROWS):
        chunk = slice(first, min(first + _ROWS, rows))
        flat = part[first * RING_DEGREE : chunk.stop * RING_DEGREE]
        for shift, limb in _limbs(matrix, chunk, limb_bits):
            folded = work[: len(limb)]
            folded.real, folded.imag = limb[:, :_HALF], limb[:, _HALF:]
            folded *= twist
            product = fft.fft(folded, axis=-1, overwrite_x=True)
            product *= spectrum
            product = fft.ifft(product, axis=-1, overwrite_x=True)
            product *= untwist
            _add_rounded(flat, product, shift)


def _add_rounded(flat: Ring, product: Complex128[ndarray, "rows 1024"], shift: int) -> None:
    whole = np.rint(product.view(np.float64)).astype(np.int64).view(np.uint64)
    if shift:
        whole <<= np.uint64(shift)
    rows = len(product)
    if len(flat) == rows * RING_DEGREE:
        placed = flat.reshape(rows, RING_DEGREE)
        placed[:, :_HALF] += whole[:, ::2].astype(flat.dtype)
        placed[:, _HALF:] += whole[:, 1::2].astype(flat.dtype)
    else:
        flat += np.concatenate([whole[:, ::2], whole[:, 1::2]], axis=1).ravel()[: len(flat)].astype(flat.dtype)
