import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mibao.deid.anonymity import classes, entropy_l_diversity, k_anonymity, l_diversity, risk, t_closeness
from mibao.errors import InputError

FIXED = settings(derandomize=True, deadline=None, max_examples=60)
_ROWS = st.lists(st.tuples(st.integers(0, 2), st.sampled_from("ab"), st.integers(0, 4)), min_size=1, max_size=30)


def _table(rows: list[tuple[int, str, int]]) -> dict[str, list[object]]:
    return {name: [row[index] for row in rows] for index, name in enumerate(("age", "sex", "illness"))}


@FIXED
@given(_ROWS)
def test_the_measures_agree_with_their_definitions(rows: list[tuple[int, str, int]]) -> None:
    table, quasi = _table(rows), ["age", "sex"]
    groups = Counter((age, sex) for age, sex, _ in rows)
    assert k_anonymity(table, quasi) == min(groups.values())
    values = [{illness for age, sex, illness in rows if (age, sex) == group} for group in groups]
    assert l_diversity(table, quasi, "illness") == min(map(len, values))
    assert 1 <= entropy_l_diversity(table, quasi, "illness") <= l_diversity(table, quasi, "illness") + 1e-9
    assert 0 <= t_closeness(table, quasi, "illness") <= 1
    assert t_closeness(table, ["age"], "age") <= 1
    measured = risk(table, quasi)
    assert measured.prosecutor == 1 / min(groups.values())
    assert measured.marketer == len(groups) / len(rows)
    assert measured.journalist_unique == sum(1 for size in groups.values() if size == 1) / len(rows)


def test_t_closeness_is_that_of_the_papers_example() -> None:
    salaries = [3, 4, 5, 6, 11, 8, 7, 9, 10]  # Li et al., table 3, in thousands
    table = {"class": [1, 1, 1, 2, 2, 2, 3, 3, 3], "salary": salaries}
    assert t_closeness(table, ["class"], "salary") == pytest.approx(0.375)
    one = {"class": [1] * 3 + [2] * 6, "salary": [6, 8, 11, 3, 4, 5, 7, 9, 10]}
    gaps = [1 / 3 * (value in (6, 8, 11)) - 1 / 9 for value in sorted(salaries)]
    carried = [math.fsum(gaps[: index + 1]) for index in range(9)]
    assert t_closeness(one, ["class"], "salary") == pytest.approx(sum(map(abs, carried)) / 8)


def test_the_measures_are_pycanons() -> None:
    rows = range(60)
    table = {
        "age": [["20-29", "30-39", "40-49"][i * i % 7 % 3] for i in rows],
        "sex": ["mf"[i * 5 % 11 % 2] for i in rows],
        "illness": [["flu", "gout", "asthma"][i * 3 % 7 % 3] for i in rows],
        "pay": [[1, 2, 3, 5, 8][i * i * i % 13 % 5] for i in rows],
    }
    quasi = ["age", "sex"]  # what pycanon 1.3.6 says of this table; its l by entropy is rounded down
    assert k_anonymity(table, quasi) == 3
    assert l_diversity(table, quasi, "illness") == 1
    assert math.floor(entropy_l_diversity(table, quasi, "illness") + 1e-9) == 1
    assert t_closeness(table, quasi, "illness") == pytest.approx(0.7166666666666667)
    assert t_closeness(table, quasi, "pay") == pytest.approx(0.25)


def test_words_are_all_as_far_from_one_another() -> None:
    table = {"class": [1, 1, 2, 2], "illness": ["flu", "flu", "gout", "flu"]}
    assert t_closeness(table, ["class"], "illness") == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("table", "quasi", "message"),
    [
        ({"age": [1]}, ["sex"], r"^anonymity: no column sex; there are age$"),
        ({"age": [1]}, [], r"^anonymity: expected at least one quasi-identifier$"),
        ({"age": []}, ["age"], r"^anonymity: expected a table with rows$"),
    ],
)
def test_a_table_that_cannot_be_measured_is_refused(
    table: dict[str, list[int]], quasi: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        classes(table, quasi)


def test_a_missing_sensitive_column_is_refused() -> None:
    with pytest.raises(InputError, match=r"^anonymity: no column illness; there are age$"):
        l_diversity({"age": [1]}, ["age"], "illness")
