"""Running detectors, masks and restorers over a stream of text, with progress and a summary on standard error."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mibao.cli.deid_files import Held, Place
from mibao.errors import InputError, MibaoError

if TYPE_CHECKING:
    from mibao.cli.deid_search import Search
    from mibao.deid.evaluation import Agreement
    from mibao.deid.findings import Finding
    from mibao.deid.policies import Policy

_PATIENCE_S = 1.0
_EVERY_S = 0.2
_LISTED = 20
_BATCH_LINES, _BATCH_BYTES = 500, 1 << 18


class Progress:
    """A line on the terminal that says how far and how fast, once a run has taken a second."""

    __slots__ = ("_place", "_seen", "_shown_s", "_started_s", "counts", "records", "withheld")

    def __init__(self, place: Place) -> None:
        self._place = place
        self._started_s = self._shown_s = time.monotonic()
        self._seen = False
        self.counts: Counter[str] = Counter()
        self.records = 0
        self.withheld: list[int] = []

    def tick(self) -> None:
        """Show the line again, if a terminal is there to show it and some time has passed."""
        now = time.monotonic()
        if now - self._started_s < _PATIENCE_S or now - self._shown_s < _EVERY_S or not sys.stderr.isatty():
            return
        self._shown_s, self._seen = now, True
        of = f" of {self._place.size / 1e6:,.0f}" if self._place.size else ""
        rate = self._place.read / 1e6 / (now - self._started_s)
        found = sum(self.counts.values())
        sys.stderr.write(f"\r\033[K{self._place.read / 1e6:,.1f}{of} MB, {rate:,.1f} MB/s, {found:,} findings")
        sys.stderr.flush()

    def close(self, *, done: str, notes: tuple[str, ...] = ()) -> None:
        """Clear the line and print the summary."""
        if self._seen:
            sys.stderr.write("\r\033[K")
        seconds = max(time.monotonic() - self._started_s, 1e-9)
        megabytes = self._place.read / 1e6
        kinds = ", ".join(f"{name} {count:,}" for name, count in self.counts.most_common())
        records = f"{self.records:,} records, " if self.records else ""
        sys.stderr.write(
            f"{done}: {records}{megabytes:,.2f} MB in {seconds:,.1f} s ({megabytes / seconds:,.1f} MB/s), "
            f"{sum(self.counts.values()):,} findings{': ' + kinds if kinds else ''}\n"
        )
        for note in notes:
            sys.stderr.write(f"{note}\n")
        if self.withheld:
            listed = ", ".join(map(str, self.withheld[:_LISTED])) + (" ..." if len(self.withheld) > _LISTED else "")
            sys.stderr.write(f"withheld, not checked: {len(self.withheld):,} records (lines {listed})\n")


def detect_jsonl(place: Place, out: IO[str], search: Search) -> int:
    """One line of findings for each line of ``place``, in order; returns how many records were withheld."""
    progress = Progress(place)
    for batch in _batches(place.lines()):
        for answer in _answers(batch, search):
            progress.records += 1
            if isinstance(answer, str):
                progress.withheld.append(progress.records)
                out.write(json.dumps({"findings": [], "error": answer}) + "\n")
            else:
                progress.counts.update(finding.type.value for finding in answer)
                out.write(json.dumps({"findings": [_as_json(finding) for finding in answer]}) + "\n")
        progress.tick()
    progress.close(done="checked", notes=search.notes)
    return len(progress.withheld)


def _batches(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    """So many lines as are searched at once: some hundreds, fewer of long ones."""
    batch, size = list[bytes](), 0
    for line in lines:
        if batch and (len(batch) == _BATCH_LINES or size + len(line) > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += len(line)
    if batch:
        yield batch


def _answers(batch: Sequence[bytes], search: Search) -> list[tuple[Finding, ...] | str]:
    """For each line of ``batch`` its findings, or why it is withheld. Where the batch fails, line by line."""
    from mibao.deid.detection import detect_each

    texts = [_text_or_error(line) for line in batch]
    good = [text for text, error in texts if error is None]
    try:
        found = iter(detect_each(good, detectors=search.detectors, engine=search.engine))
    except Exception:  # noqa: BLE001 - whatever fails, each record is tried by itself and says why it is withheld
        return [_found_or_error(text, search) if error is None else error for text, error in texts]
    return [next(found) if error is None else error for _, error in texts]


def _found_or_error(text: str, search: Search) -> tuple[Finding, ...] | str:
    from mibao.deid.detection import detect

    try:
        return detect(text, detectors=search.detectors, engine=search.engine)
    except Exception as error:  # noqa: BLE001 - a detector may raise anything: the record is withheld, not taken for clean
        return str(error) if isinstance(error, MibaoError) else f"the detector failed ({type(error).__name__})"


def _text_or_error(line: bytes) -> tuple[str, str | None]:
    try:
        return _text_of(line), None
    except InputError as error:
        return "", str(error)


def detect_text(place: Place, out: IO[str], search: Search) -> int:
    """One line for each finding: start, end, type, score and why, separated by tabs."""
    from mibao.deid.scanning import Part, Scanner, whole_findings

    progress = Progress(place)
    scanner = Scanner(search.engine, search.detectors)

    def parts() -> Iterator[Part]:
        for text in place.texts():
            yield from scanner.feed(text)
            progress.tick()
        yield from scanner.close()

    out.write("start\tend\ttype\tscore\twhy\n")
    for finding in whole_findings(parts()):
        progress.counts[finding.type.value] += 1
        out.write(f"{finding.start}\t{finding.end}\t{finding.type.value}\t{finding.score:.2f}\t{finding.why}\n")
    progress.close(done="checked", notes=search.notes)
    return 0


def mask_text(place: Place, out: IO[str], policy: Policy, held: Held, search: Search, *, explain: bool) -> int:
    """The masked text of ``place``, as it comes."""
    from mibao.deid.operations import Operator
    from mibao.deid.streaming import Masker

    progress = Progress(place)
    operator = Operator(policy, scope_key=held.scope_key, vault=held.vault)
    with _explained(explain) as tell:
        masker = Masker(operator, engine=search.engine, detectors=search.detectors, explain=tell)
        for text in place.texts():
            out.write(masker.feed(text))
            progress.counts = Counter({entity.value: count for entity, count in masker.found.items() if count})
            progress.tick()
        out.write(masker.close())
    progress.counts = Counter({entity.value: count for entity, count in masker.found.items() if count})
    progress.close(done=f"masked by {policy.name}", notes=notes(masker.replaced, held, search))
    return 0


def unmask_text(place: Place, out: IO[str], held: Held) -> None:
    """The restored text of ``place``, as it comes."""
    from mibao.deid.streaming import Restorer

    if held.vault is None:
        raise InputError("unmask: expected a vault")
    progress = Progress(place)
    restorer = Restorer(held.vault)
    for text in place.texts():
        out.write(restorer.feed(text))
        progress.tick()
    out.write(restorer.close())
    sys.stderr.write(f"restored: {restorer.restored:,} placeholders\n")


def evaluate(gold: Path, only: str | None, search: Search) -> Mapping[str, Mapping[str, Agreement]]:
    """The agreements ``exact`` and ``overlap`` with the gold standard in a file of JSON lines.

    Raises:
        InputError: a line of it is no record with a text and its spans.
    """
    from mibao.cli.deid_files import opened
    from mibao.deid.detection import detect_each
    from mibao.deid.evaluation import Span, agreements

    pairs: list[tuple[list[Span], list[Span]]] = []
    with opened(str(gold)) as place:
        for batch in _batches(place.lines()):
            records = [_gold(line, where=f"{gold}, line {len(pairs) + at}") for at, line in enumerate(batch, 1)]
            texts = [text for text, _ in records]
            for (_, spans), findings in zip(
                records, detect_each(texts, detectors=search.detectors, engine=search.engine), strict=True
            ):
                pairs.append((spans, [(finding.type.value, finding.start, finding.end) for finding in findings]))
    wanted = set(only.split(",")) if only else {name for spans, _ in pairs for name, _, _ in spans}
    kept = [([s for s in spans if s[0] in wanted], [s for s in found if s[0] in wanted]) for spans, found in pairs]
    return {"exact": agreements(kept, exact=True), "overlap": agreements(kept, exact=False)}


def _gold(line: bytes, *, where: str) -> tuple[str, list[tuple[str, int, int]]]:
    try:
        record = json.loads(line)
        text = record["text"]
        spans = [(span["type"], span["start"], span["end"]) for span in record["spans"]]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f'{where}: expected {{"text", "spans": [{{"start", "end", "type"}}]}}') from error
    fits = all(isinstance(name, str) and type(a) is type(b) is int and 0 <= a < b <= len(text) for name, a, b in spans)
    if not isinstance(text, str) or not fits:
        raise InputError(f"{where}: expected spans within the text")
    return text, spans


def _text_of(line: bytes) -> str:
    try:
        record: Any = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InputError("expected a line of UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise InputError("expected a JSON object in the line") from error
    if not isinstance(record, dict):
        raise InputError(f"expected a JSON object, got {type(record).__name__}")
    if "text" not in record:
        raise InputError('expected a field "text", got none')
    if not isinstance(record["text"], str):
        raise InputError(f'expected a string in "text", got {type(record["text"]).__name__}')
    return record["text"]


def _as_json(finding: Finding) -> dict[str, object]:
    return {
        "start": finding.start, "end": finding.end, "type": finding.type.value, "score": round(finding.score, 4),
        "why": finding.why,
    }  # fmt: skip


@contextmanager
def _explained(explain: bool) -> Iterator[Any]:
    if not explain:
        yield None
        return

    def tell(finding: Finding, changed: bool) -> None:
        did = "changed" if changed else "left"
        sys.stderr.write(
            f"{finding.start}-{finding.end}\t{finding.type.value}\t{finding.score:.2f}\t{did}\t{finding.why}\n"
        )

    yield tell


def notes(replaced: int, held: Held, search: Search) -> tuple[str, ...]:
    """What a reader of the summary should know besides."""
    lines = [*search.notes]
    if replaced:
        lines.append(f"{replaced:,} findings could not be changed as the policy says: only their type was left")
    if held.path is not None:
        lines.append(f"vault {held.path}: whoever has it and its key can undo this; keep the two apart")
    return tuple(lines)
