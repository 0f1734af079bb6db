import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mibao.deid.anonymity import journalist
from mibao.deid.risk_page import RiskFigures, risk_page
from mibao.errors import InputError
from mibao.types import Language

FIXED = settings(derandomize=True, deadline=None, max_examples=30)
_VOID = {"meta", "line", "rect", "polyline"}


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@FIXED
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=20), st.sampled_from(Language), st.floats(0.001, 1) | st.none()
)
def test_the_page_is_whole_fetches_nothing_and_shows_the_figures(
    sizes: list[int], language: Language, population: float | None
) -> None:
    figures = RiskFigures(
        sizes=sizes, quasi=["age<b>", "zip"], prosecutor=1 / min(sizes), journalist=population,
        marketer=len(sizes) / sum(sizes), measures={"k": float(min(sizes)), "t": 0.25},
    )  # fmt: skip
    page = risk_page(figures, language=language)
    tags = _Tags()
    tags.feed(page)
    assert tags.open == []
    assert not re.search(r"https?://|<script|src=|@import|url\(", page)
    assert "age<b>, zip" in tags.text
    assert f"{len(sizes):,}" in tags.text
    assert ("记者风险" in tags.text) == (language is Language.CHINESE)
    numbers = [float(number) for number in re.findall(r'(?:x|y|width|height|x1|x2|y1|y2)="([0-9.-]+)"', page)]
    assert all(-0.1 <= number <= 640 for number in numbers)


def test_the_journalists_risk_is_that_of_the_population() -> None:
    population = {"age": [30, 30, 30, 40, 40]}
    assert journalist({"age": [30, 30]}, population, ["age"]) == pytest.approx(1 / 3)
    assert journalist({"age": [30, 40]}, population, ["age"]) == pytest.approx(1 / 2)
    with pytest.raises(InputError, match=r"^anonymity: expected a population that holds every row of the table$"):
        journalist({"age": [50]}, population, ["age"])
    with pytest.raises(InputError, match=r"^anonymity: no column age; there are size$"):
        journalist({"age": [50]}, {"size": [1]}, ["age"])
