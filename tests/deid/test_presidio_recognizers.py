"""With Presidio itself: our engine as its recogniser, its recognisers as our detector."""

from pathlib import Path

import presidio_anonymizer
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from presidio_analyzer import AnalyzerEngine, Pattern, PatternRecognizer
from presidio_analyzer.nlp_engine import NoOpNlpEngine
from presidio_analyzer.recognizer_registry import RecognizerRegistry
from presidio_anonymizer import entities

from mibao.deid import Masker, Operator, detect
from mibao.deid.detection import default_engine
from mibao.deid.policies import REPLACE
from mibao.deid.presidio import AnonymizerEngine, OperatorConfig, RecognizerResult
from mibao.deid.presidio_recognizers import MibaoRecognizer, PresidioDetector
from mibao.errors import InputError
from mibao.types import CustomType, EntityType

YAML = r"""
recognizers:
  - name: "Zip"
    supported_language: "en"
    supported_entity: "ZIPPY"
    patterns:
      - {name: z, regex: "(\\b\\d{5}(?:\\-\\d{4})?\\b)", score: 0.61}
  - name: "Titles"
    supported_language: "en"
    supported_entity: "TITLE"
    deny_list: [Mr., Mrs.]
"""


def test_presidio_finds_what_our_engine_finds() -> None:
    registry = RecognizerRegistry(supported_languages=["en"])
    registry.add_recognizer(MibaoRecognizer())
    models = [{"lang_code": "en", "model_name": "none"}]
    engine = AnalyzerEngine(registry=registry, nlp_engine=NoOpNlpEngine(models=models), supported_languages=["en"])
    text = "患者林晓雨，电话13800138000, mail a@b.example.com"
    found = {(each.entity_type, each.start, each.end, each.score) for each in engine.analyze(text=text, language="en")}
    assert found == {(each.type.value, each.start, each.end, each.score) for each in detect(text)}
    (mail,) = engine.analyze(text=text, language="en", entities=["EMAIL_ADDRESS"])
    assert text[mail.start : mail.end] == "a@b.example.com"


def test_a_file_of_presidios_recognisers_finds_beside_ours(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(YAML, encoding="utf-8")
    detector = PresidioDetector.from_yaml(tmp_path / "r.yaml")
    text = "Mrs. Wu of 94107-1234, a@b.example.com"
    assert [(found.type, text[found.start : found.end], found.why) for found in detect(text, detectors=[detector])] == [
        (EntityType.TITLE, "Mrs.", "Presidio's Titles"),
        (EntityType.PERSON, "Wu", "name after an English title"),
        (CustomType("ZIPPY"), "94107-1234", "Presidio's Zip"),
        (EntityType.EMAIL_ADDRESS, "a@b.example.com", "e-mail address"),
    ]
    masker = Masker(Operator(REPLACE), engine=default_engine(), detectors=[detector])
    assert masker.feed(text) + masker.close() == "<TITLE> <PERSON> of <ZIPPY>, <EMAIL_ADDRESS>"


def test_a_recogniser_that_fails_lets_its_error_through() -> None:
    class Broken(PatternRecognizer):  # type: ignore[misc]
        def analyze(self, text, entities, nlp_artifacts=None, regex_flags=None):  # type: ignore[no-untyped-def]
            raise ZeroDivisionError

    broken = Broken(supported_entity="ROCKET", patterns=[Pattern("r", "RX", 0.8)])
    with pytest.raises(ZeroDivisionError):
        detect("RX", detectors=[PresidioDetector([broken])])


@pytest.mark.parametrize("text", ["x: 1", "recognizers: 3", "recognizers: [", "recognizers: []"])
def test_a_file_that_describes_no_recogniser_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"r\.yaml: expected recognisers "):
        PresidioDetector.from_yaml(tmp_path / "r.yaml")
    with pytest.raises(InputError, match=r"none\.yaml: expected recognisers in Presidio's YAML \(FileNotFoundError\)$"):
        PresidioDetector.from_yaml(tmp_path / "none.yaml")


_OPERATORS = st.fixed_dictionaries(
    {
        "A": st.builds(
            lambda count, at_end: ("mask", {"masking_char": "*", "chars_to_mask": count, "from_end": at_end}),
            st.integers(0, 6), st.booleans(),
        ),
        "B": st.sampled_from([("redact", {}), ("replace", {"new_value": "NEW"}), ("keep", {})]),
    },
    optional={"DEFAULT": st.just(("replace", {"new_value": "X"}))},
)  # fmt: skip


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.text("abc 0林", min_size=30, max_size=30), st.sets(st.integers(0, 30), min_size=6, max_size=6),
       st.lists(st.sampled_from("ABC"), min_size=3, max_size=3), _OPERATORS)  # fmt: skip
def test_the_anonymizer_makes_what_presidios_makes(
    text: str, cuts: set[int], kinds: list[str], operators: dict[str, tuple[str, dict[str, object]]]
) -> None:
    at = sorted(cuts)
    spans = list(zip(kinds, at[::2], at[1::2], strict=True))
    theirs = presidio_anonymizer.AnonymizerEngine().anonymize(
        text,
        [entities.RecognizerResult(kind, start, end, 0.9) for kind, start, end in spans],
        {kind: entities.OperatorConfig(*operator) for kind, operator in operators.items()},
    )
    ours = AnonymizerEngine().anonymize(
        text,
        [RecognizerResult(kind, start, end, 0.9) for kind, start, end in spans],
        {kind: OperatorConfig(*operator) for kind, operator in operators.items()},
    )
    assert ours.text == theirs.text
    assert [(item.start, item.end, item.entity_type, item.text, item.operator) for item in ours.items] == [
        (item.start, item.end, item.entity_type, item.text, item.operator) for item in theirs.items
    ]
