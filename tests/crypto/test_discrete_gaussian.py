import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest

from counts import counts
from mibao.crypto.discrete_gaussian import _exp_coins, discrete_gaussian, wide_discrete_gaussian
from mibao.crypto.prg import keystream
from mibao.errors import InputError
from vectors_io import vectors

VECTORS = vectors("crypto", "discrete_gaussian")


def stream(seed_hex):
    """A byte source that a vector can name: AES-256-CTR under a seed."""
    drawn = keystream(bytes.fromhex(seed_hex), 1 << 20)
    position = 0

    def randomness(count):
        nonlocal position
        position += count
        assert position <= len(drawn)
        return drawn[position - count : position]

    return randomness


def probabilities(variance, reach):
    """The distribution itself, by its definition, on -reach..reach."""
    weights = [math.exp(-x * x / (2 * float(variance))) for x in range(-reach, reach + 1)]
    return np.array(weights) / math.fsum(weights)


def p_value(samples, variance):
    """Chi-square of the samples against the definition, with at least 10 expected in each cell."""
    reach = math.ceil(12 * math.sqrt(variance)) + 2
    expected = probabilities(variance, reach) * len(samples)
    observed = np.bincount(samples + reach, minlength=2 * reach + 1)
    common = expected >= 10
    cells = np.append(observed[common], observed[~common].sum()), np.append(expected[common], expected[~common].sum())
    return chisquare(cells[0][cells[1] > 0], cells[1][cells[1] > 0], sum_check=False).pvalue


@settings(max_examples=40, deadline=None)
@given(
    st.fractions(min_value=Fraction(1, 50), max_value=1 << 111),
    st.integers(0, 40),
    st.integers(0, 1 << 64),
)
def test_equal_bytes_give_equal_integers_of_plausible_size(variance, count, seed):
    first = discrete_gaussian(count, variance=variance, randomness=np.random.default_rng(seed).bytes)
    again = discrete_gaussian(count, variance=variance, randomness=np.random.default_rng(seed).bytes)
    assert first.tolist() == again.tolist()
    assert first.shape == (count,)
    assert np.all(np.abs(first.astype(np.float64)) <= 12 * math.sqrt(variance) + 12)


@pytest.mark.parametrize("variance", [Fraction(1, 9), Fraction(1, 4), Fraction(1), Fraction(10, 3), Fraction(400)])
def test_samples_follow_the_discrete_gaussian(variance):
    size = counts(short=20_000, long=1_000_000)
    samples = discrete_gaussian(size, variance=variance, randomness=np.random.default_rng(7).bytes)
    assert p_value(samples, variance) > 1e-4


def test_the_check_above_notices_a_variance_that_is_a_tenth_too_small():
    samples = discrete_gaussian(20_000, variance=Fraction(9), randomness=np.random.default_rng(7).bytes)
    assert p_value(samples, Fraction(10)) < 1e-6


@pytest.mark.parametrize("variance", [Fraction(1, 9), Fraction(1, 4), Fraction(1, 2)])
def test_small_variances_have_the_exact_probabilities_of_zero_and_one(variance):
    size = counts(short=50_000, long=2_000_000)
    samples = discrete_gaussian(size, variance=variance, randomness=np.random.default_rng(11).bytes)
    exact = probabilities(variance, 30)
    for value in (-1, 0, 1):
        chance = float(exact[30 + value])
        assert abs(np.mean(samples == value) - chance) < 4.5 * math.sqrt(chance * (1 - chance) / size)


def test_large_variances_have_the_moments_of_a_gaussian():
    variance = Fraction(7_500_003**2, 5)
    size = counts(short=20_000, long=1_000_000)
    scaled = discrete_gaussian(size, variance=variance, randomness=np.random.default_rng(3).bytes) / math.sqrt(variance)
    assert abs(scaled.mean()) < 4.5 / math.sqrt(size)
    assert abs(scaled.var() - 1) < 4.5 * math.sqrt(2 / size)
    assert abs((scaled**4).mean() - 3) < 4.5 * math.sqrt(96 / size)
    assert np.mean(
        discrete_gaussian(2000, variance=variance, randomness=np.random.default_rng(4).bytes) % 2
    ) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(("numerator", "denominator"), [(0, 1), (1, 1), (1, 3), (2, 3), (10**30, 3 * 10**30 + 1)])
def test_coins_come_up_with_the_probability_of_the_exponential(numerator, denominator):
    size = 20_000
    share = _exp_coins([numerator] * size, denominator, randomness=np.random.default_rng(5).bytes).mean()
    chance = math.exp(-numerator / denominator)
    assert abs(share - chance) <= 4.5 * math.sqrt(chance * (1 - chance) / size)


@pytest.mark.parametrize(("drawn", "coin"), [(0, True), (1, True), (2, False)])
def test_a_word_on_the_threshold_is_decided_by_the_bits_beyond_it(drawn, coin):
    # 2**63 / 3 leaves a remainder of 2 thirds: of 0, 1 and 2 the first two mean that the coin comes up.
    threshold = (1 << 63) // 3
    script = [(threshold << 1).to_bytes(8, "little"), bytes([drawn]), ((1 << 64) - 1).to_bytes(8, "little")]
    outcome = _exp_coins([1], 3, randomness=lambda count: script.pop(0))
    # If the first coin comes up a second is tossed, which fails: k is 2. Else k is 1.
    assert bool(outcome[0]) is not coin


@pytest.mark.parametrize("case", VECTORS["samples"], ids=lambda case: case["variance"])
def test_known_bytes_give_the_known_samples(case):
    samples = discrete_gaussian(
        len(case["expected"]), variance=Fraction(case["variance"]), randomness=stream(case["seed"])
    )
    assert samples.tolist() == case["expected"]


def test_the_largest_variance_has_the_moments_of_a_gaussian():
    variance = Fraction((1 << 112) - 1)
    samples = discrete_gaussian(4000, variance=variance, randomness=np.random.default_rng(6).bytes)
    scaled = samples / math.sqrt(variance)
    assert abs(scaled.var() - 1) < 4.5 * math.sqrt(2 / 4000)
    assert np.max(np.abs(scaled)) < 8


@pytest.mark.parametrize("bits", [112, 130, 199])
def test_wider_samples_have_the_moments_of_a_gaussian_and_uniform_low_bits(bits):
    variance, size = (1 << bits) + 12345, 8000
    samples = wide_discrete_gaussian(size, variance=variance, randomness=np.random.default_rng(bits).bytes)
    scaled = np.array([float(sample) for sample in samples]) / math.sqrt(variance)
    assert kstest(scaled, "norm").pvalue > 1e-4
    assert abs(scaled.var() - 1) < 4.5 * math.sqrt(2 / size)
    for shift in (0, 44, 46, 48):  # across the seam of the two grids
        cells = np.bincount([(sample >> shift) & 7 for sample in samples], minlength=8)
        assert np.max(np.abs(cells - size / 8)) < 5 * math.sqrt(size / 8)


def test_a_width_that_fits_is_drawn_as_before():
    narrow = discrete_gaussian(50, variance=Fraction(99), randomness=np.random.default_rng(1).bytes)
    assert wide_discrete_gaussian(50, variance=99, randomness=np.random.default_rng(1).bytes) == narrow.tolist()


def test_a_variance_over_two_hundred_bits_is_refused():
    with pytest.raises(InputError, match=r"noise: expected a variance in \(0, 2\*\*200\)"):
        wide_discrete_gaussian(1, variance=1 << 200, randomness=np.random.default_rng(1).bytes)


@pytest.mark.parametrize("variance", [Fraction(0), Fraction(-1), Fraction(1 << 112)])
def test_a_variance_out_of_range_is_refused(variance):
    with pytest.raises(InputError, match="noise: expected a variance"):
        discrete_gaussian(1, variance=variance, randomness=np.random.default_rng(1).bytes)


def test_a_negative_count_is_refused():
    with pytest.raises(InputError, match="a count of 0 or more"):
        discrete_gaussian(-1, variance=Fraction(1), randomness=np.random.default_rng(1).bytes)


def test_a_byte_source_that_runs_dry_is_refused():
    with pytest.raises(InputError, match="random bytes, got 3"):
        discrete_gaussian(1, variance=Fraction(1), randomness=lambda count: bytes(3))
