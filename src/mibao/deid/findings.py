"""What a detector reports: kind, place, confidence and reason, never the text itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from mibao.types import AnyType


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One stretch of personal data, ``text[start:end]``, offsets in characters of the original text.

    ``score`` in (0, 1] is a rank, not a probability. ``why`` names the rule, in words that hold no input.
    """

    type: AnyType
    start: int
    end: int
    score: float
    why: str


@runtime_checkable
class Detector(Protocol):
    """Whatever reports stretches of personal data in one text: rules, word lists, a model."""

    def find(self, text: str) -> tuple[Finding, ...]:
        """The findings in ``text``, in any order, overlapping or not, offsets in its characters."""
        ...
