"""Our engine inside Presidio, and Presidio's recognisers inside ours. Needs the extra ``presidio``.

No language model is loaded and none is fetched: recognisers that need one come with the engine that the caller gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mibao.deid.custom import CustomTypes
from mibao.deid.detection import detect
from mibao.deid.findings import Finding
from mibao.deid.presidio import AnalyzerEngine as OwnAnalyzer
from mibao.errors import InputError, MissingExtra
from mibao.types import AnyType, EntityType, type_named

try:
    import yaml
    from presidio_analyzer import AnalysisExplanation, AnalyzerEngine, EntityRecognizer, RecognizerResult
    from presidio_analyzer.nlp_engine import NoOpNlpEngine
    from presidio_analyzer.recognizer_registry import RecognizerRegistry
except ImportError as error:
    raise MissingExtra("Presidio's recognisers", extra="presidio") from error


class MibaoRecognizer(EntityRecognizer):  # type: ignore[misc]
    """All of mibao's types as one recogniser of Presidio: ``registry.add_recognizer(MibaoRecognizer())``.

    Args:
        supported_language: The language under which Presidio asks it; it finds both.
        types: Types of the user's own, beside those that come with mibao.
    """

    def __init__(self, supported_language: str = "en", *, types: CustomTypes | None = None) -> None:
        self._types = types
        super().__init__(
            supported_entities=OwnAnalyzer(types=types).get_supported_entities(), name="MibaoRecognizer",
            supported_language=supported_language,
        )  # fmt: skip

    def load(self) -> None:
        """Nothing: the engine is made on first use."""

    def analyze(self, text: str, entities: Sequence[str], nlp_artifacts: object = None) -> list[Any]:
        """The findings of the types in ``entities``, as Presidio's results."""
        return [
            RecognizerResult(
                found.type.value, found.start, found.end, found.score,
                AnalysisExplanation(
                    recognizer=self.name, original_score=found.score, textual_explanation=found.why
                ),
                {RecognizerResult.RECOGNIZER_NAME_KEY: self.name},
            )
            for found in detect(text, types=self._types)
            if found.type.value in entities
        ]  # fmt: skip


class PresidioDetector:
    """Presidio's recognisers as a detector of ours: give it to ``detect`` or ``Masker`` under ``detectors``.

    Args:
        recognizers: What is asked; see :meth:`from_yaml` for recognisers in a file.
        language: The language under which they are asked.
        nlp_engine: For recognisers that read a language model's output; none by default.

    A recogniser that fails lets its error through: a text that was not checked is not passed.
    """

    def __init__(
        self, recognizers: Sequence[EntityRecognizer], *, language: str = "en", nlp_engine: object | None = None
    ) -> None:
        registry = RecognizerRegistry(recognizers=list(recognizers), supported_languages=[language])
        self._language = language
        self._engine = AnalyzerEngine(
            registry=registry, supported_languages=[language], nlp_engine=nlp_engine or _no_model(language)
        )

    @classmethod
    def from_yaml(cls, path: Path, *, language: str = "en", nlp_engine: object | None = None) -> PresidioDetector:
        """The recognisers that a file of Presidio's describes, those for ``language``.

        Raises:
            InputError: there is no such file, or it describes none.
        """
        registry = RecognizerRegistry(supported_languages=[language])
        try:
            registry.add_recognizers_from_yaml(path)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
            raise InputError(f"{path}: expected recognisers in Presidio's YAML ({type(error).__name__})") from error
        found = [each for each in registry.recognizers if each.supported_language == language]
        if not found:
            raise InputError(f"{path}: expected recognisers for the language {language}, got none")
        return cls(found, language=language, nlp_engine=nlp_engine)

    def find(self, text: str) -> tuple[Finding, ...]:
        """As :meth:`mibao.deid.findings.Detector.find`."""
        results = self._engine.analyze(text=text, language=self._language)
        return tuple(
            Finding(
                type=_type(each.entity_type), start=each.start, end=each.end, score=min(1.0, each.score),
                why=f"Presidio's {(each.recognition_metadata or {}).get('recognizer_name', 'recogniser')}",
            )
            for each in results
            if each.score > 0
        )  # fmt: skip


def _no_model(language: str) -> object:
    return NoOpNlpEngine(models=[{"lang_code": language, "model_name": "none"}])


def _type(name: str) -> AnyType:
    try:
        return type_named(name)
    except ValueError:
        return EntityType.CUSTOM
