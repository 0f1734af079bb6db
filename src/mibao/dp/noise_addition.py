"""How much Gaussian noise each contributor to a sum adds, or the server alone, and the record of it.

The exact sampler is :func:`mibao.crypto.discrete_gaussian.discrete_gaussian`.
"""

from __future__ import annotations

from fractions import Fraction
from math import sqrt

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from mibao.crypto.discrete_gaussian import WORD_BITS, Randomness, discrete_gaussian, uniform_words
from mibao.errors import InputError
from mibao.events import NoiseAdded
from mibao.types import Mechanism, RandomId

__all__ = ["discrete_gaussian", "gaussian_added", "gaussian_on_grid", "noise_added", "share_variance"]


def share_variance(*, squared_sensitivity: int, noise_multiplier: float, contributors: int) -> Fraction:
    """The variance that each of ``contributors`` adds, so that their sum carries ``noise_multiplier`` times the
    sensitivity as standard deviation. Exact, in squared grid units.

    Raises:
        InputError: a number is not positive, or the multiplier is not finite.
    """
    if squared_sensitivity < 1 or contributors < 1 or not 0.0 < noise_multiplier < float("inf"):
        raise InputError(
            "noise: expected a positive sensitivity, multiplier and number of contributors, "
            f"got {squared_sensitivity} squared, {noise_multiplier:g} and {contributors}"
        )
    return Fraction(noise_multiplier) ** 2 * squared_sensitivity / contributors


def noise_added(
    *,
    session: RandomId,
    round_number: int,
    contributors: int,
    variance_each: Fraction,
    squared_sensitivity: int,
    dimension: int,
) -> NoiseAdded:
    """The record of one release to whose sum ``contributors`` each added noise of ``variance_each``."""
    return NoiseAdded(
        session=session,
        mechanism=Mechanism.DISTRIBUTED_DISCRETE_GAUSSIAN,
        round=round_number,
        contributors=contributors,
        dimension=dimension,
        sensitivity=sqrt(squared_sensitivity),
        noise_multiplier=sqrt(contributors * variance_each / squared_sensitivity),
        sampling_rate=1.0,
    )


def gaussian_added(
    *,
    session: RandomId,
    round_number: int,
    squared_sensitivity: int,
    noise_multiplier: float,
    dimension: int,
    sampling_rate: float,
) -> NoiseAdded:
    """The record of one release whose sum got :func:`gaussian_on_grid` noise, drawn once.

    Raises:
        InputError: a number is out of range.
    """
    if squared_sensitivity < 1 or not 0.0 < noise_multiplier < float("inf") or not 0.0 < sampling_rate <= 1.0:
        raise InputError("noise: expected a positive sensitivity and multiplier, and a sampling rate in (0, 1]")
    return NoiseAdded(
        session=session,
        mechanism=Mechanism.GAUSSIAN,
        round=round_number,
        contributors=1,
        dimension=dimension,
        sensitivity=sqrt(squared_sensitivity),
        noise_multiplier=noise_multiplier,
        sampling_rate=sampling_rate,
    )


def gaussian_on_grid(count: int, *, std: float, randomness: Randomness) -> Int64[ndarray, "count"]:
    """``count`` independent Gaussians of standard deviation ``std``, each rounded to the nearest integer.

    Added to integers, this is the Gaussian mechanism followed by rounding, which costs no privacy. Every result is an
    integer, so that no low bit of a float is released; what is left of floating point is that the chance of an
    integer is off by about ``2**-40`` of itself, and that nothing lies beyond 9.2 standard deviations. Where that is
    too much, :func:`discrete_gaussian` is exact.

    Raises:
        InputError: ``count`` is negative, ``std`` is not in 1..2**40, or as :func:`discrete_gaussian`.

    Source: Box and Muller, Annals of Mathematical Statistics 29 (1958).
    """
    if count < 0 or not 1.0 <= std <= 2.0**40:
        raise InputError(f"noise: expected a standard deviation in 1..2**40 and a count of 0 or more, got {std:g}")
    pairs = (count + 1) // 2
    words = uniform_words(2 * pairs, randomness=randomness).astype(np.float64)
    # A uniform number in (0, 1]: its logarithm is finite.
    radii = std * np.sqrt(-2.0 * np.log((words[:pairs] + 1.0) * 2.0**-WORD_BITS))
    angles = words[pairs:] * (2.0 * np.pi * 2.0**-WORD_BITS)
    drawn = np.concatenate([radii * np.cos(angles), radii * np.sin(angles)])[:count]
    rounded: Int64[ndarray, "count"] = np.rint(drawn).astype(np.int64)
    return rounded
