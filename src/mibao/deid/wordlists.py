"""Words that their owner knows to be personal data: names of staff, of projects, of a place.

Capitals do not matter in ASCII letters; a word that begins or ends with a letter or digit of ASCII is found only
where it begins or ends in the text too. At one place the longest word wins.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any

from mibao.deid.findings import Finding
from mibao.deid.kinds import REACH
from mibao.deid.normalisation import fold
from mibao.errors import InputError
from mibao.types import AnyType

LONGEST = REACH - 3
_SMALL = str.maketrans({code: code + 32 for code in range(65, 91)})
_ASCII_WORD = re.compile("[0-9A-Za-z]")


class WordList:
    """A detector of listed words, for one type: Aho-Corasick with the extra ``deid``, else one pattern; the same.

    Raises:
        InputError: a word is empty or longer than :data:`LONGEST`.
    """

    __slots__ = ("_automaton", "_entity", "_pattern", "_score", "_words")

    def __init__(self, entity: AnyType, words: Iterable[str], *, score: float = 0.95, automaton: bool = True) -> None:
        self._entity, self._score = entity, score
        self._words = sorted({_plain(word) for word in words}, key=lambda word: (-len(word), word))
        if not all(0 < len(word) <= LONGEST for word in self._words):
            raise InputError(f"word list: expected words of 1 to {LONGEST} characters")
        self._automaton: Any = _automaton_of(self._words) if automaton else None
        self._pattern = (
            None if self._automaton else re.compile(f"(?=({'|'.join(map(_bounded, self._words)) or '(?!)'}))")
        )

    def find(self, text: str) -> tuple[Finding, ...]:
        """As :meth:`mibao.deid.findings.Detector.find`: the longest word at each place."""
        plain = _plain(text)
        return tuple(
            Finding(type=self._entity, start=start, end=end, score=self._score, why="stands in a list of words")
            for start, end in (self._by_automaton(plain) if self._automaton else self._by_pattern(plain))
        )

    def _by_automaton(self, plain: str) -> Iterator[tuple[int, int]]:
        longest: dict[int, int] = {}
        for _, start, end in self._automaton.find_matches_as_indexes(plain, overlapping=True):
            if end > longest.get(start, 0) and _stands_alone(plain, start, end):
                longest[start] = end
        yield from sorted(longest.items())

    def _by_pattern(self, plain: str) -> Iterator[tuple[int, int]]:
        if self._pattern is not None:
            yield from (match.span(1) for match in self._pattern.finditer(plain))


def _automaton_of(words: Sequence[str]) -> Any:
    if find_spec("ahocorasick_rs") is None:
        return None
    import ahocorasick_rs  # noqa: PLC0415 - only with the extra

    return ahocorasick_rs.AhoCorasick(words)


def _plain(text: str) -> str:
    """Folded, ASCII capitals small: every offset stays."""
    return fold(text).translate(_SMALL)


def _bounded(word: str) -> str:
    before = "(?<![0-9a-z])" if _ASCII_WORD.match(word) else ""
    after = "(?![0-9a-z])" if _ASCII_WORD.match(word[-1]) else ""
    return f"{before}{re.escape(word)}{after}"


def _stands_alone(plain: str, start: int, end: int) -> bool:
    joined_before = start > 0 and _ASCII_WORD.match(plain[start]) and _ASCII_WORD.match(plain[start - 1])
    joined_after = end < len(plain) and _ASCII_WORD.match(plain[end - 1]) and _ASCII_WORD.match(plain[end])
    return not (joined_before or joined_after)
