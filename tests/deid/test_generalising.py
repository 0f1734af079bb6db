import math
import random
import re
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mibao.deid import anonymity, generalising
from mibao.deid.generalising import Demand, generalise, generalised_columns
from mibao.deid.hierarchies import Hierarchy, hierarchy_of
from mibao.errors import InputError

FIXED = settings(derandomize=True, deadline=None, max_examples=40)
_ROWS = st.lists(
    st.tuples(st.integers(0, 40), st.sampled_from(["02138", "02139", "02141", "94107"]), st.integers(0, 4)),
    min_size=4, max_size=40,
)  # fmt: skip
_DEMANDS = st.builds(
    Demand, k=st.integers(1, 4), l=st.integers(1, 3), t=st.sampled_from([0.3, 0.6, 1.0]),
    most_suppressed=st.sampled_from([0.0, 0.2]),
)  # fmt: skip


def _table(rows: list[tuple[int, str, int]]) -> dict[str, list[object]]:
    return {name: [row[index] for row in rows] for index, name in enumerate(("age", "zip", "illness"))}


def _hierarchies(table: dict[str, list[object]]) -> dict[str, Hierarchy]:
    return {name: hierarchy_of(table[name]) for name in ("age", "zip")}


def _meets(made: dict[str, list[object]], demand: Demand) -> bool:
    quasi = ["age", "zip"]
    return (
        anonymity.k_anonymity(made, quasi) >= demand.k
        and anonymity.l_diversity(made, quasi, "illness") >= demand.l
        and anonymity.t_closeness(made, quasi, "illness") <= demand.t + 1e-9
    )


@FIXED
@given(_ROWS, _DEMANDS)
def test_what_is_found_meets_the_demand_by_the_measures_and_its_loss_is_what_it_says(
    rows: list[tuple[int, str, int]], demand: Demand
) -> None:
    table = _table(rows)
    hierarchies = _hierarchies(table)
    try:
        found = generalise(table, hierarchies, demand, sensitive="illness")
    except InputError:
        whole = len(set(table["illness"])) >= demand.l and len(rows) >= demand.k
        assert not whole
        return
    made = generalised_columns(table, hierarchies, found)
    assert _meets(made, demand)
    left_out = len(rows) - len(made["age"])
    assert found.loss.suppressed == pytest.approx(left_out / len(rows))
    assert left_out <= demand.most_suppressed * len(rows) + 1e-9
    sizes = [len(each) for each in anonymity.classes(made, ["age", "zip"])]
    assert found.loss.discernibility == sum(size * size for size in sizes) + left_out * len(rows)
    cells = [
        hierarchies[name].penalty[found.levels[name]][hierarchies[name].levels[found.levels[name]][table[name][row]]]
        for name in hierarchies
        for row in found.rows
    ]
    assert found.loss.certainty == pytest.approx((math.fsum(cells) + 2 * left_out) / (2 * len(rows)))


@FIXED
@given(_ROWS, st.integers(2, 4), st.sampled_from([0.0, 0.25]))
def test_no_other_combination_of_levels_loses_less(rows: list[tuple[int, str, int]], k: int, most: float) -> None:
    table = _table(rows)
    hierarchies = _hierarchies(table)
    try:
        found = generalise(table, hierarchies, Demand(k=k, most_suppressed=most))
    except InputError:
        assert len(rows) < k
        return
    best = math.inf
    for levels in product(*(range(each.height + 1) for each in hierarchies.values())):
        at = dict(zip(hierarchies, levels, strict=True))
        shown = [[hierarchies[name].levels[at[name]][value] for value in table[name]] for name in hierarchies]
        keys = list(zip(*shown, strict=True))
        kept = [row for row, key in enumerate(keys) if keys.count(key) >= k]
        if not kept or 1 - len(kept) / len(rows) > most:
            continue
        penalties = [hierarchies[name].penalty[at[name]] for name in hierarchies]
        lost = sum(each[column[row]] for each, column in zip(penalties, shown, strict=True) for row in kept)
        best = min(best, (lost + 2 * (len(rows) - len(kept))) / (2 * len(rows)))
    assert found.is_best
    assert found.loss.certainty == pytest.approx(best)


def test_a_large_lattice_is_gone_down_and_still_meets_the_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(3)  # noqa: S311
    rows = [(draw.randint(18, 80), draw.choice(["02138", "02139", "94107"]), draw.randint(0, 3)) for _ in range(500)]
    table = _table(rows)
    demand = Demand(k=5, l=2, most_suppressed=0.02)
    best = generalise(table, _hierarchies(table), demand, sensitive="illness")
    monkeypatch.setattr(generalising, "MOST_NODES", 1)
    found = generalise(table, _hierarchies(table), demand, sensitive="illness")
    assert _meets(generalised_columns(table, _hierarchies(table), found), demand)
    assert not found.is_best
    assert found.loss.certainty >= best.loss.certainty - 1e-12


@pytest.mark.parametrize(
    ("demand", "sensitive", "message"),
    [
        (
            Demand(k=9),
            None,
            "anonymise: not even the whole table as one class meets k=9, l=1, t=1 with at most 5% of the ",
        ),
        (Demand(k=1, l=2), None, "anonymise: expected a sensitive column, which l and t are about"),
        (Demand(k=1), "height", "anonymise: no column height; there are age, zip, illness"),
        (Demand(k=1), "age", "anonymise: expected age to be sensitive or a quasi-identifier, not both"),
        (
            Demand(k=0),
            None,
            "anonymise: expected k and l from 1 on, t from 0 to 1, and most_suppressed from 0 to under 1",
        ),
    ],
)
def test_a_demand_that_cannot_be_met_or_is_none_is_refused(demand: Demand, sensitive: str | None, message: str) -> None:
    table = _table([(30, "02138", 1), (40, "02139", 2)])
    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        generalise(table, _hierarchies(table), demand, sensitive=sensitive)
