import json
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mibao.deid.checksums import is_resident_id, resident_id_check_character
from mibao.errors import InputError

FIXED = settings(derandomize=True, deadline=None)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors/deid/resident_ids.json").read_text(encoding="utf-8"))

BIRTHS = st.dates(min_value=date(1900, 1, 1), max_value=date(2099, 12, 31))
BODIES = st.builds(
    lambda region, born, order: f"{region}{born:%Y%m%d}{order:03d}",
    st.integers(100000, 999999),
    BIRTHS,
    st.integers(0, 999),
)


@FIXED
@given(BODIES, st.integers(0, 17), st.sampled_from("0123456789X"))
def test_one_wrong_character_is_always_noticed(body: str, place: int, other: str) -> None:
    number = body + resident_id_check_character(body)
    assert is_resident_id(number)
    altered = number[:place] + other + number[place + 1 :]
    assert is_resident_id(altered) == (altered == number)


@FIXED
@given(BODIES, st.integers(0, 16))
def test_exchanged_neighbours_are_always_noticed(body: str, place: int) -> None:
    number = body + resident_id_check_character(body)
    swapped = number[:place] + number[place + 1] + number[place] + number[place + 2 :]
    assert is_resident_id(swapped) == (swapped == number)


@pytest.mark.parametrize("number", VECTORS["valid"])
def test_the_printed_examples_hold(number: str) -> None:
    assert is_resident_id(number)


@pytest.mark.parametrize("case", VECTORS["invalid"], ids=lambda case: case["why"])
def test_a_number_with_one_fault_is_refused(case: dict[str, str]) -> None:
    assert not is_resident_id(case["number"])


@pytest.mark.parametrize("body", ["", "9" * 16, "9" * 18, "9" * 16 + "x", "９" * 17])
def test_a_body_that_is_not_17_digits_has_no_check_character_and_is_not_repeated(body: str) -> None:
    with pytest.raises(InputError, match=r"^resident identity number: expected 17 digits before the check character$"):
        resident_id_check_character(body)
