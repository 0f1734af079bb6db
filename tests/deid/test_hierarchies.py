import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mibao.deid.hierarchies import ANY, hierarchy_of, parse_hierarchy
from mibao.errors import InputError

FIXED = settings(derandomize=True, deadline=None, max_examples=60)
_COLUMNS = st.one_of(
    st.lists(st.integers(-50, 500) | st.none(), min_size=1, max_size=30),
    st.lists(st.floats(-5, 5), min_size=1, max_size=30),
    st.lists(st.dates().map(str), min_size=1, max_size=20),
    st.lists(st.from_regex("[0-9]{5}", fullmatch=True), min_size=1, max_size=20),
    st.lists(st.sampled_from(["flu", "gout", "", "胃炎"]), min_size=1),
)


@FIXED
@given(_COLUMNS)
def test_each_level_says_less_than_the_one_before_and_the_last_says_nothing(values: list[object]) -> None:
    made = hierarchy_of(values)
    assert all(set(level) == set(values) for level in made.levels)
    for finer, coarser in zip(made.levels, made.levels[1:], strict=False):
        assert len(set(coarser.values())) <= len(set(finer.values()))
    assert set(made.levels[-1].values()) == {ANY}
    for level, lost in zip(made.levels, made.penalty, strict=True):
        assert all(0 <= lost[text] <= 1 for text in level.values())
    assert made.height < 12


@pytest.mark.parametrize(
    ("values", "kind", "levels"),
    [
        (
            ["02138", "02139", "02141", "94107"],
            "codes",
            [["0213*", "0213*", "0214*", "9410*"], ["021**", "021**", "021**", "941**"]],
        ),
        (
            ["2026-03-12", "2026-03-30", "2026-04-01", "2025-01-01"],
            "dates",
            [["2026-03", "2026-03", "2026-04", "2025-01"], ["2026", "2026", "2026", "2025"]],
        ),
        (["m", "f"], "names", []),
    ],
)
def test_a_column_is_read_as_what_stands_in_it(values: list[str], kind: str, levels: list[list[str]]) -> None:
    made = hierarchy_of(values)
    assert made.kind == kind
    found = [[level[value] for value in values] for level in made.levels[1:-1]]
    assert found[: len(levels)] == levels


def test_numbers_stand_in_intervals_of_round_width() -> None:
    ages = list(range(18, 90))
    made = hierarchy_of(ages)
    assert made.kind == "numbers"
    tens = next(level for level in made.levels if level[34] == "30-39")
    assert (tens[30], tens[39], tens[40]) == ("30-39", "30-39", "40-49")
    written = hierarchy_of([str(age) for age in ages])
    assert [level["34"] for level in written.levels] == [level[34] for level in made.levels]


def test_a_hierarchy_of_ones_own_is_read_from_a_table() -> None:
    made = parse_hierarchy("flu,lung\ngout,joint\n", ["gout", "flu", "flu"], source="h.csv")
    assert [level["flu"] for level in made.levels] == ["flu", ANY]
    made = parse_hierarchy("a;x;all\nb;x;all\nc;y;all\n", ["a", "b", "c"], source="h.csv")
    assert [level["b"] for level in made.levels] == ["b", "x", ANY]
    assert made.penalty[1] == {"x": 0.5, "y": 0.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "h.csv: expected lines of a value and 1 to 11 less exact ones, all as long"),
        ("a,b\nc", "h.csv: expected lines of a value and 1 to 11 less exact ones, all as long"),
        ("a,b\na,c", "h.csv: expected each value once"),
        ("b,x", "h.csv: expected a line for each value of the column, 1 have none"),
    ],
)
def test_a_table_that_is_no_hierarchy_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        parse_hierarchy(text, ["a"], source="h.csv")
