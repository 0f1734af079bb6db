"""Presidio's Python calls over our engine; nothing here needs Presidio."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mibao.deid import detect
from mibao.deid.presidio import (
    AnalyzerEngine,
    AnonymizerEngine,
    DeanonymizeEngine,
    OperatorConfig,
    OperatorResult,
    RecognizerResult,
)
from mibao.errors import InputError, KeyMismatch

FIXED = settings(derandomize=True, deadline=None, max_examples=50)
TEXT = "Call Dr. Chen on 212-555-0142 or write to chen@example.com 患者林晓雨"
KEY = "0123456789abcdef"
_RESULTS = st.lists(
    st.builds(
        lambda kind, a, b, score: RecognizerResult(kind, min(a, b), max(a, b), score),
        st.sampled_from(["A", "B"]), st.integers(0, 20), st.integers(0, 20), st.sampled_from([0.3, 0.6, 0.9]),
    ), max_size=6,
)  # fmt: skip


def test_results_are_the_findings_in_presidios_words() -> None:
    results = AnalyzerEngine().analyze(text=TEXT, language="en")
    assert [(each.entity_type, each.start, each.end, each.score) for each in results] == [
        (found.type.value, found.start, found.end, found.score) for found in detect(TEXT)
    ]
    assert results[0].to_dict().keys() == {"entity_type", "start", "end", "score", "analysis_explanation"}
    (explained,) = AnalyzerEngine().analyze("a@b.co", "en", return_decision_process=True)
    assert explained.analysis_explanation is not None
    assert explained.analysis_explanation["textual_explanation"] == "e-mail address"


def test_entities_threshold_and_allow_list_choose() -> None:
    engine = AnalyzerEngine()

    def found(**given: object) -> set[str]:
        return {TEXT[each.start : each.end] for each in engine.analyze(text=TEXT, language="en", **given)}  # type: ignore[arg-type]

    assert found(entities=["EMAIL_ADDRESS"]) == {"chen@example.com"}
    assert "chen@example.com" not in found(allow_list=["chen@example.com"])
    assert found(score_threshold=0.94) == {"chen@example.com"}
    assert "林晓雨" in found()


def test_ad_hoc_recognizers_are_types_of_the_call() -> None:
    zip_code = {"supported_entity": "ROOM", "patterns": [{"name": "r", "regex": r"\broom [0-9]{3}\b", "score": 0.6}],
                "deny_list": ["Penthouse"]}  # fmt: skip
    results = AnalyzerEngine().analyze("ROOM 204, penthouse", "en", entities=["ROOM"], ad_hoc_recognizers=[zip_code])
    assert [(each.start, each.end) for each in results] == [(0, 8), (10, 19)]


@FIXED
@given(st.text("ab", min_size=20, max_size=20), _RESULTS)
def test_nothing_of_a_result_stays_and_all_else_does(text: str, results: list[RecognizerResult]) -> None:
    done = AnonymizerEngine().anonymize(text, results, {"DEFAULT": OperatorConfig("replace", {"new_value": "#"})})
    inside = {place for each in results for place in range(each.start, each.end)}
    assert re.sub("#+", "", done.text) == "".join(text[place] for place in range(20) if place not in inside)
    assert all(done.text[item.start : item.end] == item.text == "#" for item in done.items)
    assert [item.start for item in done.items] == sorted((item.start for item in done.items), reverse=True)


@pytest.mark.parametrize(
    ("operator", "after"),
    [
        (OperatorConfig("replace"), "<NAME> x"),
        (OperatorConfig("replace", {"new_value": "B"}), "B x"),
        (OperatorConfig("redact"), " x"),
        (OperatorConfig("keep"), "Chen x"),
        (OperatorConfig("mask", {"masking_char": "*", "chars_to_mask": 3, "from_end": True}), "C*** x"),
        (OperatorConfig("mask", {"masking_char": "*", "chars_to_mask": 2}), "**en x"),
        (OperatorConfig("custom", {"lambda": str.upper}), "CHEN x"),
    ],
)
def test_each_operator_does_what_presidios_does(operator: OperatorConfig, after: str) -> None:
    result = RecognizerResult("NAME", 0, 4, 0.9)
    assert AnonymizerEngine().anonymize("Chen x", [result], {"NAME": operator}).text == after


def test_a_hash_is_equal_for_equal_values_and_for_nothing_else() -> None:
    results = [
        RecognizerResult("NAME", 0, 4, 1.0),
        RecognizerResult("NAME", 5, 9, 1.0),
        RecognizerResult("NAME", 10, 13, 1.0),
    ]
    by_key = AnonymizerEngine(key=bytes(32)).anonymize("Chen,Chen,Bob", results, {"NAME": OperatorConfig("hash")})
    one, two, three = by_key.text.split(",")
    assert one == two != three
    salted = AnonymizerEngine().anonymize("Chen,Chen,Bob", results, {"NAME": OperatorConfig("hash", {"salt": KEY})})
    assert salted.text != by_key.text
    with pytest.raises(InputError, match=r"^hash: expected a salt, or AnonymizerEngine\(key=...\)$"):
        AnonymizerEngine().anonymize("Chen", results[:1], {"NAME": OperatorConfig("hash")})


@FIXED
@given(st.text(st.characters(codec=None), max_size=12), st.text(max_size=4))
def test_what_is_encrypted_is_decrypted_exactly_and_by_its_key_alone(name: str, around: str) -> None:
    text = f"{around}{name}{around}"
    results = [RecognizerResult("NAME", len(around), len(around) + len(name), 1.0)]
    done = AnonymizerEngine().anonymize(text, results, {"DEFAULT": OperatorConfig("encrypt", {"key": KEY})})
    back = DeanonymizeEngine().deanonymize(done.text, done.items, {"DEFAULT": OperatorConfig("decrypt", {"key": KEY})})
    assert back.text == text
    with pytest.raises(
        KeyMismatch, match=r"^decrypt: what stands there was not encrypted under this key, or was alter"
    ):
        DeanonymizeEngine().deanonymize(
            done.text, done.items, {"DEFAULT": OperatorConfig("decrypt", {"key": KEY[::-1]})}
        )


def test_results_are_written_as_presidio_writes_them() -> None:
    done = AnonymizerEngine().anonymize("Chen", [RecognizerResult("NAME", 0, 4, 1.0)])
    assert json.loads(done.to_json()) == {
        "text": "<NAME>",
        "items": [{"start": 0, "end": 6, "entity_type": "NAME", "text": "<NAME>", "operator": "replace"}],
    }
    assert "Chen" not in repr(done)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: AnalyzerEngine().analyze("x", "fr"), "analyze: expected a language out of en, zh"),
        (lambda: AnalyzerEngine().analyze("x", "en", ["NRP"]), "analyze: no such entities: NRP (get_supported_"),
        (lambda: AnalyzerEngine().analyze("x", "en", ad_hoc_recognizers=[{"patterns": []}]),
         "ad hoc recognizer 1: expected supported_entity, and patterns or deny_list"),
        (lambda: AnalyzerEngine().analyze(
            "x", "en", ad_hoc_recognizers=[{"supported_entity": "SLOW", "patterns": [{"regex": "(a+)+b"}]}]),
         "ad hoc recognizers: type SLOW: pattern '(a+)+b': at symbol 3: + has no end"),
        (lambda: AnonymizerEngine().anonymize("x", [RecognizerResult("A", 0, 2, 1.0)]),
         "result: expected a place within the text, got 0 to 2 of 1"),
        (lambda: AnonymizerEngine().anonymize("x", [RecognizerResult("A", 0, 1, 1.0)], {"A": OperatorConfig("burn")}),
         "anonymize: no such operator: 'burn'"),
        (lambda: AnonymizerEngine().anonymize("x", [RecognizerResult("A", 0, 1, 1.0)],
                                              {"A": OperatorConfig("encrypt", {"key": "short"})}),
         "encrypt: key: expected at least 16 bytes"),
        (lambda: AnonymizerEngine().anonymize("x", [RecognizerResult("A", 0, 1, 1.0)],
                                              {"A": OperatorConfig("mask", {"chars_to_mask": -1})}),
         "mask: expected a number from 0 on for chars_to_mask"),
        (lambda: DeanonymizeEngine().deanonymize("x", [OperatorResult(0, 1, "A")], {}),
         "deanonymize: expected the operator decrypt, with a key"),
        (lambda: RecognizerResult.from_json({"start": 1}), "result: expected entity_type, start, end and score"),
    ],
)  # fmt: skip
def test_wrong_calls_are_refused_by_name(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        call()
