import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mibao.codec import fixed_point
from mibao.errors import InputError

VALUES = arrays(np.float64, st.integers(0, 20), elements=st.floats(-100, 100, allow_nan=False))


@given(values=VALUES, scale_bits=st.integers(0, 40))
def test_the_error_of_one_value_stays_within_the_stated_bound(values: np.ndarray, scale_bits: int) -> None:
    integers = fixed_point.to_integers(values, scale_bits=scale_bits, bound=100.0)
    back = fixed_point.from_integers(integers, scale_bits=scale_bits)
    assert np.all(np.abs(back - values) <= 2.0 ** -(scale_bits + 1))


@given(
    addends=arrays(np.float64, st.tuples(st.integers(1, 12), st.integers(1, 5)), elements=st.floats(-9, 9)),
    modulus_bits=st.sampled_from(fixed_point.MODULUS_BITS),
)
def test_a_sum_in_the_ring_is_the_sum_of_the_integers(addends: np.ndarray, modulus_bits: int) -> None:
    integers = [fixed_point.to_integers(row, scale_bits=16, bound=9.0) for row in addends]
    mask = np.uint64((1 << modulus_bits) - 1)
    total = np.zeros(addends.shape[1], dtype=np.uint64)
    for row in integers:
        total = (total + fixed_point.to_ring(row, modulus_bits=modulus_bits)) & mask
    assert np.array_equal(fixed_point.from_ring(total, modulus_bits=modulus_bits), sum(integers))


def test_known_elements() -> None:
    integers = fixed_point.to_integers(np.array([0.5, -0.25, 0.0]), scale_bits=2, bound=1.0)
    assert integers.tolist() == [2, -1, 0]
    assert fixed_point.to_ring(integers, modulus_bits=32).tolist() == [2, 2**32 - 1, 0]
    assert fixed_point.to_ring(integers, modulus_bits=64).tolist() == [2, 2**64 - 1, 0]


@pytest.mark.parametrize(
    ("values", "scale_bits", "bound", "reason"),
    [
        ([np.nan], 8, 1.0, "finite values"),
        ([np.inf], 8, 1.0, "finite values"),
        ([1.5], 8, 1.0, "within ±1, got one outside$"),
        ([0.0], 53, 1.0, "0..52 scale bits"),
        ([0.0], -1, 1.0, "0..52 scale bits"),
        ([0.0], 52, 1e6, r"under 2\*\*62"),
        ([0.0], 8, float("inf"), r"under 2\*\*62"),
        ([0.0], 8, float("nan"), r"under 2\*\*62"),
    ],
)
def test_what_cannot_be_encoded_is_refused(values: list[float], scale_bits: int, bound: float, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        fixed_point.to_integers(np.array(values), scale_bits=scale_bits, bound=bound)


def test_integers_and_moduli_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="does not fit 32 bits"):
        fixed_point.to_ring(np.array([2**31]), modulus_bits=32)
    with pytest.raises(InputError, match="modulus of"):
        fixed_point.to_ring(np.array([1]), modulus_bits=48)
    with pytest.raises(InputError, match="modulus of"):
        fixed_point.from_ring(np.array([1], dtype=np.uint64), modulus_bits=16)
