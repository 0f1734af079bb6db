import json
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mibao.deid.pseudonyms import PLACEHOLDER, SYMBOLS, check_symbol, form, is_placeholder, stem, stem_of
from mibao.errors import InputError
from mibao.types import EntityType

FIXED = settings(derandomize=True, deadline=None)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors/deid/pseudonyms.json").read_text(encoding="utf-8"))
STEMS = st.text(SYMBOLS, min_size=9, max_size=9)


@FIXED
@given(STEMS, st.integers(0, 9), st.sampled_from(SYMBOLS))
def test_one_wrong_symbol_is_always_noticed(symbols: str, place: int, other: str) -> None:
    right = symbols + check_symbol(symbols)
    wrong = right[:place] + other + right[place + 1 :]
    assert is_placeholder(f"<PERSON_{wrong}>") == (wrong == right)


@FIXED
@given(STEMS)
def test_two_exchanged_symbols_are_always_noticed(symbols: str) -> None:
    right = symbols + check_symbol(symbols)
    for one, two in combinations(range(10), 2):
        swapped = list(right)
        swapped[one], swapped[two] = right[two], right[one]
        assert is_placeholder(f"<PERSON_{''.join(swapped)}>") == ("".join(swapped) == right)


@pytest.mark.parametrize("row", VECTORS["rows"], ids=lambda row: f"{row['canonical']} {row['attempt']}")
def test_stems_and_forms_are_the_known_ones(row: dict[str, str]) -> None:
    key, entity, attempt = bytes.fromhex(VECTORS["scope_key"]), EntityType(row["type"]), int(row["attempt"])
    assert stem(entity, row["canonical"], scope_key=key, attempt=attempt) == row["stem"]
    assert form(entity, row["written"], scope_key=key, attempt=attempt) == row["form"]
    placeholder = f"<{entity.value}_{row['stem']}_{row['form']}>"
    assert is_placeholder(placeholder)
    assert stem_of(placeholder) == row["stem"]


def test_key_type_and_attempt_each_change_the_stem() -> None:
    key, other = bytes(32), bytes(31) + b"\x01"
    stems = {
        stem(EntityType.PERSON, "Lin", scope_key=key, attempt=0),
        stem(EntityType.PERSON, "Lin", scope_key=other, attempt=0),
        stem(EntityType.PERSON, "Lin", scope_key=key, attempt=1),
        stem(EntityType.MEDICAL_RECORD, "Lin", scope_key=key, attempt=0),
    }
    assert len(stems) == 4


@pytest.mark.parametrize(
    "text",
    ["", "PERSON_0000000000", "<PERSON_0000000000", "<person_0000000000>", "<PERSON_000000000>", "<PERSON_00000000000>",
     "<PERSON_0000000000_000>", "<PERSON_0000000000_00000>", "<PERSON_000000000O>", "<PERSON 0000000000>",
     "<NO-BODY_0000000000>", "<9BODY_0000000000>",
     "<PERSON_0000000000>\n", "＜PERSON_0000000000＞", "<PERSON_000000000０>"],
)  # fmt: skip
def test_nothing_but_the_exact_grammar_is_a_placeholder(text: str) -> None:
    assert PLACEHOLDER.fullmatch(text) is None
    assert not is_placeholder(text)
    with pytest.raises(InputError, match=r"^placeholder: expected <TYPE_SYMBOLS> or <TYPE_SYMBOLS_FORM>$"):
        stem_of(text)
