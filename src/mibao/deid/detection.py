"""Personal data in a text of either language, or of both."""

from __future__ import annotations

import re

from mibao.deid.findings import Finding, without_overlaps
from mibao.deid.names import find_names
from mibao.deid.normalisation import fold
from mibao.deid.patterns import find_structured
from mibao.deid.pseudonyms import PLACEHOLDER
from mibao.types import EntityType, Language

_HAN = re.compile("[㐀-䶿一-鿿豈-﫿\U00020000-\U0003134f]")
_LATIN_WORD = re.compile("[A-Za-z]++")


def detect(text: str) -> tuple[Finding, ...]:
    """Where ``text`` holds personal data: findings in order, not overlapping, offsets in its characters.

    The longest candidate wins, then the best score. Text in the form of our own placeholders is a finding too, of
    type ``PLACEHOLDER``: that is what makes restoring exact. Both languages are always looked for. Takes time
    linear in the text. Misses are possible: ``docs/deid.md`` lists the kinds.
    """
    folded = fold(text)
    candidates = [*find_structured(folded), *find_names(folded)]
    for match in PLACEHOLDER.finditer(folded):
        start, end = match.span()
        why = "has the form of a placeholder"
        candidates.append(Finding(type=EntityType.PLACEHOLDER, start=start, end=end, score=1.0, why=why))
    return without_overlaps(candidates, length=len(text))


def language_of(text: str) -> Language:
    """The language that carries more of ``text``: Han characters counted against Latin words."""
    han = sum(1 for _ in _HAN.finditer(text))
    latin = sum(1 for _ in _LATIN_WORD.finditer(text))
    return Language.CHINESE if han > latin else Language.ENGLISH
