"""The engine that every installation has: each rule's pattern searched for by ``re``."""

from __future__ import annotations

from collections.abc import Sequence

from mibao.deid.kinds import Rule
from mibao.deid.matching import Candidate, candidates_between


class ReEngine:
    """Finds candidates with Python's own regular expressions, rule by rule."""

    __slots__ = ("rules",)

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = rules

    def candidates(self, text: str) -> list[Candidate]:
        """As :meth:`mibao.deid.matching.Engine.candidates`."""
        last = len(text)
        return [
            candidate
            for number, rule in enumerate(self.rules)
            for candidate in candidates_between(rule, number, text, 0, last)
        ]
