import importlib.util
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from counts import counts
from mibao.deid import Finding, detect
from mibao.deid.names_features import LEFT, RIGHT, words_of
from mibao.deid.names_model import EnglishNames, NamesModel, load_session, names_model
from mibao.types import EntityType

ROOT = Path(__file__).resolve().parents[2]
TRAINING = ROOT / "training" / "names"
MODELS = ROOT / "src" / "mibao" / "deid" / "models"
KINDS = {EntityType.PERSON, EntityType.LOCATION, EntityType.ORGANIZATION, EntityType.ADDRESS, EntityType.TITLE}
ABSENT = "switched on by MIBAO_DATA, the folder with the evaluation sets"

_NAMES = [
    "王建国",
    "李晓明在",
    "浙江省杭州市文三路478号",
    "阿里巴巴集团",
    "高级工程师",
    "患者",
    "，",
    "。",
    "说",
    "１２",
    "𠮷",
    "ß",
]
_PIECES = st.sampled_from(
    [
        *_NAMES,
        "\n",
        " ",
        "Jane O'Neill",
        " in Boston",
        "Dr. ",
        "Acme Ltd",
        "12 Baker Street, London",
        "\u200b",
        "x" * 70,
    ]
) | st.text(max_size=4)
TEXTS = st.lists(_PIECES, max_size=12).map("".join)
QUICK = settings(max_examples=counts(short=60, long=3000), deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def model() -> NamesModel:
    found = names_model()
    assert found is not None
    return found


def _texts(model: NamesModel, text: str, kind: EntityType) -> list[str]:
    return [text[each.start : each.end] for each in model.find(text) if each.type is kind]


@given(text=TEXTS)
@QUICK
def test_findings_lie_in_the_text_and_those_of_one_model_in_order_and_apart(text: str) -> None:
    model = names_model()
    assert model is not None
    reached = {"model:en-names-1": 0, "model:zh-names-1": 0}
    for each in model.find(text):
        assert each.type in KINDS
        assert reached[each.why] <= each.start < each.end <= len(text)
        assert 0 < each.score < 1
        reached[each.why] = each.end


@given(before=TEXTS, other=TEXTS, text=TEXTS, after=TEXTS)
@QUICK
def test_what_is_said_of_a_place_does_not_depend_on_what_is_far_away(
    before: str, other: str, text: str, after: str
) -> None:
    model, wall = names_model(), "\n" * (LEFT + RIGHT)
    assert model is not None

    def middle(start: str) -> list[tuple[EntityType, int, int]]:
        offset = len(start) + len(wall)
        found = model.find(start + wall + text + wall + after)
        return [(f.type, f.start - offset, f.end - offset) for f in found if offset <= f.start < offset + len(text)]

    assert middle(before) == middle(other)


@given(text=TEXTS)
@QUICK
def test_the_same_text_gives_the_same_findings_from_another_session(text: str) -> None:
    model = names_model()
    assert model is not None
    english = EnglishNames(load_session("en-names-1"))
    assert list(english.pieces(text)) == [piece for piece, why in model.pieces(text) if why == "model:en-names-1"]


def test_people_places_organisations_and_jobs_are_found_in_both_languages(model: NamesModel) -> None:
    text = "我叫王建国，在阿里巴巴集团担任高级工程师。"
    assert _texts(model, text, EntityType.PERSON) == ["王建国"]
    assert _texts(model, text, EntityType.ORGANIZATION) == ["阿里巴巴集团"]
    assert _texts(model, text, EntityType.TITLE) == ["高级工程师"]
    text = "My sister Margaret Olsen moved from Copenhagen to Brazil."
    assert _texts(model, text, EntityType.PERSON) == ["Margaret Olsen"]
    assert _texts(model, text, EntityType.LOCATION) == ["Copenhagen", "Brazil"]


@pytest.mark.parametrize(
    "address",
    [
        "浙江省杭州市西湖区文三路478号华星大厦3幢1205室",
        "上海市浦东新区世纪大道88号",
        "四川省成都市武侯区人民南路四段12号院2号楼3单元501室",
    ],
)
def test_a_chinese_address_is_one_finding_from_the_province_to_the_room(model: NamesModel, address: str) -> None:
    text = f"请寄到{address}，谢谢。"
    found = [each for each in model.find(text) if each.type is EntityType.ADDRESS]
    assert [text[each.start : each.end] for each in found] == [address]
    assert found[0].why == "model:zh-names-1"


def test_a_latin_name_in_chinese_is_found_once(model: NamesModel) -> None:
    text = "患者John Smith于昨天入院，由王医生收治。"
    assert _texts(model, text, EntityType.PERSON)[0] == "John Smith"
    assert sum(each.start < 12 for each in model.find(text)) == 1


def test_code_and_figures_give_no_names(model: NamesModel) -> None:
    text = "for i in range(10):\n    total += values[i] * 0.5\nreturn {'total': total, 'rows': 1200}\n" * 20
    assert len(model.find(text)) <= len(text) / 1000


def _found(text: str) -> list[tuple[str, str]]:
    return [(each.type.value, text[each.start : each.end]) for each in detect(text)]


@pytest.mark.parametrize("sign", ["> ", ">", "| ", "* ", "• ", "- ", "??? "])
def test_a_line_that_is_quoted_or_listed_is_read_as_without_its_sign(sign: str) -> None:
    lines = ["Margaret Olsen", "12 Baker Street", "Leeds", "Norway"]
    plain, marked = "\n".join(lines), "\n".join(sign + line for line in lines)
    assert _found(marked) == _found(plain)
    assert [name for _, name in _found(plain)] == lines


def test_given_names_in_a_row_are_people_and_no_firm() -> None:
    assert _found("He works with Miguel and Jennifer.") == [("PERSON", "Miguel"), ("PERSON", "Jennifer")]
    assert _found("Mary Jane and Robert came.") == [("PERSON", "Mary Jane"), ("PERSON", "Robert")]
    assert _found("Smith, Lee and Partners Ltd") == [("ORGANIZATION", "Smith, Lee and Partners Ltd")]


def test_a_number_in_front_of_a_street_belongs_to_the_address() -> None:
    assert ("ADDRESS", "18 15 Millicent Drive") in _found("Send it to 18 15 Millicent Drive, please")


@pytest.mark.parametrize(
    "text",
    [
        "It was 28 °C; then 31.",
        "E.g. this one",
        "00a0f166: ca5e 4573 aba6 f166  ......",
        "完成。Jan 16 08:30:12 node-4 up",
    ],
)
def test_letters_numbers_and_months_alone_are_no_names(text: str) -> None:
    assert not {"PERSON", "LOCATION", "ADDRESS", "ORGANIZATION"} & {kind for kind, _ in _found(text)}


def test_a_text_without_letters_has_no_names(model: NamesModel) -> None:
    assert model.find("") == ()
    assert model.find("12 + 30 = 42; 50 %\n\t—") == ()


def test_of_one_long_word_the_beginning_is_read(model: NamesModel) -> None:
    words = words_of("A" * 10_000)
    assert words is not None
    assert words.spans.tolist() == [[0, 32]]
    assert all(each.end <= 10_000 for each in model.find("A" * 10_000))


def test_text_after_a_long_chinese_text_is_found_as_at_its_beginning(model: NamesModel) -> None:
    text, wall = "王建国住在杭州。", "\n" * 40
    far = "他们去年在北京说过。" * 300
    here, there = model.find(wall + text), model.find(far + wall + text)
    moved = tuple(
        Finding(type=f.type, start=f.start - len(far), end=f.end - len(far), score=f.score, why=f.why)
        for f in there
        if f.start >= len(far)
    )
    assert moved == here
    assert here


def test_without_the_extra_the_cue_words_remain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mibao.deid.names_model.find_spec", lambda name: None)
    names_model.cache_clear()
    try:
        assert names_model() is None
    finally:
        names_model.cache_clear()
    assert EntityType.PERSON in {each.type for each in detect("Seen by Dr. Chen today")}


@pytest.mark.parametrize("name", ["en-names-1", "zh-names-1"])
def test_a_model_is_small_and_its_card_describes_this_very_file(name: str) -> None:
    content = (MODELS / f"{name}.onnx").read_bytes()
    card = (MODELS / f"{name}.md").read_text(encoding="utf-8")
    assert len(content) < 10_000_000
    assert blake3(content).hexdigest() in card
    for part in ("## Training text", "## Licence", "## Figures", "## Limits"):
        assert part in card


# The sets of MIBAO_DATA


def _evaluate() -> Any:
    if "MIBAO_DATA" not in os.environ:
        pytest.skip(ABSENT)
    spec = importlib.util.spec_from_file_location("evaluate_names", TRAINING / "evaluate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "kinds", "least"),
    [
        ("CLUENER dev", ("PER", "LOC", "ORG"), 0.66),
        ("Resume dev", ("PER", "ORG"), 0.89),
        ("People's Daily dev", ("PER", "LOC", "ORG"), 0.8),
        ("generated_large", ("PER", "LOC"), 0.87),
        ("edge cases", ("PER", "LOC", "ORG"), 0.74),
    ],
)
def test_names_are_found_as_the_cards_say(model: NamesModel, name: str, kinds: tuple[str, ...], least: float) -> None:
    evaluate = _evaluate()
    data = Path(os.environ["MIBAO_DATA"]) / "pii"
    gold = {**evaluate.chinese(data / "zh"), **evaluate.english(data / "en")}[name]
    found = [evaluate.spans_of(model, text) for text, _ in gold]
    assert evaluate.scores(gold, found, kinds)["F1"] >= least


def _sets() -> str:
    if "MIBAO_DATA" not in os.environ:
        pytest.skip(ABSENT)
    files = [path for path in (Path(os.environ["MIBAO_DATA"]) / "pii").rglob("*") if path.is_file()]
    wanted = [path for path in files if path.suffix in (".json", ".txt", ".bmes", ".dev")]
    texts = []
    for path in wanted:
        text = path.read_text(encoding="utf-8")
        if path.suffix in (".bmes", ".dev"):
            text = "".join(line[:1] or "\n" for line in text.splitlines())
        texts.append(text)
    return "\n".join(texts)


_SLOT = re.compile(r"@@|@\^?[A-Za-z#$]|\\n|\[|\]|\(|\)|\||\n")


@pytest.mark.parametrize(("name", "run", "unit"), [("english", 6, " "), ("chinese", 14, "")])
def test_no_template_shares_a_run_of_words_with_the_evaluation_sets(name: str, run: int, unit: str) -> None:
    lines = (TRAINING / f"{name}_templates.txt").read_text(encoding="utf-8").splitlines()
    sets = " ".join(re.findall(r"[a-z']+", _sets().lower())) if unit else re.sub(r"\s", "", _sets())
    shared = []
    for line in lines:
        if line.startswith("# "):
            continue
        for literal in _SLOT.split(line):
            words = re.findall(r"[a-z']+", literal.lower()) if unit else list(re.sub(r"\s", "", literal))
            runs = (unit.join(words[at : at + run]) for at in range(len(words) - run + 1))
            shared += [part for part in runs if part in sets]
    assert shared == []
