from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from counts import counts
from mibao.deid import Vault, detect, restore
from mibao.deid.detection import default_engine, detect_each, names_are_missing, rules_engine
from mibao.deid.kinds import REACH
from mibao.deid.masking import mask
from mibao.deid.matching import CONTEXT, Candidate, Engine
from mibao.deid.matching_names import NamesEngine
from mibao.deid.matching_re import ReEngine
from mibao.deid.names_model import NamesModel, load_session
from mibao.deid.names_pieces import PIECE
from mibao.deid.normalisation import folded
from mibao.deid.scanning import AT_ONCE, Part, Scanner, grouped, whole_findings
from mibao.types import EntityType

SOURCE = settings(
    max_examples=counts(short=60, long=5000), deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
_PIECES = st.sampled_from(
    [
        "Jane O'Neill", " lives in Boston", "\n> ", "??? ", "Miguel and Jennifer", "18 ",
        " 16:20", "Dr. ", "Acme Ltd", "12 Baker Street, Apt. 4, London NW1 6XE, England",
        "王建国", "李晓明在", "浙江省杭州市西湖区文三路478号华星大厦3幢1205室", "阿里巴巴集团", "高级工程师", "患者",
        "，", "。",
        "\n", " ", "-", "的", "\u200b", "\u200b" * 70, "x" * 70, "1" * 40, "a@b.example", "138 0013 8000", "<PERSON_",
        "the company said that ", "他们去年在北京说过", "Maria Fernanda de la Cruz Rodriguez y Gonzalez de Sotomayor",
    ]
)  # fmt: skip
TEXTS = st.lists(_PIECES | st.text(max_size=4), max_size=10).map("".join)


@pytest.fixture(scope="module")
def engine() -> Engine:
    assert names_are_missing() is None
    return default_engine()


def _parts(pieces: list[str]) -> Iterator[Part]:
    scanner, fed = Scanner(default_engine()), ""
    for piece in pieces:
        fed += piece
        yield from scanner.feed(piece)
        assert len(folded(fed[scanner.decided :]).text) <= REACH
    yield from scanner.close()


def _places(parts: Iterator[Part]) -> list[tuple[int, int, EntityType, bool]]:
    return [(part.start, part.end, part.entity, part.continues) for part in parts]


@SOURCE
@given(TEXTS, st.data())
def test_names_do_not_depend_on_how_the_text_is_cut_and_no_more_than_64_characters_are_held(
    text: str, data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=8)))
    pieces = [text[start:end] for start, end in pairwise([0, *cuts, len(text)])]
    whole = _places(_parts([text]))
    assert _places(_parts(pieces)) == whole
    assert all(one[1] <= two[0] for one, two in pairwise(whole))


def test_names_are_the_same_at_every_cut_and_character_by_character() -> None:
    text = (
        "My sister Margaret Olsen moved from Copenhagen to 12 Baker Street, Apt. 4, London NW1 6XE, England last week. "
        "我叫王建国，在阿里巴巴集团担任高级工程师，住在浙江省杭州市西湖区文三路478号华星大厦3幢1205室。"
        "Call Anna on +1 212 555 0123."
    )
    whole = _places(_parts([text]))
    assert len(whole) > 8
    assert all(_places(_parts([text[:cut], text[cut:]])) == whole for cut in range(0, len(text) + 1, 3))
    assert _places(_parts(list(text))) == whole


@SOURCE
@given(TEXTS)
def test_a_text_with_names_is_restored_exactly(text: str) -> None:
    vault = Vault(scope_key=bytes(32))
    assert restore(mask(text, vault=vault).text, vault=vault).text == text


@SOURCE
@given(st.lists(TEXTS, max_size=5))
def test_each_of_several_texts_is_searched_as_alone(texts: list[str]) -> None:
    def places(text: str) -> list[tuple[int, int, EntityType]]:
        return [(each.start, each.end, each.type) for each in detect(text)]

    together = [[(each.start, each.end, each.type) for each in found] for found in detect_each(texts)]
    assert together == [places(text) for text in texts]


def test_a_long_text_is_searched_in_slices_and_gives_what_a_stream_gives() -> None:
    class Recording:
        rules = default_engine().rules
        longest = 0

        def candidates(self, text: str) -> list[Candidate]:
            self.longest = max(self.longest, len(text))
            return default_engine().candidates(text)

    piece = "My sister Margaret Olsen moved to 12 Baker Street, London NW1 6XE. 我叫王建国，电话13800138000。\u200b"
    text = piece * (3 * AT_ONCE // len(piece)) + "end"
    engine = Recording()
    found = detect(text, engine=engine)
    assert engine.longest <= AT_ONCE + CONTEXT + 2 * REACH
    assert found == tuple(whole_findings(_parts([text[:100_000], text[100_000:]])))
    short = ["call 212-555-0123", "Margaret Olsen"]
    assert detect_each([short[0], text, short[1]]) == [detect(short[0]), found, detect(short[1])]
    assert [len(some) for some in grouped(["a" * (AT_ONCE // 3)] * 5)] == [2, 2, 1]


def test_names_are_looked_for_unless_the_rules_alone_are_asked(engine: Engine) -> None:
    text = "My sister Margaret Olsen moved from Copenhagen. 王建国说，电话13800138000。"
    assert {each.type for each in detect(text)} >= {EntityType.PERSON, EntityType.LOCATION, EntityType.PHONE_NUMBER}
    assert detect(text, engine=engine) == detect(text)
    assert [each.type for each in detect(text, engine=rules_engine())] == [EntityType.PHONE_NUMBER]


def test_a_long_name_is_one_finding_in_parts() -> None:
    text = (
        "Send it to 1234 North Evergreen Terrace Boulevard, Apartment 567, Springfield, Illinois 62704, United States."
    )
    parts = [part for part in _parts([text]) if part.end > 11]
    assert len(parts) > 1
    assert all(part.end - part.start <= REACH for part in parts)
    assert [part.continues for part in parts[:2]] == [False, True]
    assert parts[0].end == parts[1].start
    assert max(each.end - each.start for each in detect(text)) > PIECE


def test_something_strong_inside_a_name_cuts_it_short_and_what_stands_before_is_kept() -> None:
    text = "Mail Margaret Olsen margaret.olsen@mail.example.com today"
    assert [(each.type, text[each.start : each.end]) for each in detect(text)] == [
        (EntityType.PERSON, "Margaret Olsen"),
        (EntityType.EMAIL_ADDRESS, "margaret.olsen@mail.example.com"),
    ]


class _Broken:
    """A session over the model that ships, whose runs fail."""

    def run(self, outputs: None, inputs: dict[str, object]) -> list[object]:
        raise RuntimeError("out of memory")

    def get_modelmeta(self) -> object:
        return load_session("en-names-1").get_modelmeta()


def test_a_model_that_fails_blocks_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mibao.deid.names_model.load_session", lambda name: _Broken())
    broken = NamesEngine(ReEngine(rules_engine().rules), NamesModel())
    assert detect("13800138000", engine=broken)
    with pytest.raises(RuntimeError):
        detect("Margaret Olsen, 13800138000", engine=broken)


def test_without_the_extra_a_line_says_that_names_are_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mibao.deid.detection.find_spec", lambda name: None)
    assert "mibao[deid]" in (names_are_missing() or "")
    default_engine.cache_clear()
    try:
        assert default_engine() is rules_engine()
    finally:
        default_engine.cache_clear()
