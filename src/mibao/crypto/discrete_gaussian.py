"""Discrete Gaussian noise, sampled exactly: integers only, from bytes that the caller supplies.

No float enters a decision, so none of the attacks on the low bits of float noise applies. Time taken depends on
the values drawn; whoever can time a single draw learns something about it.

Source: Canonne, Kamath and Steinke, "The Discrete Gaussian for Differential Privacy", NeurIPS 2020, algorithms 1-3;
for widths beyond 64 bits Micciancio and Walter, "Gaussian Sampling over the Integers", CRYPTO 2017, section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from math import isqrt
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Int64, UInt64
from numpy import ndarray

from mibao.errors import InputError

Randomness: TypeAlias = Callable[[int], bytes]

MAX_VARIANCE_BITS = 112
MAX_WIDE_VARIANCE_BITS = 200
WORD_BITS = 63
_COARSE_SHIFT_BITS = 46
_FINE_VARIANCE = 1 << (2 * (_COARSE_SHIFT_BITS + 5))
_LONGEST_STREAK = 32  # scales: further out a candidate is kept with a probability under exp(-450)


def discrete_gaussian(count: int, *, variance: Fraction, randomness: Randomness) -> Int64[ndarray, "count"]:
    """``count`` independent integers, each ``x`` with probability proportional to ``exp(-x**2 / (2 * variance))``.

    Raises:
        InputError: ``count`` is negative, the variance is not in ``(0, 2**112)``, or ``randomness`` does not give as
            many bytes as asked for.

    Source: Canonne et al. 2020, algorithm 3.
    """
    if count < 0 or not 0 < variance < 1 << MAX_VARIANCE_BITS:
        raise InputError(f"noise: expected a variance in (0, 2**{MAX_VARIANCE_BITS}) and a count of 0 or more")
    scale = isqrt(int(variance)) + 1
    samples = np.empty(0, dtype=np.int64)
    while samples.size < count:
        candidates = _laplace(3 * (count - samples.size) + 8, scale=scale, randomness=randomness)
        kept = candidates[_accept(candidates, variance=variance, scale=scale, randomness=randomness)]
        samples = np.concatenate([samples, kept])
    return samples[:count]


def wide_discrete_gaussian(count: int, *, variance: int, randomness: Randomness) -> list[int]:
    """As :func:`discrete_gaussian`, for variances up to ``2**200``, in Python's integers.

    Beyond ``2**112`` a sample is a coarse one, on multiples of ``2**46``, plus a fine one of standard deviation
    ``2**51``: 32 steps of the coarse grid, so the sum is a discrete Gaussian to within ``2**-10000``.

    Raises:
        InputError: as :func:`discrete_gaussian`.
    """
    if variance >> MAX_VARIANCE_BITS == 0:
        samples: list[int] = discrete_gaussian(count, variance=Fraction(variance), randomness=randomness).tolist()
        return samples
    if variance >> MAX_WIDE_VARIANCE_BITS:
        raise InputError(f"noise: expected a variance in (0, 2**{MAX_WIDE_VARIANCE_BITS})")
    coarse_variance = Fraction(variance - _FINE_VARIANCE, 1 << (2 * _COARSE_SHIFT_BITS))
    coarse = discrete_gaussian(count, variance=coarse_variance, randomness=randomness).tolist()
    fine = discrete_gaussian(count, variance=Fraction(_FINE_VARIANCE), randomness=randomness).tolist()
    return [(high << _COARSE_SHIFT_BITS) + low for high, low in zip(coarse, fine, strict=True)]


def _accept(
    candidates: Int64[ndarray, "n"], *, variance: Fraction, scale: int, randomness: Randomness
) -> Bool[ndarray, "n"]:
    """True with probability ``exp(-(|y| - variance / scale)**2 / (2 * variance))``, in integers throughout."""
    p, q = variance.numerator, variance.denominator
    denominator = 2 * p * q * scale * scale
    wholes_rests = [divmod((abs(y) * scale * q - p) ** 2, denominator) for y in candidates.tolist()]
    # A streak of at least k coins of exp(-1) has probability exp(-k).
    wholes = np.array([min(whole, 1 << 62) for whole, _ in wholes_rests], dtype=np.int64)
    streaks = _streaks(candidates.size, randomness=randomness)
    rests = _exp_coins([rest for _, rest in wholes_rests], denominator, randomness=randomness)
    accepted: Bool[ndarray, "n"] = rests & (streaks >= wholes)
    return accepted


def _laplace(count: int, *, scale: int, randomness: Randomness) -> Int64[ndarray, "m"]:
    """What is left of ``count`` attempts at discrete Laplace samples of integer ``scale``. Algorithm 2 with s = 1."""
    remainders = _uniform(count, below=scale, randomness=randomness)
    remainders = remainders[_exp_coins(remainders.tolist(), scale, randomness=randomness)]
    # A longer streak, which could overflow for the largest scale, counts as a candidate that is not kept.
    streaks = _streaks(remainders.size, randomness=randomness)
    short = streaks < _LONGEST_STREAK
    magnitudes = remainders[short] + np.int64(scale) * streaks[short]
    negative = (uniform_words(magnitudes.size, randomness=randomness) & np.uint64(1)).astype(bool)
    signed = np.where(negative, -magnitudes, magnitudes)
    # Zero has one sign, or it would come twice as often.
    kept: Int64[ndarray, "m"] = signed[~(negative & (magnitudes == 0))]
    return kept


def _streaks(count: int, *, randomness: Randomness) -> Int64[ndarray, "count"]:
    """How many coins of probability ``exp(-1)`` come up before the first that does not, ``count`` times."""
    coins = np.empty(0, dtype=bool)
    ends = np.empty(0, dtype=np.int64)
    while ends.size < count:
        more = _exp_coins([1] * (2 * count + 8), 1, randomness=randomness)
        coins = np.concatenate([coins, more])
        ends = np.flatnonzero(~coins)
    streaks: Int64[ndarray, "count"] = np.diff(ends[:count], prepend=-1) - 1
    return streaks


def _exp_coins(numerators: Sequence[int], denominator: int, *, randomness: Randomness) -> Bool[ndarray, "n"]:
    """True with probability ``exp(-numerator / denominator)``, each numerator in 0..denominator. Algorithm 1.

    Coins of probability ``numerator / (denominator * k)`` for k = 1, 2, ... until one fails: true if k is odd then.
    """
    scaled = np.array([(numerator << WORD_BITS) // denominator for numerator in numerators], dtype=np.uint64)
    outcome = np.zeros(scaled.size, dtype=bool)
    active = np.arange(scaled.size)
    k = 1
    while active.size:
        words = uniform_words(active.size, randomness=randomness)
        thresholds = scaled[active] // np.uint64(k)
        coins = words < thresholds
        for tie in np.flatnonzero(words == thresholds):  # one in 2**63: the bits beyond the word decide
            exact = numerators[int(active[tie])] << WORD_BITS
            rest = exact - int(thresholds[tie]) * denominator * k
            coins[tie] = _integer_below(denominator * k, randomness=randomness) < rest
        outcome[active[~coins]] = k % 2 == 1
        active = active[coins]
        k += 1
    return outcome


def _uniform(count: int, *, below: int, randomness: Randomness) -> Int64[ndarray, "count"]:
    """Integers uniform in ``[0, below)``, by rejection."""
    spare = np.uint64(WORD_BITS - (below - 1).bit_length())
    kept = np.empty(0, dtype=np.int64)
    while kept.size < count:
        drawn = (uniform_words(2 * (count - kept.size), randomness=randomness) >> spare).astype(np.int64)
        kept = np.concatenate([kept, drawn[drawn < below]])
    return kept[:count]


def _integer_below(limit: int, *, randomness: Randomness) -> int:
    size = (limit.bit_length() + 7) // 8
    mask = (1 << limit.bit_length()) - 1
    while (drawn := int.from_bytes(_bytes(size, randomness), "little") & mask) >= limit:
        pass
    return drawn


def uniform_words(count: int, *, randomness: Randomness) -> UInt64[ndarray, "count"]:
    """Uniform words of 63 bits."""
    words: UInt64[ndarray, "count"] = np.frombuffer(_bytes(8 * count, randomness), dtype="<u8") >> np.uint64(1)
    return words


def _bytes(count: int, randomness: Randomness) -> bytes:
    drawn = randomness(count)
    if len(drawn) != count:
        raise InputError(f"noise: expected {count} random bytes, got {len(drawn)}")
    return drawn
