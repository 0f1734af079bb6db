"""What a detector reports: kind, place, confidence and reason, never the text itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mibao.types import EntityType


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One stretch of personal data, ``text[start:end]``, offsets in characters of the original text.

    ``score`` in (0, 1] is a rank, not a probability. ``why`` names the rule, in words that hold no input.
    """

    type: EntityType
    start: int
    end: int
    score: float
    why: str


def without_overlaps(findings: Iterable[Finding], *, length: int) -> tuple[Finding, ...]:
    """The findings that remain when the longest wins, then the best score, then the first; in order of place.

    Args:
        findings: Non-empty stretches of one text, in any order.
        length: Characters in that text.
    """
    taken = bytearray(length)
    chosen = []
    for finding in sorted(findings, key=lambda f: (f.start - f.end, -f.score, f.start, f.type.value)):
        if taken.find(1, finding.start, finding.end) == -1:
            taken[finding.start : finding.end] = b"\x01" * (finding.end - finding.start)
            chosen.append(finding)
    return tuple(sorted(chosen, key=lambda f: f.start))
