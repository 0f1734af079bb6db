from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from counts import counts
from mibao.deid import Finding, detect
from mibao.deid.detection import all_rules
from mibao.deid.kinds import REACH, Kind, kinds
from mibao.deid.matching import Candidate
from mibao.deid.matching_hyperscan import HyperscanEngine
from mibao.deid.normalisation import folded
from mibao.deid.scanning import Part, Scanner
from mibao.types import EntityType

ENGINE = HyperscanEngine(all_rules())
SOURCE = settings(
    max_examples=counts(short=60, long=5000), deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
_PIECES = st.sampled_from(
    [kind.example.replace("⟦", "").replace("⟧", "") for kind in kinds()]
    + [kind.counter_example for kind in kinds()]
    + ["患者林晓雨，", "林晓雨", "王医生", "Dr. Chen", " Chen ", "patient name: Lin Xiaoyu", "<PERSON_0000000000>"]
    + ["https://example.com/" + "a/b.c?d=e&" * 12]
    + ["-----BEGIN PRIVATE KEY-----\n" + "MC4CAQAw" * 20 + "\n-----END PRIVATE KEY-----\n"]
    + ["x" * 40 + "@example.com", "a" * 70, "1" * 70, "1-" * 40, "eyJhbGciOiJIUzI1NiJ9." * 5]
)  # fmt: skip
_JOINTS = st.sampled_from(["", " ", "，", "\n", "的", "-", ": ", "1", "x", "\u200b", "\u200b" * 70, ".", "／", "<"])
TEXTS = st.lists(_PIECES | _JOINTS, max_size=6).map("".join)


def _parts(pieces: list[str]) -> Iterator[Part]:
    scanner, fed = Scanner(ENGINE), ""
    for piece in pieces:
        fed += piece
        yield from scanner.feed(piece)
        held = fed[scanner.decided :]
        assert len(folded(held).text) <= REACH
    yield from scanner.close()
    assert scanner.decided == len(fed)


@SOURCE
@given(TEXTS, st.data())
def test_parts_do_not_depend_on_how_the_text_is_cut_and_no_more_than_64_characters_are_held(
    text: str, data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=12)))
    pieces = [text[start:end] for start, end in pairwise([0, *cuts, len(text)])]
    whole = list(_parts([text]))
    assert list(_parts(pieces)) == whole
    assert all(0 <= part.start < part.end <= len(text) for part in whole)
    assert all(one.end <= two.start for one, two in pairwise(whole))


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.type.value)
def test_every_example_is_the_same_cut_into_characters(kind: Kind) -> None:
    text = "电话：" + kind.example.replace("⟦", "").replace("⟧", "") + " Dr. Chen."
    assert list(_parts(list(text))) == list(_parts([text]))


def test_a_text_is_the_same_at_every_cut() -> None:
    text = "患者林晓雨，电话138-0013-8000，身份证110101-19900307-7352。 Dr. Chen, a@example.com, 4111 1111 1111 1111."
    whole = list(_parts([text]))
    assert len(whole) == 6
    assert all(list(_parts([text[:cut], text[cut:]])) == whole for cut in range(len(text) + 1))


class _Listed:
    """An engine whose candidates are given."""

    rules = ()

    def __init__(self, *places: tuple[int, int, float]) -> None:
        self.places = places

    def candidates(self, text: str) -> list[Candidate]:
        return [Candidate(start, end, score, EntityType.PERSON, "test") for start, end, score in self.places]


@pytest.mark.parametrize(
    ("places", "chosen"),
    [
        ([(0, 6, 0.1), (4, 9, 0.8), (8, 10, 0.9)], [(0, 6), (8, 10)]),  # the leftmost
        ([(0, 4, 0.8), (0, 6, 0.7)], [(0, 6)]),  # then the longest
        ([(0, 6, 0.7), (0, 4, 0.95)], [(0, 4)]),  # the strong before the weak
        ([(0, 4, 0.7), (0, 4, 0.8)], [(0, 4)]),
        ([(0, 6, 0.7), (4, 9, 0.95)], [(4, 9)]),  # a weak one gives way
        ([(0, 6, 0.95), (4, 9, 0.99)], [(0, 6)]),  # a strong one does not
        ([(0, 6, 0.7), (2, 5, 0.7), (4, 9, 0.95)], [(4, 9)]),
        ([(0, 6, 0.7), (1, 3, 0.7), (4, 9, 0.95)], [(1, 3), (4, 9)]),
    ],
)
def test_the_leftmost_wins_then_the_strong_then_the_longest(
    places: list[tuple[int, int, float]], chosen: list[tuple[int, int]]
) -> None:
    found = detect("x" * 12, engine=_Listed(*places))
    assert [(each.start, each.end) for each in found] == chosen


def test_a_name_is_known_from_its_first_cue_on() -> None:
    text = "Chen came. Dr. Chen left. Ask Chen or Chenille."
    found = detect(text, engine=ENGINE)
    assert [text[each.start : each.end] for each in found] == ["Chen", "Chen"]
    assert [each.start for each in found] == [15, 30]


def test_another_detector_is_asked_and_its_findings_take_part() -> None:
    class Places:
        def find(self, text: str) -> tuple[Finding, ...]:
            start = text.find("Lyon")
            return (Finding(type=EntityType.LOCATION, start=start, end=start + 4, score=0.8, why="a list"),)

    text = "x\u200by to Lyon, lin@example.com"
    found = detect(text, detectors=(Places(),))
    assert [(each.type, text[each.start : each.end]) for each in found] == [
        (EntityType.LOCATION, "Lyon"),
        (EntityType.EMAIL_ADDRESS, "lin@example.com"),
    ]


def test_a_long_value_is_one_finding_in_parts() -> None:
    url = "https://example.com/" + "path/" * 40 + "end"
    text = f"see {url}. Then"
    assert [text[each.start : each.end] for each in detect(text)] == [url]
    parts = list(_parts([text]))
    assert len(parts) > 3
    assert [part.continues for part in parts] == [False] + [True] * (len(parts) - 1)
    assert all(part.end - part.start <= REACH for part in parts)


@pytest.mark.parametrize("length", range(20, 140, 3))
def test_a_value_of_any_length_ends_where_it_ends_and_the_next_is_its_own(length: int) -> None:
    url = "https://example.com/" + "a" * (length - 20)
    text = f"see {url} and later lin@example.com"
    assert [text[each.start : each.end] for each in detect(text)] == [url, "lin@example.com"]
