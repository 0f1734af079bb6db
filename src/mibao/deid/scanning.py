"""From candidates to findings, left to right, for a whole text and for one that arrives in pieces alike.

What is decided at a place depends on nothing further on than :data:`mibao.deid.kinds.REACH` characters, so a stream
holds back no more than that, and gives what the whole text would. The leftmost candidate wins, at one place the strong
before the weak, then the longest, then the best score; a weak one gives way to a strong one that starts inside it.
A finding longer than its reach is given in parts, each of which says whether it continues the one before.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from mibao.deid.findings import Detector, Finding
from mibao.deid.kinds import REACH, Rule
from mibao.deid.matching import CONTEXT, NAMED, STRONG, Candidate, Engine, order
from mibao.deid.names import repetitions
from mibao.deid.normalisation import Folded, folded
from mibao.types import AnyType, EntityType

AT_ONCE = 1 << 16  # characters searched at once: memory grows with them, speed does not
_SHORT = 28  # a strong candidate that a weak one gives way to is no longer than this
_NEAR = 24  # and starts no further on than this
_REPEATED = "same name as after a cue in this text"


@dataclass(frozen=True, slots=True)
class Part:
    """A finding or a part of one, ``text[start:end]`` of the original; ``continues``: the part before goes on."""

    start: int
    end: int
    entity: AnyType
    score: float
    why: str
    continues: bool = False

    def finding(self) -> Finding:
        """The part as a finding of its own."""
        return Finding(type=self.entity, start=self.start, end=self.end, score=self.score, why=self.why)


class Scanner:
    """Decides a text that is fed in pieces; the parts it gives do not depend on where the pieces were cut.

    Args:
        engine: What finds candidates.
        detectors: Others to ask; each sees no more than the piece at hand and a little before it.
        keep_names: Whether a name that a cue gave away is looked for in the rest of the text.
    """

    __slots__ = (
        "_base", "_buffer", "_closed", "_detectors", "_ended", "_engine", "_keep_names", "_kept_from", "_names",
        "_open", "_position", "_start",
    )  # fmt: skip

    def __init__(self, engine: Engine, detectors: Sequence[Detector] = (), *, keep_names: bool = True) -> None:
        self._engine, self._detectors, self._keep_names = engine, detectors, keep_names
        self._buffer = ""  # original text from ``_base`` on
        self._base = self._start = 0  # offsets in the original: of the buffer, and of what is not decided yet
        self._position = 0  # the same place in the folded buffer
        self._kept_from = 0  # where in the buffer begins what a later decision may look at
        self._ended: AnyType | None = None  # of the part that ends right there
        self._names: set[str] = set()
        self._open: tuple[Rule, Candidate] | None = None
        self._closed = False

    @property
    def decided(self) -> int:
        """How many characters of the original text are decided."""
        return self._start

    def text(self, start: int, end: int) -> str:
        """Characters of the original text that are still held: from what was decided before the last feed on."""
        return self._buffer[start - self._base : end - self._base]

    def feed(self, text: str) -> Iterator[Part]:
        """The parts that more text decides. Consume all of them before feeding again."""
        self._forget()
        self._buffer += text
        return self._decide()

    def whole(self, text: str) -> Iterator[Part]:
        """The parts of a text that is all there: those that feeding and closing give.

        A long text is fed in slices, so that memory does not grow with it; where others are asked they see all of it.
        """
        slices = range(0, 0 if self._detectors else len(text) - AT_ONCE, AT_ONCE)
        for start in slices:
            yield from self.feed(text[start : start + AT_ONCE])
        self._buffer += text[len(slices) * AT_ONCE :]
        yield from self.close()

    def close(self) -> Iterator[Part]:
        """The parts that the end of the text decides."""
        self._forget()
        self._closed = True
        return self._decide()

    def _forget(self) -> None:
        """Drop what no later decision looks at."""
        if self._kept_from > CONTEXT:
            self._buffer = self._buffer[self._kept_from :]
            self._base += self._kept_from
            self._kept_from = 0

    def _decide(self) -> Iterator[Part]:
        here = folded(self._buffer)
        position = _folded_index(here, self._start - self._base)
        ready = len(here.text) if self._closed else len(here.text) - REACH
        if position <= ready:
            for start, end, chosen, continues in self._sweep(here, position, ready):
                first, last = here.span(start, end)
                yield Part(
                    first + self._base, last + self._base, chosen.entity, chosen.score, chosen.why, continues
                )  # fmt: skip
            self._start = self._base + here.original(self._position)
            self._kept_from = here.original(max(0, self._position - CONTEXT))
            if self._closed:
                self._start = self._base + len(self._buffer)

    def _sweep(self, here: Folded, position: int, ready: int) -> Iterator[tuple[int, int, Candidate, bool]]:
        text = here.text
        waiting = self._candidates(here, position)
        index = 0
        while position <= ready:
            if self._open is not None:
                rule, chosen = self._open
                end, goes_on = _continued(rule, text, position, position)
                self._open = (rule, chosen) if goes_on else None
                if end > position:
                    yield position, end, chosen, True
                    position = end
                    continue
            while index < len(waiting) and not self._is_next(waiting, index, position, text):
                index += 1
            if index == len(waiting) or waiting[index].start > ready:
                break
            chosen = waiting[index]
            end = _split(waiting, index) if chosen.splits else chosen.end
            if chosen.rule >= 0:
                rule = self._engine.rules[chosen.rule]
                end, goes_on = _continued(rule, text, chosen.start, end)
                self._open = (rule, chosen) if goes_on else None
                if chosen.entity is EntityType.PERSON and self._keep_names:
                    self._names.add(text[chosen.start : chosen.end])
            yield chosen.start, end, chosen, chosen.rest and chosen.entity is self._ended
            position, self._ended = end, chosen.entity
        if position <= ready:
            position, self._ended = ready + 1, None
        self._position = min(position, len(text))

    def _is_next(self, waiting: Sequence[Candidate], index: int, position: int, text: str) -> bool:
        candidate = waiting[index]
        if candidate.start < position or (candidate.rest and (candidate.start > position or self._ended is None)):
            return False
        if candidate.why is _REPEATED and text[candidate.start : candidate.end] not in self._names:
            return False
        if candidate.splits:
            return text[candidate.start : _split(waiting, index)].strip() != ""
        return candidate.score >= STRONG or not _gives_way(waiting, index)

    def _candidates(self, here: Folded, position: int) -> list[Candidate]:
        text = here.text
        found = [each for each in self._engine.candidates(text) if each.start >= position]
        if self._keep_names:
            names = {text[each.start : each.end] for each in found if each.entity is EntityType.PERSON} | self._names
            for start, end in repetitions(text, names) if names else ():
                if start >= position:
                    found.append(Candidate(start, end, 0.65, EntityType.PERSON, _REPEATED))
        for detector in self._detectors:
            for each in detector.find(self._buffer):
                start, end = _folded_index(here, each.start), _folded_index(here, each.end)
                if position <= start < end:
                    found.append(Candidate(start, end, each.score, each.type, each.why))
        found.sort(key=order)
        return found


def grouped(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """``texts`` in order, so many together as :data:`AT_ONCE` characters are; a longer one by itself."""
    first = size = 0
    for place, text in enumerate(texts):
        if place > first and size + len(text) > AT_ONCE:
            yield texts[first:place]
            first, size = place, 0
        size += len(text) + REACH
    if first < len(texts):
        yield texts[first:]


def whole_findings(parts: Iterable[Part]) -> Iterator[Finding]:
    """Findings from their parts."""
    held: Part | None = None
    for part in parts:
        if held is not None and part.continues:
            held = replace(held, end=part.end)
            continue
        if held is not None:
            yield held.finding()
        held = part
    if held is not None:
        yield held.finding()


def _continued(rule: Rule, text: str, start: int, end: int) -> tuple[int, bool]:
    """Where a finding from ``start`` that reached ``end`` ends as far as may be looked, and whether it may go on."""
    if rule.tail is None:
        return end, False
    while end - start <= REACH - rule.tail_reach:
        match = rule.tail.match(text, end)
        if match is None or match.end() == end:
            return end, False
        end = match.end()
    return end, True


def _gives_way(waiting: Sequence[Candidate], index: int) -> bool:
    return any(other.score >= STRONG for other in _inside(waiting, index))


def _split(waiting: Sequence[Candidate], index: int) -> int:
    """Where a candidate ends that is cut short by what has a form inside it."""
    inside = (other.start for other in _inside(waiting, index) if other.entity not in NAMED)
    return next(inside, waiting[index].end)


def _inside(waiting: Sequence[Candidate], index: int) -> Iterator[Candidate]:
    weak = waiting[index]
    limit = min(weak.end, weak.start + _NEAR)
    for place in range(index + 1, len(waiting)):
        other = waiting[place]
        if other.start >= limit:
            return
        if other.start > weak.start and other.end - other.start <= _SHORT:
            yield other


def _folded_index(here: Folded, index: int) -> int:
    """Where the character ``index`` of the original, or the next one that is seen, stands in the folded text."""
    if not here.unseen:
        return index
    return bisect_left(range(len(here.text)), index, key=here.original)
