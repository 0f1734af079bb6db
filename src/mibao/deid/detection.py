"""Personal data in a text of either language, or of both."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec

from mibao.deid import names
from mibao.deid.findings import Detector, Finding
from mibao.deid.kinds import Rule, kinds
from mibao.deid.matching import Engine
from mibao.deid.matching_growing import GrowingEngine
from mibao.deid.matching_re import ReEngine
from mibao.deid.pseudonyms import PLACEHOLDER
from mibao.deid.scanning import Scanner, whole_findings
from mibao.types import EntityType, Language

_HAN = re.compile("[㐀-䶿一-鿿豈-﫿\U00020000-\U0003134f]")
_LATIN_WORD = re.compile("[A-Za-z]++")


def detect(text: str, *, detectors: Sequence[Detector] = (), engine: Engine | None = None) -> tuple[Finding, ...]:
    """Where ``text`` holds personal data: findings in order, not overlapping, offsets in its characters.

    Text in the form of our own placeholders is a finding too, of type ``PLACEHOLDER``: that is what makes restoring
    exact. Both languages are always looked for. Takes time linear in the text. Misses are possible.

    Args:
        detectors: Others to ask as well, such as a model of names.
        engine: What searches; by default all rules, on the fastest engine that is installed.
    """
    scanner = Scanner(engine or default_engine(), detectors)
    parts = [*scanner.feed(text), *scanner.close()]
    return tuple(whole_findings(parts))


def language_of(text: str) -> Language:
    """The language that carries more of ``text``: Han characters counted against Latin words."""
    if text.isascii():
        return Language.ENGLISH
    han = sum(1 for _ in _HAN.finditer(text))
    latin = sum(1 for _ in _LATIN_WORD.finditer(text))
    return Language.CHINESE if han > latin else Language.ENGLISH


@cache
def all_rules() -> tuple[Rule, ...]:
    """Every rule: those of the table of kinds, of names after cues, and of what looks like a placeholder."""
    return (*pattern_rules(), *names.RULES)


@cache
def pattern_rules() -> tuple[Rule, ...]:
    """The rules for data that has a form, without names."""
    placeholder = Rule(
        entity=EntityType.PLACEHOLDER,
        pattern=re.compile(f"({PLACEHOLDER.pattern})"),
        judge=lambda match: (*match.span(1), 1.0, "has the form of a placeholder"),
    )
    return (placeholder, *(rule for kind in kinds() for rule in kind.rules))


@cache
def default_engine() -> Engine:
    """All rules, on Hyperscan where the extra ``deid`` is installed, else on Python's ``re``: the same findings."""
    return engine_for(all_rules())


def engine_for(rules: Sequence[Rule]) -> Engine:
    """``rules`` on the fastest engine that is installed."""
    return GrowingEngine(rules) if find_spec("hyperscan") else ReEngine(rules)
