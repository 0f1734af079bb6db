"""Personal data in a text of either language, or of both."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

from mibao.deid import names
from mibao.deid.findings import Detector, Finding
from mibao.deid.kinds import REACH, Rule, kinds
from mibao.deid.matching import Candidate, Engine
from mibao.deid.matching_growing import GrowingEngine
from mibao.deid.matching_re import ReEngine
from mibao.deid.normalisation import folded
from mibao.deid.pseudonyms import PLACEHOLDER
from mibao.deid.scanning import Scanner, grouped, whole_findings
from mibao.types import EntityType, Language

if TYPE_CHECKING:
    from mibao.deid.custom import CustomTypes

_HAN = re.compile("[㐀-䶿一-鿿豈-﫿\U00020000-\U0003134f]")
_APART = "\n" * REACH  # no rule and no model sees two texts so far apart
_LATIN_WORD = re.compile("[A-Za-z]++")


def detect(
    text: str,
    *,
    detectors: Sequence[Detector] = (),
    engine: Engine | None = None,
    types: CustomTypes | None = None,
) -> tuple[Finding, ...]:
    """Where ``text`` holds personal data: findings in order, not overlapping, offsets in its characters.

    Text in the form of our own placeholders is a finding too, of type ``PLACEHOLDER``: that is what makes restoring
    exact. Both languages are always looked for. Takes time linear in the text. Misses are possible.

    Args:
        detectors: Others to ask as well.
        engine: What searches; by default :func:`default_engine`, which looks for names too where the extra ``deid`` is
            installed. :func:`rules_engine` has the rules alone.
        types: Types of the user's own, :func:`mibao.deid.custom.parse_types`, beside those that come with mibao.
    """
    if types is not None:
        engine, detectors = engine or types.engine, (*detectors, *types.detectors)
    scanner = Scanner(engine or default_engine(), detectors)
    return tuple(whole_findings(scanner.whole(text)))


def detect_each(
    texts: Sequence[str], *, detectors: Sequence[Detector] = (), engine: Engine | None = None
) -> list[tuple[Finding, ...]]:
    """What :func:`detect` finds in each of ``texts``; many short ones are searched at once, which is faster."""
    engine = engine or default_engine()
    findings = list[tuple[Finding, ...]]()
    for some in grouped(texts):
        if len(some) > 1:
            findings += _together(some, detectors, engine)
        else:
            findings.append(detect(some[0], detectors=detectors, engine=engine))
    return findings


def _together(texts: Sequence[str], detectors: Sequence[Detector], engine: Engine) -> Iterator[tuple[Finding, ...]]:
    seen = [folded(text).text for text in texts]
    found = deque(sorted(engine.candidates(_APART.join(seen)), key=lambda each: each.start))
    start = 0
    for text, visible in zip(texts, seen, strict=True):
        end, mine = start + len(visible), []
        while found and found[0].start < end:
            each = found.popleft()
            if each.start >= start:
                mine.append(replace(each, start=each.start - start, end=min(each.end, end) - start))
        scanner = Scanner(_Found(engine.rules, mine), detectors)
        yield tuple(whole_findings(scanner.whole(text)))
        start = end + len(_APART)


@dataclass(slots=True)
class _Found:
    """An engine whose search is done."""

    rules: Sequence[Rule]
    found: list[Candidate]

    def candidates(self, _text: str) -> list[Candidate]:
        return list(self.found)


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
    """All rules and the models of names; without the extra ``deid`` the rules alone, see :func:`names_are_missing`.

    The models are loaded when a text first has letters of their language.
    """
    return with_names(rules_engine())


def with_names(engine: Engine) -> Engine:
    """``engine`` and the models of names, where the extra ``deid`` is installed."""
    if names_are_missing():
        return engine
    from mibao.deid.matching_names import NamesEngine  # noqa: PLC0415 - brings NumPy
    from mibao.deid.names_model import NamesModel  # noqa: PLC0415

    return NamesEngine(engine, NamesModel())


@cache
def rules_engine() -> Engine:
    """All rules without the models of names, on Hyperscan where it is installed, else on ``re``: the same findings."""
    return engine_for(all_rules())


def names_are_missing() -> str | None:
    """Why names without a cue word before them are not looked for, in a line for the user; ``None`` if they are."""
    if find_spec("onnxruntime"):
        return None
    return "names are found after cue words only: for the models of names pip install 'mibao[deid]'"


def engine_for(rules: Sequence[Rule]) -> Engine:
    """``rules`` on the fastest engine that is installed."""
    return GrowingEngine(rules) if find_spec("hyperscan") else ReEngine(rules)
