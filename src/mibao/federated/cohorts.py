"""Who takes part in a round."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mibao.errors import InputError

_WORD_BITS = 63


def draw_cohort(clients: int, *, size: int, seed: int, round_number: int) -> tuple[int, ...]:
    """``size`` of ``clients``, ascending; equal seeds give equal cohorts. No privacy is claimed from these."""
    if size == clients:
        return tuple(range(clients))
    drawn = np.random.default_rng([seed, round_number]).choice(clients, size=size, replace=False)
    return tuple(sorted(drawn.tolist()))


def draw_by_chance(clients: int, *, size: int, randomness: Callable[[int], bytes]) -> tuple[int, ...]:
    """Each of ``clients`` on its own with a chance of ``size / clients``: a Poisson sample, as the accountant means it.

    The chance is rounded down to a multiple of ``2**-63``.

    Raises:
        InputError: ``randomness`` gave too few bytes.
    """
    drawn = randomness(8 * clients)
    if len(drawn) != 8 * clients:
        raise InputError(f"cohort: expected {8 * clients} random bytes, got {len(drawn)}")
    words = np.frombuffer(drawn, dtype="<u8") >> np.uint64(1)
    below = (size << _WORD_BITS) // clients
    return tuple(np.flatnonzero(words < np.uint64(below)).tolist())
