"""Packed Shamir sharing over the integers modulo ``2**31 - 1``: a polynomial hides several numbers at once.

Shares add up: the sum of everybody's shares is a sharing of the sum. Wrong shares are found as errors of a
Reed-Solomon code, false dealings by a random combination that must lie on a polynomial.

Sources: Franklin and Yung, STOC 1992, section 2; Berlekamp and Welch, US patent 4,633,470; ``docs/spec/secagg.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Int64, UInt64
from numpy import ndarray

from mibao.crypto import prg
from mibao.errors import InputError, IntegrityError

PRIME = (1 << 31) - 1
MAX_DIMENSION = 32
_P = np.uint64(PRIME)
_HALF_WORD = np.uint64(16)

Columns = UInt64[ndarray, "rows columns"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """``holders`` shares, ``packed`` numbers to a polynomial, hidden from any ``corrupt`` holders.

    Raises:
        InputError: a number is out of range.
    """

    holders: int
    corrupt: int
    packed: int

    def __post_init__(self) -> None:
        if self.corrupt < 1 or self.packed < 1 or self.packed & (self.packed - 1):
            raise InputError(
                "packed sharing: expected 1 or more corrupt holders and a power of two of packed numbers, "
                f"got {self.corrupt} and {self.packed}"
            )
        if self.dimension > min(MAX_DIMENSION, self.holders):
            raise InputError(
                f"packed sharing: expected at most {min(MAX_DIMENSION, self.holders)} shares to reconstruct, "
                f"got {self.corrupt} + {self.packed}"
            )

    @property
    def dimension(self) -> int:
        """How many shares reconstruct."""
        return self.corrupt + self.packed


def field_elements(seed: bytes, count: int) -> UInt64[ndarray, " count"]:
    """``count`` numbers uniform below the prime: 31 bits of each word of the stream, all ones skipped."""
    spare = 64
    while True:
        words = np.frombuffer(prg.keystream(seed, 4 * (count + spare)), dtype="<u4") & np.uint32(PRIME)
        kept = words[words != PRIME]
        if kept.size >= count:
            elements: UInt64[ndarray, " count"] = kept[:count].astype(np.uint64)
            return elements
        spare *= 2


def deal(
    values: Int64[ndarray, " n"], *, packing: Packing, blinds: int, seed: bytes
) -> UInt64[ndarray, "holders columns"]:
    """The share of every holder, a row each; ``blinds`` columns of uniform numbers come after the values'.

    Value ``i`` lies in packed row ``i // (n / packed)``.

    Raises:
        InputError: the number of values is no multiple of the packing.
    """
    if len(values) % packing.packed:
        raise InputError(f"packed sharing: expected a multiple of {packing.packed} values, got {len(values)}")
    secret = (values % PRIME).astype(np.uint64).reshape(packing.packed, -1)
    columns = secret.shape[1] + blinds
    drawn = field_elements(seed, packing.packed * blinds + packing.corrupt * columns)
    hidden = drawn[: packing.packed * blinds].reshape(packing.packed, blinds)
    noise = drawn[packing.packed * blinds :].reshape(packing.corrupt, columns)
    points = np.concatenate([np.concatenate([secret, hidden], axis=1), noise])
    return _times(_interpolation(_inner_points(packing), tuple(range(1, packing.holders + 1))), points)


def add_modulo(total: Columns, shares: Columns) -> None:
    """Add shares to a sum of shares, in place."""
    total += shares
    total %= _P


def combine_columns(
    shares: Columns, weights: UInt64[ndarray, "combinations columns"]
) -> UInt64[ndarray, "rows combinations"]:
    """Every row's weighted sum of columns, once for each row of ``weights``: shape (rows, len(weights))."""
    combined = [np.sum(shares * one % _P, axis=1) % _P for one in weights]
    return np.stack(combined, axis=1)


def reconstruct(shares: Columns, holders: tuple[int, ...], *, packing: Packing) -> Int64[ndarray, " n"]:
    """The values, as the integers nearest to zero, from the shares of these holders, who are taken to be right.

    Raises:
        InputError: fewer holders than reconstruct.
        IntegrityError: the shares do not lie on polynomials.
    """
    _check_enough(holders, packing)
    if not lie_on_polynomials(shares, holders, packing=packing).all():
        raise IntegrityError("packed sharing: the shares do not lie on one polynomial")
    used = holders[: packing.dimension]
    matrix = _interpolation(used, _inner_points(packing)[: packing.packed])
    values = _times(matrix, shares[: packing.dimension]).astype(np.int64).ravel()
    centred: Int64[ndarray, " n"] = np.where(values > PRIME // 2, values - PRIME, values)
    return centred


def lie_on_polynomials(shares: Columns, holders: tuple[int, ...], *, packing: Packing) -> ndarray:
    """For each column whether surplus shares fit the first ``dimension`` ones."""
    used, surplus = holders[: packing.dimension], holders[packing.dimension :]
    if not surplus:
        return np.ones(shares.shape[1], dtype=bool)
    predicted = _times(_interpolation(used, surplus), shares[: packing.dimension])
    fits: ndarray = (predicted == shares[packing.dimension :]).all(axis=0)
    return fits


def wrong_holders(
    shares: Columns, holders: tuple[int, ...], *, packing: Packing, weights: UInt64[ndarray, " columns"]
) -> frozenset[int]:
    """Who of at most ``(len(holders) - dimension) // 2`` holders gave wrong shares.

    ``weights`` are random numbers that nobody knew when the shares were given: a wrong share stays hidden in the
    combination with probability 1 in the prime.

    Raises:
        InputError: fewer holders than reconstruct.
        IntegrityError: more are wrong than can be found.
    """
    _check_enough(holders, packing)
    word = combine_columns(shares, weights[np.newaxis])[:, 0]
    if lie_on_polynomials(word[:, np.newaxis], holders, packing=packing).all():
        wrong: frozenset[int] = frozenset()
    else:
        wrong = _error_positions([int(value) for value in word], holders, packing.dimension)
    rest = tuple(holder for holder in holders if holder not in wrong)
    kept = shares[[index for index, holder in enumerate(holders) if holder not in wrong]]
    if not lie_on_polynomials(kept, rest, packing=packing).all():
        raise IntegrityError("packed sharing: more shares are wrong than can be corrected")
    return wrong


def _error_positions(word: list[int], holders: tuple[int, ...], dimension: int) -> frozenset[int]:
    """Berlekamp-Welch: monic ``E`` of degree ``e`` and ``Q`` with ``Q(x) = y E(x)`` at every holder."""
    errors = (len(holders) - dimension) // 2
    rows = []
    for x, y in zip(holders, word, strict=True):
        powers = [pow(x, k, PRIME) for k in range(dimension + errors)]
        rows.append([*powers, *(-y * powers[k] % PRIME for k in range(errors)), y * pow(x, errors, PRIME) % PRIME])
    solution = _solve(rows, dimension + 2 * errors)
    locator = [*solution[dimension + errors :], 1]
    # E may have more roots than errors, but wherever it has none the word is right: Q = P E there.
    sound = [i for i, x in enumerate(holders) if sum(c * pow(x, k, PRIME) for k, c in enumerate(locator)) % PRIME]
    used = sound[:dimension]
    known = np.array([[word[i]] for i in used], dtype=np.uint64)
    predicted = _times(_interpolation(tuple(holders[i] for i in used), holders), known)[:, 0]
    wrong = frozenset(x for x, y, right in zip(holders, word, predicted.tolist(), strict=True) if y != right)
    if len(wrong) > errors:
        raise IntegrityError("packed sharing: more shares are wrong than can be corrected")
    return wrong


def _solve(rows: list[list[int]], unknowns: int) -> list[int]:
    """A solution of the linear system modulo the prime, free unknowns 0. Raises ``IntegrityError`` if none."""
    pivots: list[int] = []
    for column in range(unknowns):
        rank = len(pivots)
        pivot = next((row for row in range(rank, len(rows)) if rows[row][column]), None)
        if pivot is None:
            continue
        rows[rank], rows[pivot] = rows[pivot], rows[rank]
        inverse = pow(rows[rank][column], -1, PRIME)
        rows[rank] = [value * inverse % PRIME for value in rows[rank]]
        for row in range(len(rows)):
            if row != rank and (factor := rows[row][column]):
                rows[row] = [(a - factor * b) % PRIME for a, b in zip(rows[row], rows[rank], strict=True)]
        pivots.append(column)
    if any(row[unknowns] for row in rows[len(pivots) :]):
        raise IntegrityError("packed sharing: more shares are wrong than can be corrected")
    solution = [0] * unknowns
    for row, column in enumerate(pivots):
        solution[column] = rows[row][unknowns]
    return solution


def _check_enough(holders: tuple[int, ...], packing: Packing) -> None:
    if len(holders) < packing.dimension:
        raise InputError(f"packed sharing: expected at least {packing.dimension} shares, got {len(holders)}")


def _inner_points(packing: Packing) -> tuple[int, ...]:
    """Where the packed numbers stand, and after them the uniform ones that hide them."""
    return tuple(PRIME - 1 - k for k in range(packing.dimension))


@lru_cache(maxsize=256)
def _interpolation(known: tuple[int, ...], wanted: tuple[int, ...]) -> UInt64[ndarray, "wanted known"]:
    """The matrix that takes a polynomial's values at ``known`` to its values at ``wanted``."""
    matrix = np.empty((len(wanted), len(known)), dtype=np.uint64)
    for column, x in enumerate(known):
        others = [other for other in known if other != x]
        below = 1
        for other in others:
            below = below * (x - other) % PRIME
        scale = pow(below, -1, PRIME)
        for row, point in enumerate(wanted):
            value = scale
            for other in others:
                value = value * (point - other) % PRIME
            matrix[row, column] = value
    matrix.flags.writeable = False
    return matrix


def _times(
    matrix: UInt64[ndarray, "wanted known"], columns: UInt64[ndarray, "known columns"]
) -> UInt64[ndarray, "wanted columns"]:
    """A product modulo the prime, by halves of 16 bits: 32 terms of 2**47 stay below 2**53, so floats are exact."""
    right = columns.astype(np.float64)
    low = (matrix & np.uint64(0xFFFF)).astype(np.float64) @ right
    high = (matrix >> _HALF_WORD).astype(np.float64) @ right
    product: UInt64[ndarray, "wanted columns"] = (
        (high.astype(np.uint64) % _P << _HALF_WORD) + low.astype(np.uint64)
    ) % _P
    return product
