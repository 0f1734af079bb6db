"""Personal data found: speed, false alarms, F1 on generated Chinese and on public English sets, FF1, start, memory.

One thread, CPU time. Peers run over the same texts in environments of their own; Presidio with its pattern recognisers
only, because its default engine downloads a model. Our own sets and our rules have one author: a lower bound of what
others' sets will say. Names are found by rules in this version, so English F1 over all types is low, and shown.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

from benchmarks import deid_sets
from benchmarks.deid_sets import Example
from benchmarks.harness import Bench, Measurement, NotMeasured, in_turn, rounds
from benchmarks.peers.venvs import ROOT, ask, ask_python
from mibao.deid.detection import all_rules, pattern_rules
from mibao.deid.evaluation import ALL, Agreement, Span, agreements
from mibao.deid.matching_hyperscan import HyperscanEngine
from mibao.deid.operations import encrypted
from mibao.deid.scanning import Scanner, whole_findings
from mibao.types import EntityType

_TEXTS = 1_500
_HARMLESS = 1_000_000
_STRUCTURED = ("CREDIT_CARD", "PHONE_NUMBER", "DATE_TIME", "EMAIL_ADDRESS", "US_SSN", "IBAN_CODE", "URL", "IP_ADDRESS",
               "US_DRIVER_LICENSE")  # fmt: skip
_OURS = {"US_ZIP_CODE": "ADDRESS", "UK_POSTCODE": "ADDRESS", "CN_POSTAL_CODE": "ADDRESS"}  # as the English files do


@cache
def _engine(*, names: bool) -> HyperscanEngine:
    return HyperscanEngine(all_rules() if names else pattern_rules())


def find(text: str, *, names: bool = True) -> list[Span]:
    """Our findings as type, start and end."""
    scanner = Scanner(_engine(names=names))
    found = whole_findings([*scanner.feed(text), *scanner.close()])
    return [(finding.type.value, finding.start, finding.end) for finding in found]


def _speed_texts() -> list[str]:
    """Prose, code and Chinese reviews, none made for this: MIBAO_DATA where it is set, else what is in the project."""
    code = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "src").rglob("*.py")))
    pages = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").rglob("*.md")))
    texts = [code, pages]
    if folder := os.environ.get("MIBAO_DATA"):
        import gzip

        reviews = Path(folder, "text/chnsenticorp_htl_zh.csv.gz")
        texts.append(Path(folder, "text/tinyshakespeare.txt").read_text(encoding="utf-8"))
        texts.append(gzip.decompress(reviews.read_bytes()).decode())
    return texts


def _timed(texts: Sequence[str], *, names: bool) -> float:
    started = time.process_time()
    for text in texts:
        find(text, names=names)
    return time.process_time() - started


def measure_speed() -> Iterator[Measurement]:
    """Both over the same texts; the peers over the first 100,000 characters of each, since they are slower."""
    texts = _speed_texts()
    find("预热 warm up 13800138000", names=True), find("x", names=False)
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    characters = sum(map(len, texts))
    short = [Example(text[:20_000], ()) for text in texts]
    ours = in_turn(lambda: megabytes / _timed(texts, names=False), lambda: characters / _timed(texts, names=True),
                   rounds=rounds(5))  # fmt: skip
    for row, figure, peer, key in (
        ("deid.speed_patterns", ours[0], "presidio", "megabytes_per_s"),
        ("deid.speed_names", ours[1], "argus", "characters_per_s"),
    ):
        theirs, why = _peer(peer, short)
        yield Measurement(id=row, ours=figure, peer=theirs.get(key), why=why)


def _peer(
    name: str, examples: Sequence[Example], spans: list[list[Span]] | None = None
) -> tuple[dict[str, float], str | None]:
    """What a peer says of its speed; its findings go into ``spans``. Why it says nothing, where it does not run."""
    with tempfile.TemporaryDirectory() as folder:
        texts, found = Path(folder, "texts.json"), Path(folder, "found.json")
        texts.write_text(json.dumps([example.text for example in examples]), encoding="utf-8")
        try:
            figures = ask(name, f"{name}_rows.py", str(texts), str(found))
        except (OSError, subprocess.SubprocessError) as error:
            return {}, f"peer: {type(error).__name__}: {error}"[:200]
        if spans is not None:
            rows = json.loads(found.read_text(encoding="utf-8"))
            spans += [[(kind, start, end) for kind, start, end in row] for row in rows]
        return figures, None


def _score(
    examples: Sequence[Example], found: Sequence[Sequence[Span]], *, exact: bool, only: Sequence[str] = ()
) -> Agreement:
    """Over the types that the set itself has, or those named."""
    kinds = set(only) or {kind for example in examples for kind, _, _ in example.spans}
    pairs = [
        ([span for span in example.spans if span[0] in kinds], [span for span in spans if span[0] in kinds])
        for example, spans in zip(examples, found, strict=True)
    ]
    return agreements(pairs, exact=exact)[ALL]


def measure_chinese() -> Iterator[Measurement]:
    """Exact F1 over the structured types of the generator."""
    for hard in (False, True):
        examples = deid_sets.chinese(_TEXTS, hard=hard)
        theirs: list[list[Span]] = []
        _, why = _peer("argus", examples, theirs)
        ours = _score(examples, [find(example.text) for example in examples], exact=True).f(1)
        peer = _score(examples, theirs, exact=True).f(1) if why is None else None
        note = "generator and rules have one author; argus-redact leaves +86 out of its spans" if hard else None
        yield Measurement(id=f"deid.chinese_{'hard' if hard else 'plain'}", ours=ours, peer=peer, why=why, note=note)


def measure_false_alarms() -> Iterator[Measurement]:
    """Every finding in a text without personal data counts."""
    text = deid_sets.harmless(_HARMLESS)
    theirs: list[list[Span]] = []
    _, why = _peer(
        "argus", [Example(text[place : place + 20_000], ()) for place in range(0, len(text), 20_000)], theirs
    )
    peer = sum(map(len, theirs)) / len(text) * 1e4 if why is None else None
    yield Measurement(id="deid.false_alarms", ours=len(find(text)) / len(text) * 1e4, peer=peer, why=why)


def measure_english() -> Iterator[Measurement]:
    """Overlap F1 and F2 on the sets of MIBAO_DATA."""
    folder = os.environ.get("MIBAO_DATA")
    if not folder:
        raise NotMeasured(
            "MIBAO_DATA is not set: generated_large.json is microsoft/presidio-research's (MIT), the edge cases are "
            "DataFog/datafog-python's (MIT)"
        )
    sets = deid_sets.english(Path(folder, "pii/en"))
    examples = sets["generated_large"]
    ours = [_renamed(find(example.text)) for example in examples]
    theirs: list[list[Span]] = []
    _, why = _peer("presidio", examples, theirs)
    for row, beta, only in (("f1", 1, ()), ("f2", 2, ()), ("structured", 1, _STRUCTURED)):
        peer = _score(examples, theirs, exact=False, only=only).f(beta) if why is None else None
        mine = _score(examples, ours, exact=False, only=only).f(beta)
        yield Measurement(id=f"deid.english_{row}", ours=mine, peer=peer, why=why)
    examples, theirs = sets["edge_cases"], []
    _, why = _peer("datafog", examples, theirs)
    peer = _score(examples, theirs, exact=False).f(1) if why is None else None
    mine = _score(examples, [_renamed(find(example.text)) for example in examples], exact=False).f(1)
    yield Measurement(id="deid.english_edge", ours=mine, peer=peer, why=why)


def _renamed(spans: Sequence[Span]) -> list[Span]:
    return [(_OURS.get(kind, kind), start, end) for kind, start, end in spans]


def measure_start() -> Iterator[Measurement]:
    """From nothing to the findings of one line, and the most memory on 100 MB."""
    script = (
        "import json, time; s = time.perf_counter()\n"
        "from mibao.deid import detect\n"
        "assert detect('电话13800138000')\n"
        "print(json.dumps({'seconds': time.perf_counter() - s}))"
    )
    (ours,) = in_turn(lambda: ask_python(Path(sys.executable), "-c", script)["seconds"], rounds=rounds(5))
    theirs, why = _peer("presidio", [Example("call 212-555-0123", ())])
    yield Measurement(id="deid.start", ours=ours, peer=theirs.get("start_s"), why=why)
    yield Measurement(id="deid.memory", ours=_memory_megabytes())


def _memory_megabytes() -> float:
    piece = deid_sets.harmless(990_000) + "".join(example.text for example in deid_sets.chinese(100, hard=False))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "text.txt")
        with path.open("w", encoding="utf-8") as file:
            while file.tell() < 100_000_000:
                file.write(piece)
        script = f"import resource, sys\nsys.argv = ['mibao', 'mask', {str(path)!r}, '-o', {str(path) + '.out'!r}]\n"
        script += "from mibao.cli import main\ntry:\n    main()\nexcept SystemExit:\n    pass\n"
        script += "import json; print(json.dumps({'kb': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))"
        return ask_python(Path(sys.executable), "-c", script)["kb"] / 1e3


def measure_ff1() -> Iterator[Measurement]:
    """Numbers of 16 digits, one at a time."""
    numbers = [f"{number:016d}" for number in range(10**15, 10**15 + 50_000)]

    def run() -> float:
        started = time.process_time()
        for number in numbers:
            encrypted(EntityType.CREDIT_CARD, number, key=bytes(32))
        return len(numbers) / (time.process_time() - started)

    run()
    (ours,) = in_turn(run, rounds=rounds(5))
    yield Measurement(id="deid.ff1", ours=ours)


def _bench(measure: Callable[[], Iterator[Measurement]], *rows: str) -> Bench:
    return Bench(rows=tuple(f"deid.{row}" for row in rows), measure=measure)


BENCHES = (
    _bench(measure_speed, "speed_patterns", "speed_names"),
    _bench(measure_false_alarms, "false_alarms"),
    _bench(measure_chinese, "chinese_plain", "chinese_hard"),
    _bench(measure_english, "english_f1", "english_f2", "english_structured", "english_edge"),
    _bench(measure_start, "start", "memory"),
    _bench(measure_ff1, "ff1"),
)
