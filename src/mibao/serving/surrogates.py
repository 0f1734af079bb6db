"""Made-up values of one conversation that stand for true ones, and where they stand in a text.

A surrogate is known again only as it was written, with no letter, digit or mark of a longer word on either side. So it
must be told from everything else: one that is short, that stands for two values, or that somebody wrote himself is not
used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from mibao.deid.fakes import fake
from mibao.types import AnyType

LONGEST = 200
_SHORTEST, _SHORTEST_CHINESE = 6, 3
_APART_BEFORE = r"(?:(?<![A-Za-z0-9_@])(?<![A-Za-z0-9][.\-+%])|(?<=\\[nrt]))"  # escapes: JSON within a text
_APART_AFTER = r"(?![A-Za-z0-9_@]|[.\-+%][A-Za-z0-9])"


class Surrogates:
    """What each surrogate of one conversation stands for.

    Args:
        key: 32 bytes, of the conversation alone.
    """

    __slots__ = ("_beginnings", "_key", "_pattern", "_true")

    def __init__(self, *, key: bytes) -> None:
        self._key = key
        self._true: dict[str, str] = {}
        self._beginnings: frozenset[str] | None = None
        self._pattern: re.Pattern[str] | None = None

    def __len__(self) -> int:
        return len(self._true)

    @property
    def values(self) -> dict[str, str]:
        """What each stands for."""
        return self._true

    def surrogate_for(self, entity: AnyType, written: str, taken: str) -> str | None:
        """What stands for ``written``; None where nothing can that is known again for sure.

        Args:
            taken: The text that a surrogate must not stand in.
        """
        made = fake(entity, written, key=self._key)
        if self._true.get(made) == written:
            return made
        if not _is_distinct(made) or made in self._true or made == written or made in taken:
            return None
        self.know(made, written)
        return made

    def know(self, surrogate: str, written: str) -> None:
        """Let ``surrogate`` stand for ``written``."""
        self._true[surrogate] = written
        self._beginnings = self._pattern = None

    def leave(self, text: str) -> None:
        """Forget those that stand in ``text``, where their user wrote them himself."""
        written = [surrogate for surrogate in self._true if surrogate in text]
        for surrogate in written:
            del self._true[surrogate]
        if written:
            self._beginnings = self._pattern = None

    def find(self, text: str, start: int = 0) -> Iterator[tuple[int, int]]:
        """Where they stand in ``text[start:]``, in order."""
        if self._true:
            if self._pattern is None:
                longest_first = sorted(self._true, key=len, reverse=True)
                self._pattern = re.compile(
                    f"{_APART_BEFORE}(?:{'|'.join(map(re.escape, longest_first))}){_APART_AFTER}"
                )
            for match in self._pattern.finditer(text, start):
                yield match.span()

    def undecided(self, text: str) -> int:
        """From where on ``text`` may be a surrogate that has not ended; ``len(text)`` where it cannot."""
        if self._beginnings is None:
            self._beginnings = frozenset(
                surrogate[:end] for surrogate in self._true for end in range(1, len(surrogate) + 1)
            ) | {surrogate + mark for surrogate in self._true for mark in ".-+%"}
        for start in range(max(0, len(text) - LONGEST - 1), len(text)):
            if text[start:] in self._beginnings:
                return start
        return len(text)


def _is_distinct(surrogate: str) -> bool:
    if len(surrogate) > LONGEST:
        return False
    chinese = sum("一" <= symbol <= "鿿" for symbol in surrogate)
    return chinese >= _SHORTEST_CHINESE or (chinese == 0 and len(surrogate) >= _SHORTEST)
