import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mibao.errors import InputError
from mibao.he.calibrated_range import check_range, outside

LOW, HIGH = np.array([0.0, -1.0, 5.0]), np.array([1.0, 1.0, 5.0])


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 20))
def test_exactly_the_values_outside_are_found(seed, rows):
    records = np.random.default_rng(seed).choice([-2.0, -1.0, 0.0, 0.5, 1.0, 5.0, np.nan, np.inf], size=(rows, 3))
    found = outside(records, low=LOW, high=HIGH)
    for row in range(rows):
        for feature in range(3):
            assert found[row, feature] == (not LOW[feature] <= records[row, feature] <= HIGH[feature])


def test_places_are_named_and_values_are_not():
    records = np.array([[0.5, 0.0, 5.0], [0.5, 123.456, 5.0], [0.5, 0.0, 789.25]])
    with pytest.raises(InputError) as caught:
        check_range(records, low=LOW, high=HIGH, names=("a", "b", "c"))
    assert str(caught.value).startswith(
        "records: 2 values in 2 rows are outside the calibrated range: row 1, feature 1 (b); row 2, feature 2 (c). "
    )
    assert "123" not in str(caught.value) and "789" not in str(caught.value)


def test_many_places_are_counted():
    with pytest.raises(InputError, match=r"30 values in 10 rows .* row 1, feature 1 and 25 more\. "):
        check_range(np.full((10, 3), 99.0), low=LOW, high=HIGH)


def test_bounds_themselves_are_within():
    check_range(np.stack([LOW, HIGH]), low=LOW, high=HIGH)
