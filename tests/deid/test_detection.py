import json
import random
import string
import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mibao.deid import detect, language_of
from mibao.deid.checksums import resident_id_check_character
from mibao.deid.detection import all_rules, rules_engine
from mibao.deid.matching import Engine
from mibao.deid.matching_hyperscan import HyperscanEngine
from mibao.deid.matching_re import ReEngine
from mibao.types import EntityType, Language

FIXED = settings(derandomize=True, deadline=None)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors/deid/detection.json").read_text(encoding="utf-8"))
PIECES = st.sampled_from([
    "Dr. Chen", "患者林晓雨", "王医生", "13800138000", "+86 138 0013 8000", "a@b.example", "990101198707145121",
    "MRN 1234", "2026-03-12", "3月12日", "<PERSON_0000000000>", "<", ">", " ", "，", "１", "\n", "-", "x", "9", "的",
])  # fmt: skip
TEXTS = st.lists(PIECES | st.text(max_size=3), max_size=12).map("".join)


@FIXED
@given(TEXTS)
def test_findings_are_in_order_in_range_and_never_overlap(text: str) -> None:
    findings = detect(text)
    assert all(0 <= found.start < found.end <= len(text) and 0 < found.score <= 1 for found in findings)
    assert all(one.end <= two.start for one, two in pairwise(findings))


@FIXED
@given(st.sampled_from(["的", "，", "：", "\n", " ", "。", "（"]), st.sampled_from(["谢", "。", "，", "\n", " ", "）"]))
def test_chinese_neighbours_never_hide_a_number(before: str, after: str) -> None:
    for value in ("13800138000", "lin@example.com", "990101198707145121", "2026-03-12"):
        (found,) = detect(before + value + after, engine=rules_engine())
        assert (found.start, found.end) == (len(before), len(before) + len(value))


@FIXED
@given(st.integers(10**16, 10**17 - 1), st.integers(0, 10))
def test_a_bare_number_of_18_digits_is_found_only_with_its_check_digit(body: int, offset: int) -> None:
    right = resident_id_check_character(str(body))
    number = str(body) + "0123456789X"[offset]
    found = {finding.type for finding in detect(f"part {number} in stock")}
    assert EntityType.CN_RESIDENT_ID not in found or number[-1] == right


@FIXED
@given(st.floats(-999, 999), st.integers(1, 8), st.floats(-999, 999))
def test_numbers_with_a_sign_are_no_phone_numbers(one: float, places: int, other: float) -> None:
    assert not detect(f"x {one:+.{places}f} {other:+.{places}f}\n", engine=rules_engine())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("<contact:voice>+1.2125550123</contact:voice>", ["+1.2125550123"]),
        ("751-954-9268-Fax, 751-954-9269-Office", ["751-954-9268", "751-954-9269"]),
        ("WHERE created > 0041097412 LIMIT 5", []),
        ("total 1396826.1462 of it", []),
        ("1703 4292 0979 4657 0976", []),
        ("2026-04-28T14:59:14.380Z WARN worker", []),
        ("May 20 19:47:19 node-3 systemd[1]: up", []),
        ("born May 20 at home", ["May 20"]),
    ],
)
def test_a_form_counts_where_it_is_that_of_a_number_or_a_date_and_not_of_a_measure_or_a_log(
    text: str, found: list[str]
) -> None:
    assert [text[each.start : each.end] for each in detect(text, engine=rules_engine())] == found


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["text"][:24] or "empty")
def test_exactly_the_listed_findings_are_made_by_the_rules(case: dict[str, list[list[str]]]) -> None:
    text = str(case["text"])
    found = [[each.type.value, text[each.start : each.end]] for each in detect(text, engine=rules_engine())]
    assert found == case["find"]


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("", "en"),
        ("Dr. Chen", "en"),
        ("患者林晓雨", "zh"),
        ("BI-RADS 4C类，右乳肿块", "zh"),
        ("see 林 tomorrow at noon", "en"),
    ],
)
def test_the_language_is_the_one_that_carries_more_of_the_text(text: str, language: str) -> None:
    assert language_of(text) is Language(language)


def test_a_finding_shows_no_text() -> None:
    (found,) = detect("write to secret.person@example.com")
    assert "secret" not in repr(found)
    assert "example" not in repr(found)


HOSTILE = (
    "a", "A", "1", "１", "王", "Ā", "<", "+", " ", "a.", "a@", "a@a.", "+1 ", "1-", "1年", "O'", "A-a", "Aa ",
    "138 1234 567", "Mr A", "Mr van ", "van ", "患者", "患者王", "王王医生", "phone: (", "May 1", "MRN 1-",
    "patient name ", "身份证1101011990030777", "<PERSON_AAAA", "<PHONE_NUMBER_AAAAAAAAAA_AAA",
    "1990-", "一九九〇年一月",
)  # fmt: skip


RE, HYPERSCAN = ReEngine(all_rules()), HyperscanEngine(all_rules())


def _seconds(text: str, engine: Engine = HYPERSCAN) -> float:
    started = time.process_time()
    detect(text, engine=engine)
    return time.process_time() - started


@pytest.mark.parametrize("unit", HOSTILE)
def test_hostile_repetition_takes_no_more_than_linear_time(unit: str) -> None:
    short, long = (unit * (size // len(unit)) for size in (2_000, 32_000))
    assert _seconds(long) < 0.05 + 16 * 6 * min(_seconds(short) for _ in range(3))


@pytest.mark.parametrize("unit", ["1", "1-", "王", "a@a.", "Aa ", "浙江省杭州市", "10.", "eyJ", "1 1 1 1 1 1 1 1 "])
def test_hostile_repetition_takes_no_more_than_linear_time_without_the_extra(unit: str) -> None:
    short, long = (unit * (size // len(unit)) for size in (1_000, 8_000))
    assert _seconds(long, RE) < 0.05 + 8 * 6 * min(_seconds(short, RE) for _ in range(3))


def test_many_distinct_names_take_no_more_than_linear_time() -> None:
    source = random.Random(7)  # noqa: S311
    latin = [
        " ".join("".join(source.choices(string.ascii_lowercase, k=6)).title() for _ in range(2)) for _ in range(4000)
    ]
    han = ["".join(chr(source.randrange(0x4E00, 0x9FFF)) for _ in range(2)) for _ in range(4000)]
    lines = [f"Mr {name}. 患者王{given}，" for name, given in zip(latin, han, strict=True)]
    assert _seconds("".join(lines)) < 0.05 + 10 * 6 * min(_seconds("".join(lines[:400])) for _ in range(3))


@pytest.mark.parametrize("unit", ["+1 ", "<PHONE_NUMBER_AAAAAAAAAA_AAA", "1234567890123456 "])
def test_a_hostile_text_is_read_in_bounded_time(unit: str) -> None:
    assert _seconds(unit * (300_000 // len(unit))) < 30


def test_ten_megabytes_in_a_single_line_are_read_in_bounded_time() -> None:
    line = ("the quick brown fox and on it goes without a line end " * 200 + "电话13800138000 ") * 930
    assert len(line.encode()) > 10_000_000
    started = time.process_time()
    assert len(detect(line, engine=HYPERSCAN)) == 930
    assert time.process_time() - started < 20
