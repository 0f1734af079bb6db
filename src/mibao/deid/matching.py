"""Every place where a rule matches: the interface of the two engines, and what both share.

A candidate is a match at one start, whatever matches before it: for each rule and each place where its pattern
matches, the match that Python's ``re`` makes there, judged. So the candidates do not depend on where a scan began,
on how a text was split, or on the engine, which only says where looking is worth while.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from mibao.deid.kinds import REACH, Rule
from mibao.types import AnyType, EntityType

CONTEXT = 2 * REACH
_NARROW = 16
NAMED = frozenset(
    {EntityType.PERSON, EntityType.LOCATION, EntityType.ORGANIZATION, EntityType.ADDRESS, EntityType.TITLE}
)
STRONG = 0.9  # from here on a finding is not given up for another


@dataclass(frozen=True, slots=True)
class Candidate:
    """One possible finding: offsets in the folded text."""

    start: int
    end: int
    score: float
    entity: AnyType
    why: str
    rule: int = -1  # which rule found it; -1: none of the engine's
    rest: bool = False  # of a longer finding: counts only right behind what was decided before
    splits: bool = False  # what is strong inside it cuts it short, where another would give way


@runtime_checkable
class Engine(Protocol):
    """What finds candidates: a set of rules, made ready once."""

    rules: Sequence[Rule]

    def candidates(self, text: str) -> list[Candidate]:
        """All candidates in ``text``, already folded, in any order.

        Whether there is one at a place, and all of it, depends on nothing further than :data:`CONTEXT` characters
        before it and :data:`~mibao.deid.kinds.REACH` after.
        """
        ...


def candidates_between(rule: Rule, number: int, text: str, first: int, last: int) -> Iterator[Candidate]:
    """The candidates of one rule whose match starts in ``[first, last]``."""
    for match in _matches(rule.pattern, text, first, min(last, len(text))):
        verdict = rule.judge(match)
        if verdict is not None:
            start, stop, score, why = verdict
            yield Candidate(start, stop, score, rule.entity, why, number)


def _matches(pattern: re.Pattern[str], text: str, first: int, last: int) -> Iterator[re.Match[str]]:
    """The match at every start in ``[first, last]`` that has one."""
    end = min(len(text), last + 2 * REACH + 1)
    if last - first < _NARROW:  # a search that finds nothing would go on to ``end``
        for place in range(first, last + 1):
            if match := pattern.match(text, place, end):
                yield match
        return
    place = first
    while place <= last and (match := pattern.search(text, place, end)) and match.start() <= last:
        yield match
        place = match.start() + 1


def order(candidate: Candidate) -> tuple[int, int, int, float, int]:
    """Left to right; at one start the strong, then data with a form, then names; the longest, then the best score."""
    rank = 0 if candidate.score >= STRONG else 1 + (candidate.entity in NAMED)
    return candidate.start, rank, candidate.start - candidate.end, -candidate.score, candidate.rule
