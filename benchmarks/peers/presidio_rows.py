"""Presidio's pattern recognisers, without a model: ``TEXTS FOUND``, both JSON; English recognisers on any text."""

import json
import sys
import time
from pathlib import Path


def run(texts_path: str, found_path: str) -> dict[str, float]:
    """Speed and start; the findings of each text go to ``found_path``."""
    started = time.perf_counter()
    import spacy
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    registry = RecognizerRegistry()
    registry.load_predefined_recognizers(languages=["en"])
    registry.recognizers = [each for each in registry.recognizers if type(each).__name__ != "SpacyRecognizer"]
    words_only = SpacyNlpEngine()
    words_only.nlp = {"en": spacy.blank("en")}  # the model that it would download is not there
    engine = AnalyzerEngine(registry=registry, nlp_engine=words_only, supported_languages=["en"])

    def find(text: str) -> list[tuple[str, int, int]]:
        return [(each.entity_type, each.start, each.end) for each in engine.analyze(text, language="en")]

    texts = json.loads(Path(texts_path).read_text(encoding="utf-8"))
    find("call 212-555-0123")
    start_s = time.perf_counter() - started
    cpu = time.process_time()
    found = [find(text) for text in texts]
    cpu = time.process_time() - cpu
    Path(found_path).write_text(json.dumps(found), encoding="utf-8")
    size = sum(len(text.encode()) for text in texts)
    return {"start_s": start_s, "megabytes_per_s": size / 1e6 / cpu, "characters_per_s": sum(map(len, texts)) / cpu}


if __name__ == "__main__":
    print(json.dumps(run(*sys.argv[1:])))
