"""The fast engine: all gates in one Hyperscan database, which says where a match may be.

Its gates (:mod:`mibao.deid.gates`) may open more often than ``re`` matches, never less. Around each place that it
reports ``re`` decides, so the candidates are those of :mod:`mibao.deid.matching_re`; a test holds the two against
each other.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any

import hyperscan

from mibao.deid.gates import Gate, gates, inner_gates, word_gates
from mibao.deid.kinds import CONTEXT_BEFORE, REACH, Rule
from mibao.deid.matching import Candidate, candidates_between

# From the start of a match, its label included, to the end of its gate; the two line ends around the text make 2.
_WINDOW = 2 * REACH + 2


class HyperscanEngine:
    """Finds candidates where Hyperscan reports that a rule's gate is open."""

    __slots__ = ("_databases", "_local", "_opened", "rules")

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = rules
        opened: dict[Gate, list[int]] = {}
        for number, rule in enumerate(rules):
            for gate in _gates_of(rule):
                opened.setdefault(gate, []).append(number)
        self._opened = tuple((gate.head, tuple(numbers)) for gate, numbers in opened.items())
        self._databases = tuple(_compiled(group) for group in _groups(opened))
        self._local = threading.local()

    def candidates(self, text: str) -> list[Candidate]:
        """As :meth:`mibao.deid.matching.Engine.candidates`."""
        windows: dict[int, list[tuple[int, int]]] = {}
        for gate, ends in self._ends(text).items():
            head, numbers = self._opened[gate]
            for number in numbers:
                ahead = CONTEXT_BEFORE if self.rules[number].words else 0
                before = _WINDOW if head is None else head + 2
                windows.setdefault(number, []).extend((end - before, end + ahead) for end in ends)
        found: list[Candidate] = []
        for number, ranges in windows.items():
            rule = self.rules[number]
            for first, last in _joined(ranges):
                found += candidates_between(rule, number, text, first, last)
        return found

    def _ends(self, text: str) -> dict[int, list[int]]:
        """For each gate that matched, where its matches end: offsets in characters, rising."""
        data = b"\n%b\n" % text.encode("utf-8", "replace")
        reported: dict[int, list[int]] = {}

        def report(gate: int, _start: int, end: int, _flags: int, _context: object) -> None:
            if gate in reported:
                reported[gate].append(end)
            else:
                reported[gate] = [end]

        for database, scratch in zip(self._databases, self._scratches(), strict=True):
            database.scan(data, match_event_handler=report, scratch=scratch)
        if len(data) == len(text) + 2:
            return reported
        return _in_characters(data, reported)

    def _scratches(self) -> list[Any]:
        """This thread's own working memories: Hyperscan lets no two scans share one."""
        if not hasattr(self._local, "scratches"):
            self._local.scratches = []
            for database in self._databases:
                scratch = hyperscan.Scratch()
                scratch.set_database(database)
                self._local.scratches.append(scratch)
        scratches: list[Any] = self._local.scratches
        return scratches


def _gates_of(rule: Rule) -> tuple[Gate, ...]:
    if rule.words:
        return word_gates(rule.words)
    return gates(rule.pattern.pattern) if rule.gate is None else inner_gates(rule.gate, rule.gate_reach)


def _groups(opened: Iterable[Gate]) -> list[list[tuple[int, Gate]]]:
    """Gates that are compiled together: words, patterns without capitals, patterns with. All in one takes longer."""
    kinds: dict[int, list[tuple[int, Gate]]] = {}
    for number, gate in enumerate(opened):
        kind = 0 if gate.is_word else 1 + (b"\\x41" in gate.expression)
        kinds.setdefault(kind, []).append((number, gate))
    return list(kinds.values())


def _compiled(group: Sequence[tuple[int, Gate]]) -> Any:
    database = hyperscan.Database()
    database.compile(
        expressions=[gate.expression for _, gate in group],
        ids=[number for number, _ in group],
        elements=len(group),
        flags=[hyperscan.HS_FLAG_CASELESS if gate.caseless else 0 for _, gate in group],
    )
    return database


def _joined(ranges: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The same places in ranges that do not meet."""
    ranges.sort()
    first, last = ranges[0]
    for start, end in ranges:
        if start > last:
            yield max(0, first), last
            first = start
        last = max(last, end)
    yield max(0, first), last


def _in_characters(data: bytes, reported: dict[int, list[int]]) -> dict[int, list[int]]:
    """Offsets in characters in place of those in bytes; one inside a character counts as behind it."""
    places = sorted({end for ends in reported.values() for end in ends})
    starts = data.translate(_STARTS)
    counts = (starts.count(1, before, end) for before, end in zip([0, *places], places, strict=False))
    at = dict(zip(places, accumulate(counts), strict=True))
    return {gate: [at[end] for end in ends] for gate, ends in reported.items()}


_STARTS = bytes(not 0x80 <= byte < 0xC0 for byte in range(256))  # 1 for a byte that begins a character
