"""Values that carry their level: whatever is computed from whatever, two values can be added."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counts import counts
from mibao.errors import InputError, IntegrityError
from mibao.he.engine_seal import SealEngine
from mibao.he.leveled import Arithmetic, Leveled, level_scales
from mibao.he.parameters import Parameters

ENGINE = SealEngine(Parameters(ring_degree=8192, modulus_bits=(40, 33, 33, 33, 33, 42), scale_bits=33))
SECRET = ENGINE.generate_secret_key()
ARITHMETIC = Arithmetic(
    ENGINE,
    relinearization=ENGINE.generate_relinearization_key(SECRET),
    rotations=ENGINE.generate_galois_keys(SECRET, [1, 2]),
)
SLOTS = 4096


def encrypted(values):
    return Leveled(ciphertext=ENGINE.encrypt(SECRET, ENGINE.encode(values, scale=ARITHMETIC.scales[0])), level=0)


def decrypted(value):
    return ENGINE.decrypt(SECRET, value.ciphertext)


STEPS = ["square", "product", "times", "vector", "weighted", "counted", "lowered", "shifted", "folded", "rotated"]


@settings(max_examples=counts(short=25, long=1000), deadline=None)
@given(steps=st.lists(st.sampled_from(STEPS), max_size=6), seed=st.integers(0, 2**32 - 1))
def test_any_computation_is_the_one_on_numbers_and_adds_to_any_other(steps, seed):
    rng, arithmetic = np.random.default_rng(seed), ARITHMETIC
    right = first_right = rng.uniform(-1, 1, SLOTS)
    value = first = encrypted(right)
    for step in steps:
        free = value.level < arithmetic.last_level
        factor = float(rng.uniform(0.1, 1))
        if step == "square" and free:
            value, right = arithmetic.square(value), right**2
        elif step == "product" and free:
            value, right = arithmetic.product(value, first), right * first_right
        elif step == "times" and free:
            value, right = arithmetic.times(value, factor), right * factor
        elif step == "vector" and free:
            value, right = arithmetic.times(value, first_right), right * first_right
        elif step == "weighted" and free:
            value, right = arithmetic.weighted([value, first], [factor, -1.0]), right * factor - first_right
        elif step == "counted":
            value, right = arithmetic.counted([value, first], [-2, 3]), 3 * first_right - 2 * right
        elif step == "lowered" and free:
            level = int(rng.integers(value.level + 1, arithmetic.last_level + 1))
            value, right = arithmetic.lowered(value, level, factor=factor), right * factor
        elif step == "shifted":
            value, right = arithmetic.shifted(value, factor), right + factor
        elif step == "folded":
            value, right = arithmetic.folded(value, [1]), right + np.roll(right, -1)
        elif step == "rotated":
            value, right = arithmetic.rotated(value, 2), np.roll(right, -2)
    total = arithmetic.sum(value, first)
    assert total.level == value.level
    assert np.max(np.abs(decrypted(total) - right - first_right)) < 1e-3


def test_a_sum_of_products_is_relinearised_once_and_takes_one_level():
    rng = np.random.default_rng(0)
    left, right = rng.uniform(-1, 1, (2, 3, SLOTS))
    total = ARITHMETIC.sum_of_products([encrypted(row) for row in left], [encrypted(row) for row in right])
    assert total.level == 1
    assert np.max(np.abs(decrypted(total) - np.sum(left * right, axis=0))) < 1e-4


def test_scales_stay_near_the_primes_however_far_apart_those_lie():
    small = SealEngine(Parameters(ring_degree=16384, modulus_bits=(38, *(27,) * 13, 40), scale_bits=27))
    assert np.max(np.abs(np.log2(level_scales(small)) - 27)) < 0.2


def test_levels_that_are_used_up_are_refused():
    value = ARITHMETIC.lowered(encrypted(np.ones(4)), ARITHMETIC.last_level)
    with pytest.raises(InputError, match="levels: 4 are too few for this computation"):
        ARITHMETIC.square(value)


def test_no_value_is_brought_up():
    value = ARITHMETIC.lowered(encrypted(np.ones(4)), 2)
    for level, factor in ((1, 1.0), (2, 0.5), (5, 1.0)):
        with pytest.raises(InputError, match=f"levels: a value at level 2 cannot be brought to level {level}"):
            ARITHMETIC.lowered(value, level, factor=factor)


def test_rotations_without_keys_are_refused():
    bare = Arithmetic(ENGINE, relinearization=ENGINE.generate_relinearization_key(SECRET))
    with pytest.raises(InputError, match="levels: rotations take Galois keys"):
        bare.rotated(encrypted(np.ones(4)), 1)


def test_a_sum_that_would_be_in_clear_is_refused():
    with pytest.raises(IntegrityError, match="levels: every factor is zero"):
        ARITHMETIC.weighted([encrypted(np.ones(4))], [0.0])
