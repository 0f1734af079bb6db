"""Personal data found: speed, false alarms, F1 on generated Chinese and on public English sets, FF1, start, memory.

One thread, CPU time. Peers run over the same texts in environments of their own; Presidio
with its pattern recognisers only where names are not asked for. Our own sets and our rules have one author: a lower
bound of what others' sets will say. In English, places and addresses are one kind, for every system alike.
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
from mibao.deid.detection import all_rules, detect_each, pattern_rules
from mibao.deid.evaluation import ALL, Agreement, Span, agreements
from mibao.deid.matching import Engine
from mibao.deid.matching_hyperscan import HyperscanEngine
from mibao.deid.matching_names import NamesEngine
from mibao.deid.names_model import names_model
from mibao.deid.operations import encrypted
from mibao.deid.scanning import Scanner, whole_findings
from mibao.types import EntityType

_TEXTS = 1_500
_HARMLESS = 1_000_000
_STRUCTURED = ("CREDIT_CARD", "PHONE_NUMBER", "DATE_TIME", "EMAIL_ADDRESS", "US_SSN", "IBAN_CODE", "URL", "IP_ADDRESS",
               "US_DRIVER_LICENSE")  # fmt: skip
_PLACES = dict.fromkeys(("ADDRESS", "US_ZIP_CODE", "UK_POSTCODE", "CN_POSTAL_CODE"), "LOCATION")
_CHINESE_NAMES = {
    "cluener": ("PERSON", "LOCATION", "ORGANIZATION"),
    "resume": ("PERSON", "ORGANIZATION"),  # it marks places as origins only
    "peoples_daily": ("PERSON", "LOCATION", "ORGANIZATION"),
}


@cache
def _engine(*, names: bool) -> Engine:
    model = names_model()
    if not names or model is None:
        return HyperscanEngine(pattern_rules())
    return NamesEngine(HyperscanEngine(all_rules()), model)


def find(text: str, *, names: bool = True) -> list[Span]:
    """Our findings as type, start and end."""
    scanner = Scanner(_engine(names=names))
    found = whole_findings(scanner.whole(text))
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
    lines = [line for text in texts for line in text[:100_000].splitlines() if line.strip()]
    (ours_lines,) = in_turn(lambda: sum(map(len, lines)) / _timed_lines(lines), rounds=rounds(5))
    theirs, why = _peer("argus", [Example(line, ()) for line in lines[:1000]])
    yield Measurement(id="deid.speed_lines", ours=ours_lines, peer=theirs.get("characters_per_s"), why=why)


def _timed_lines(lines: Sequence[str]) -> float:
    started = time.process_time()
    for at in range(0, len(lines), 500):
        detect_each(lines[at : at + 500], engine=_engine(names=True))
    return time.process_time() - started


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
    for row, text in (
        ("deid.false_alarms", deid_sets.harmless(_HARMLESS)),
        ("deid.false_alarms_library", deid_sets.library_code(_HARMLESS)),
    ):
        theirs: list[list[Span]] = []
        pieces = [Example(text[place : place + 20_000], ()) for place in range(0, len(text), 20_000)]
        _, why = _peer("argus", pieces, theirs)
        peer = sum(map(len, theirs)) / len(text) * 1e4 if why is None else None
        yield Measurement(id=row, ours=len(find(text)) / len(text) * 1e4, peer=peer, why=why)


def _data() -> Path:
    folder = os.environ.get("MIBAO_DATA")
    if not folder:
        raise NotMeasured(
            "MIBAO_DATA is not set: generated_large.json is microsoft/presidio-research's (MIT), the edge cases are "
            "DataFog/datafog-python's (MIT); CLUENER, Resume and People's Daily are for research only"
        )
    return Path(folder, "pii")


def measure_english() -> Iterator[Measurement]:
    """Overlap F1 and F2 over all types of the sets of MIBAO_DATA."""
    for name, examples in deid_sets.english(_data() / "en").items():
        wanted = [Example(each.text, tuple(_one_kind_of_place(each.spans))) for each in examples]
        ours = [_one_kind_of_place(find(example.text)) for example in wanted]
        row = "english" if name == "generated_large" else "english_edge"
        yield from _against(row, wanted, ours, ("presidio_names", "rampart") + ("datafog",) * (row == "english_edge"))
        if row == "english":
            theirs: list[list[Span]] = []
            _, why = _peer("presidio", wanted, theirs)
            peer = _score(wanted, theirs, exact=False, only=_STRUCTURED).f(1) if why is None else None
            mine = _score(wanted, ours, exact=False, only=_STRUCTURED).f(1)
            yield Measurement(id="deid.english_structured", ours=mine, peer=peer, why=why)


def _against(
    row: str, wanted: Sequence[Example], ours: Sequence[Sequence[Span]], peers: Sequence[str]
) -> Iterator[Measurement]:
    """Ours beside the best of ``peers``, all of whose figures stand in the note."""
    scores, failures = dict[str, Agreement](), []
    for name in peers:
        found: list[list[Span]] = []
        _, why = _peer(name, wanted, found)
        if why is None:
            scores[name] = _score(wanted, [_one_kind_of_place(spans) for spans in found], exact=False)
        else:
            failures.append(why)
    for beta in (1, 2):
        figures = {name: score.f(beta) for name, score in scores.items()}
        mine = _score(wanted, ours, exact=False).f(beta)
        note = ", ".join(f"{name} {figure:.3f}" for name, figure in figures.items())
        peer = max(figures.values(), default=None)
        yield Measurement(
            id=f"deid.{row}_f{beta}", ours=mine, peer=peer, why="; ".join(failures) or None, note=note or None
        )


def _one_kind_of_place(spans: Sequence[Span]) -> list[Span]:
    return [(_PLACES.get(kind, kind), start, end) for kind, start, end in spans]


def measure_chinese_names() -> Iterator[Measurement]:
    """Overlap F1 on three public sets, none of them trained on, and speed over one of them, line by line."""
    for name, examples in deid_sets.chinese_names(_data() / "zh").items():
        theirs: list[list[Span]] = []
        figures, why = _peer("lac", examples, theirs)
        kinds = _CHINESE_NAMES[name]
        ours = [_one_kind_of_place(find(example.text)) for example in examples]
        mine = _score(examples, ours, exact=False, only=kinds).f(1)
        peer = _score(examples, theirs, exact=False, only=kinds).f(1) if why is None else None
        yield Measurement(id=f"deid.names_{name}", ours=mine, peer=peer, why=why)
    lines = [example.text for example in examples]
    (speed,) = in_turn(lambda: sum(map(len, lines)) / _timed_lines(lines), rounds=rounds(5))
    yield Measurement(
        id="deid.names_speed", ours=speed, peer=figures.get("characters_per_s"), why=why,
        note="ours with all rules, 500 lines at a time",
    )  # fmt: skip


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
    yield Measurement(id="deid.memory", ours=_memory_megabytes(), note="with names, one file of 100 MB")


def _memory_megabytes() -> float:
    piece = deid_sets.harmless(990_000) + "".join(example.text for example in deid_sets.chinese(100, hard=False))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "text.txt")
        with path.open("w", encoding="utf-8") as file:
            while file.tell() < 100_000_000:
                file.write(piece)
        script = f"import sys\nsys.argv = ['mibao', 'mask', {str(path)!r}, '-o', {str(path) + '.out'!r}]\n"
        script += "from mibao.cli import main\ntry:\n    main()\nexcept SystemExit:\n    pass\n"
        # ru_maxrss would count what the process that started this one held
        script += "import json\nlines = open('/proc/self/status').read().splitlines()\n"
        script += "print(json.dumps({'kb': next(int(each.split()[1]) for each in lines if each.startswith('VmHWM'))}))"
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
    _bench(measure_speed, "speed_patterns", "speed_names", "speed_lines"),
    _bench(measure_false_alarms, "false_alarms", "false_alarms_library"),
    _bench(measure_chinese, "chinese_plain", "chinese_hard"),
    _bench(
        measure_english,
        "english_f1",
        "english_f2",
        "english_structured",
        "english_edge_f1",
        "english_edge_f2",
    ),
    _bench(measure_chinese_names, "names_cluener", "names_resume", "names_peoples_daily", "names_speed"),
    _bench(measure_start, "start", "memory"),
    _bench(measure_ff1, "ff1"),
)
