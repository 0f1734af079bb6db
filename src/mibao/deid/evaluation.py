"""How well findings agree with a gold standard: precision, recall, F1 and F2 by type, exact and overlapping.

Exact: type, start and end agree. Overlapping: type agrees and at least one character is shared; each side counts by
its own spans, so that one long finding over two gold spans finds both, and is itself one right finding.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Span: TypeAlias = tuple[str, int, int]  # type, start, end

ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Counts of one type. ``found_right`` of ``found`` agree with a gold span, ``gold_hit`` of ``gold`` were found."""

    gold: int = 0
    found: int = 0
    gold_hit: int = 0
    found_right: int = 0

    @property
    def precision(self) -> float:
        """Of what was found, the share that is right; 1 where nothing was found."""
        return self.found_right / self.found if self.found else 1.0

    @property
    def recall(self) -> float:
        """Of what is to be found, the share that was; 1 where there is nothing."""
        return self.gold_hit / self.gold if self.gold else 1.0

    def f(self, beta: int) -> float:
        """The F score, recall counted ``beta`` times as much as precision."""
        below = beta * beta * self.precision + self.recall
        return (1 + beta * beta) * self.precision * self.recall / below if below else 0.0


def agreements(texts: Iterable[tuple[Sequence[Span], Sequence[Span]]], *, exact: bool) -> Mapping[str, Agreement]:
    """The agreement of each type, and of :data:`ALL` together, over pairs of gold and found spans of one text."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for gold, found in texts:
        for name, start, end in gold:
            _add(counts, name, 0, 2, hit=_agrees((name, start, end), found, exact=exact))
        for name, start, end in found:
            _add(counts, name, 1, 3, hit=_agrees((name, start, end), gold, exact=exact))
    names = [ALL, *sorted(counts.keys() - {ALL})]
    return {
        name: Agreement(gold=row[0], found=row[1], gold_hit=row[2], found_right=row[3])
        for name in names
        if (row := counts[name])
    }


def _add(counts: dict[str, list[int]], name: str, total: int, right: int, *, hit: bool) -> None:
    for row in (counts[name], counts[ALL]):
        row[total] += 1
        row[right] += hit


def _agrees(span: Span, others: Sequence[Span], *, exact: bool) -> bool:
    name, start, end = span
    if exact:
        return span in others
    return any(kind == name and first < end and start < last for kind, first, last in others)
