import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mibao.dp import gaussian_on_grid, noise_added, share_variance
from mibao.errors import InputError
from mibao.types import Mechanism, RandomId


@given(st.integers(1, 1 << 60), st.floats(1e-3, 1e3), st.integers(1, 1000))
def test_the_shares_add_up_to_the_promised_variance_exactly(squared, multiplier, contributors):
    share = share_variance(squared_sensitivity=squared, noise_multiplier=multiplier, contributors=contributors)
    assert share * contributors == Fraction(multiplier) ** 2 * squared


def test_the_event_counts_only_those_who_took_part():
    share = share_variance(squared_sensitivity=900, noise_multiplier=3.0, contributors=5)
    event = noise_added(
        session=RandomId(bytes(16)),
        round_number=2,
        contributors=4,
        variance_each=share,
        squared_sensitivity=900,
        dimension=7,
    )
    assert event.mechanism is Mechanism.DISTRIBUTED_DISCRETE_GAUSSIAN
    assert (event.contributors, event.sensitivity, event.dimension, event.round) == (4, 30.0, 7, 2)
    assert event.noise_multiplier == pytest.approx(3.0 * math.sqrt(4 / 5), rel=1e-12)


@pytest.mark.parametrize(
    ("squared", "multiplier", "contributors"),
    [(0, 1.0, 5), (9, 0.0, 5), (9, math.inf, 5), (9, math.nan, 5), (9, 1.0, 0)],
)
def test_a_share_of_nothing_is_refused(squared, multiplier, contributors):
    with pytest.raises(InputError, match="noise: expected a positive sensitivity"):
        share_variance(squared_sensitivity=squared, noise_multiplier=multiplier, contributors=contributors)


def test_gaussian_noise_on_the_grid_has_the_distribution_that_is_promised():
    stats = pytest.importorskip("scipy.stats")
    drawn = gaussian_on_grid(40_000, std=300.0, randomness=np.random.default_rng(4).bytes)
    assert drawn.dtype == np.int64
    # Rounding to a whole number moves a value by half of one at most, a 600th of the spread.
    assert stats.kstest(drawn / 300.0, "norm").pvalue > 1e-4
    assert stats.kstest(drawn / 280.0, "norm").pvalue < 1e-4
    pairs = drawn[: len(drawn) // 2], drawn[len(drawn) // 2 :]
    assert abs(np.corrcoef(*pairs)[0, 1]) < 4.5 / np.sqrt(len(pairs[0]))
    assert gaussian_on_grid(0, std=2.0, randomness=bytes).size == 0


@pytest.mark.parametrize(("count", "std"), [(-1, 2.0), (1, 0.5), (1, float("nan")), (1, 2.0**41)])
def test_gaussian_noise_that_cannot_be_drawn_is_refused(count, std):
    with pytest.raises(InputError, match="expected a standard deviation in 1"):
        gaussian_on_grid(count, std=std, randomness=bytes)
