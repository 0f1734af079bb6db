import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mibao.dp import clip_rows, clip_to_grid, clip_updates, squared_sensitivity
from mibao.errors import InputError

rows = arrays(
    np.float64,
    st.tuples(st.integers(0, 6), st.integers(1, 8)),
    elements=st.floats(allow_nan=False, allow_infinity=False),
)


@given(rows, st.floats(1e-6, 1e6))
def test_no_row_is_longer_than_the_bound_however_large_its_entries(values, bound):
    clipped = clip_rows(values, bound=bound)
    for row in clipped.tolist():
        assert math.hypot(*row) <= bound * (1 + 1e-12)


@given(rows, st.floats(1e-6, 1e6))
def test_rows_keep_their_direction_and_short_rows_stay_as_they_are(values, bound):
    clipped = clip_rows(values, bound=bound)
    for before, after in zip(values.tolist(), clipped.tolist(), strict=True):
        if math.hypot(*before) <= bound * (1 - 1e-12):
            assert after == before
        else:
            largest = max(map(abs, before))
            unit = [entry / largest for entry in before]
            norm = math.hypot(*unit)
            assert after == pytest.approx([entry * bound / norm for entry in unit], rel=1e-9, abs=bound * 1e-12)


@given(rows, st.floats(0.01, 100.0), st.integers(7, 20))
def test_no_record_on_the_grid_exceeds_the_sensitivity_in_integers(values, clip, scale_bits):
    grid = clip_to_grid(values, clip=clip, scale_bits=scale_bits)
    limit = squared_sensitivity(clip=clip, scale_bits=scale_bits, dimension=values.shape[1])
    assert all(sum(entry * entry for entry in row) <= limit for row in grid.tolist())


@given(rows, st.floats(0.01, 100.0), st.integers(7, 20))
def test_the_grid_is_within_half_a_unit_of_the_clipped_rows(values, clip, scale_bits):
    grid = clip_to_grid(values, clip=clip, scale_bits=scale_bits)
    exact = np.ldexp(clip_rows(values, bound=clip), scale_bits)
    assert np.all(np.abs(grid - exact) <= 0.5 + 1e-9 * np.abs(exact))


def test_a_row_that_rounding_left_too_long_is_pulled_in(monkeypatch):
    # Clipping that fails by two units stands for float error at its worst.
    monkeypatch.setattr("mibao.dp.clipping.clip_rows", lambda values, *, bound: np.full((1, 1), bound + 2.0))
    grid = clip_to_grid(np.array([[9.0]]), clip=4.0, scale_bits=0)
    assert grid.tolist() == [[4]]


def test_the_sensitivity_counts_the_rounding():
    assert squared_sensitivity(clip=1.0, scale_bits=4, dimension=16) == (16 + 2) ** 2
    # Reached but for the half units: 16 entries of 4.5 round to even, entries just above round up.
    grid = clip_to_grid(np.full((1, 16), 0.250001), clip=1.125, scale_bits=1)
    assert int((grid**2).sum()) == 16
    assert 16 > (1.125 * 2) ** 2  # without the rounding term the bound would be broken
    assert int((grid**2).sum()) <= squared_sensitivity(clip=1.125, scale_bits=1, dimension=16)


@pytest.mark.parametrize("bound", [0.0, -1.0, math.nan, math.inf])
def test_a_bound_that_bounds_nothing_is_refused(bound):
    with pytest.raises(InputError, match="expected a positive bound"):
        clip_rows(np.zeros((1, 1)), bound=bound)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_is_refused(value):
    with pytest.raises(InputError, match="clipping: expected finite values"):
        clip_rows(np.array([[1.0, value]]), bound=1.0)


@pytest.mark.parametrize(("clip", "scale_bits"), [(0.0, 20), (-1.0, 20), (0.1, 2), (2.0, 30), (math.nan, 20)])
def test_a_clip_that_does_not_fit_the_grid_is_refused(clip, scale_bits):
    with pytest.raises(InputError, match="clipping: expected clip"):
        squared_sensitivity(clip=clip, scale_bits=scale_bits, dimension=3)


@given(st.integers(1, 60), st.floats(0.01, 50.0), st.sampled_from([1e-3, 1.0, 1e6, 1e150]), st.integers(0, 1000))
def test_no_update_leaves_the_grid_longer_than_the_sensitivity(d, clip, size, seed):
    rows = np.random.default_rng(seed).normal(size=(3, d)) * size
    grid = clip_updates(rows, clip=clip, scale_bits=16)
    limit = squared_sensitivity(clip=clip, scale_bits=16, dimension=d)
    for row, kept in zip(rows, grid, strict=True):
        assert np.array_equal(kept, np.rint(kept))
        assert sum(int(value) ** 2 for value in kept) <= limit
        if np.linalg.norm(row) <= clip:
            assert np.abs(np.ldexp(kept, -16) - row).max() <= 2.0**-17 + 1e-12
        else:
            assert np.linalg.norm(np.ldexp(kept, -16)) == pytest.approx(clip, rel=1e-2, abs=np.sqrt(d) * 2.0**-16)


def test_an_update_that_is_not_finite_counts_as_zeros_and_changes_no_other():
    rows = np.array([[1.0, 2.0], [np.nan, 1.0], [np.inf, 0.0]], dtype=np.float32)
    grid = clip_updates(rows, clip=1.0, scale_bits=10)
    assert grid[1:].tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert np.array_equal(grid[0], clip_updates(rows[:1], clip=1.0, scale_bits=10)[0])
