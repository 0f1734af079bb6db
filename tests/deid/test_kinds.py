import re
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from counts import counts
from mibao.deid import detect
from mibao.deid.detection import all_rules, engine_for
from mibao.deid.kinds import CONTEXT_REACH, REACH, Kind, kinds
from mibao.deid.matching_growing import GrowingEngine
from mibao.deid.matching_hyperscan import HyperscanEngine
from mibao.deid.matching_re import ReEngine
from mibao.types import EntityType

RE, HYPERSCAN = ReEngine(all_rules()), HyperscanEngine(all_rules())
HIPAA_ITEMS = set("ABCDEFGHIJKLMNOPQR")


def marked(text: str) -> tuple[str, list[tuple[int, int]]]:
    """The text without its brackets, and the places between them."""
    spans, plain = [], ""
    for piece in re.split("([⟦⟧])", text):
        if piece == "⟦":
            start = len(plain)
        elif piece == "⟧":
            spans.append((start, len(plain)))
        else:
            plain += piece
    return plain, spans


@pytest.mark.parametrize("engine", [RE, HYPERSCAN], ids=["re", "hyperscan"])
@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.type.value)
def test_every_example_is_found_whole_and_every_counter_example_is_not(
    kind: Kind, engine: ReEngine | HyperscanEngine
) -> None:
    text, spans = marked(kind.example)
    assert spans
    found = detect(text, engine=engine)
    assert [(each.type, each.start, each.end) for each in found] == [(kind.type, *span) for span in spans]
    assert kind.type not in {each.type for each in detect(kind.counter_example, engine=engine)}


def test_the_table_is_long_and_each_row_says_whose_law_it_serves() -> None:
    assert len({kind.type for kind in kinds()}) == len(kinds()) >= 90
    for kind in kinds():
        assert kind.hipaa_item in HIPAA_ITEMS
        assert kind.name
        assert kind.name_zh
        assert kind.cn_class
        assert re.fullmatch("any|EU|[A-Z]{2}", kind.jurisdiction)


def test_types_bear_presidios_names_where_it_has_one() -> None:
    named = {kind.type.value for kind in kinds() if kind.in_presidio}
    assert named >= {
        "EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "US_SSN", "IBAN_CODE", "IP_ADDRESS", "URL", "CRYPTO",
        "US_PASSPORT", "US_DRIVER_LICENSE", "UK_NHS", "DATE_TIME", "MEDICAL_LICENSE", "US_ITIN", "IN_PAN",
        "SG_NRIC_FIN", "AU_TFN",
    }  # fmt: skip


def _widths(pattern: str) -> tuple[int, int]:
    """The longest match of ``pattern``, and of its first group."""
    parsed = re._parser.parse(pattern)  # type: ignore[attr-defined]
    widths = parsed.state.groupwidths
    return int(parsed.getwidth()[1]), int(widths[1][1]) if len(widths) > 1 else 0


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.type.value)
def test_no_pattern_and_no_tail_reaches_further_than_a_stream_holds_back(kind: Kind) -> None:
    for rule in kind.rules:
        whole, finding = _widths(rule.pattern.pattern)
        assert finding <= REACH - 3, rule.pattern.pattern
        assert whole <= 2 * REACH, rule.pattern.pattern
        if rule.tail:
            assert _widths(rule.tail.pattern)[0] < rule.tail_reach <= CONTEXT_REACH, rule.tail.pattern


_PIECES = st.sampled_from(
    [text for kind in kinds() for text in (*re.split("([⟦⟧])", kind.example), kind.counter_example) if text not in "⟦⟧"]
    + ["患者林晓雨", "现由陈明远医生转诊", "王医生", "林晓雨，女，", "Lin (林晓雨)", "Dr. Chen", "<PERSON_0000000000>"]
    + ["patient name: Lin Xiaoyu", "my name is Ann Lee", "Dear\nAnn", "I am Ann Lee"]
)
_JOINTS = st.sampled_from(["", " ", "，", "\n", "的", "-", ": ", "1", "x", "\u200b", ".", "／", "é", "<", "K"])
_NOISE = st.text(st.sampled_from("0123456789 .-:/@+()xXABCabc京号年月日零一二三，。\u200b１ſ"), max_size=12)
TEXTS = st.lists(_PIECES | _JOINTS | _NOISE, max_size=10).map("".join)
SOURCE = settings(
    max_examples=counts(short=150, long=5000), deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@SOURCE
@given(TEXTS)
def test_both_engines_find_the_same(text: str) -> None:
    assert set(HYPERSCAN.candidates(text)) == set(RE.candidates(text))
    assert detect(text, engine=HYPERSCAN) == detect(text, engine=RE)


def _from_patterns() -> st.SearchStrategy[str]:
    """What the rules' own patterns match, which is where a gate that misses would show."""
    simple = [re.sub(r"\(\?<?[!=][^()]*(?:\([^()]*\)[^()]*)*\)", "", rule.pattern.pattern) for rule in all_rules()]
    return st.sampled_from(simple).flatmap(lambda pattern: st.from_regex(re.compile(pattern, re.ASCII), fullmatch=True))


@SOURCE
@given(st.lists(st.tuples(_from_patterns(), _JOINTS), min_size=1, max_size=3))
def test_no_gate_misses_what_its_pattern_matches(pieces: list[tuple[str, str]]) -> None:
    text = "".join(joint + piece for piece, joint in pieces)
    assert set(HYPERSCAN.candidates(text)) == set(RE.candidates(text))


def test_the_growing_engine_finds_the_same_before_and_after_it_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mibao.deid.matching_growing.PATIENCE", 60)
    engine = GrowingEngine(all_rules())
    text = "电话13800138000, lin@example.com"
    before = detect(text, engine=engine)
    assert [detect(text, engine=engine) for _ in range(3)] == [before] * 3
    assert len(before) == 2


def _specimens() -> Iterator[tuple[str, EntityType]]:
    yield from ((f"number {number} here", EntityType.US_SSN) for number in ("078-05-1120", "219-09-9999"))
    yield from (
        (f"pay {number} now", EntityType.CREDIT_CARD)
        for number in ("4111111111111111", "4242 4242 4242 4242", "5555-5555-5555-4444", "378282246310005")
    )  # fmt: skip


@pytest.mark.parametrize(("text", "entity"), [*_specimens()])
def test_well_known_specimen_numbers_are_found(text: str, entity: EntityType) -> None:
    assert [each.type for each in detect(text)] == [entity]


@pytest.mark.parametrize(
    ("label", "number", "entity"),
    [
        ("身份证号", "110101199003077351", EntityType.CN_RESIDENT_ID),
        ("银行卡", "6222021234567890123", EntityType.BANK_CARD),
        ("credit card", "4111111111111112", EntityType.CREDIT_CARD),
        ("统一社会信用代码", "91350100M000100Y44", EntityType.CN_USCC),
        ("SSN", "666-12-3456", EntityType.US_SSN),
        ("NHS number", "943 476 5918", EntityType.UK_NHS),
    ],
)
def test_a_wrong_check_digit_hides_a_bare_number_and_none_beside_its_word(
    label: str, number: str, entity: EntityType
) -> None:
    assert entity in {each.type for each in detect(f"{label}: {number}")}
    assert entity not in {each.type for each in detect(f"value {number} of it")}


@pytest.mark.parametrize(
    "written",
    [
        "１３８００１３８０００",
        "138\u200b0013\u200b8000",
        "138·0013·8000",
        "一三八零零一三八零零零",
        "+86-138-0013-8000",
        "𝟏𝟑𝟖𝟎𝟎𝟏𝟑𝟖𝟎𝟎𝟎",
    ],
)
def test_a_number_in_disguise_is_found_whole(written: str) -> None:
    (found,) = detect(f"请拨打{written}谢谢")
    assert (found.type, found.start, found.end) == (EntityType.PHONE_NUMBER, 3, 3 + len(written))


def test_findings_stand_in_order_where_many_kinds_meet() -> None:
    text = "，".join(marked(kind.example)[0] for kind in kinds())
    assert all(one.end <= two.start for one, two in pairwise(detect(text)))


def test_without_the_extra_the_engine_is_pythons_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(engine_for(all_rules()), GrowingEngine)
    monkeypatch.setattr("mibao.deid.detection.find_spec", lambda name: None)
    assert isinstance(engine_for(all_rules()), ReEngine)
