"""The table of kinds of personal data, ``kinds.toml``, and the rules that find them.

A rule is a bounded pattern with a verdict. A finding starts where group 1 of its match does, and nothing further than
:data:`REACH` characters after that start is looked at: that is what lets a stream hold back so little.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from mibao.deid import places
from mibao.deid.checks import CHECKS
from mibao.deid.normalisation import MONTHS
from mibao.errors import InputError
from mibao.types import AnyType, EntityType

Verdict: TypeAlias = "tuple[int, int, float, str] | None"  # start, end, score and why, or not a finding

REACH = 64
TAIL_REACH = 9
CONTEXT_BEFORE = 32
CONTEXT_REACH = 40  # words after a value count up to here, from its start
CONTEXT_AFTER = 14
SCORE_BESIDE_CONTEXT = 0.02

_LOOSE = 0.6
_MONTH_NAMES = "|".join(  # "may" and "march" in lower case are words
    rf"{full}|{full.upper()}|{full[:3]}\.?|{full[:3].upper()}\.?" for full in (*MONTHS, "Sept")
)
_SAYS = "改成|改为|换成|变更为|更新为|更新成|应为|是|为|系"
_OPENING = r"""(?:(?!\(\+?[0-9]{1,4}\))["'“”‘’「『【《<(\[*`]){0,2}"""
_NO_PLACE = "的在是和与及或为到从由了您我你他她它这那有于被把给等电邮手联身姓"
_FRAGMENTS: Mapping[str, str] = MappingProxyType(
    {
        "L": r"(?<![0-9A-Za-z])",
        "R": r"(?![0-9A-Za-z])",
        "N": r"(?<![0-9A-Za-z])(?<![0-9][.])",
        "M": r"(?![0-9A-Za-z])(?!\.[0-9])",
        "S": "(?: ?[.·•_*-] ?| {1,2})",
        "Z": "[零〇一二三四五六七八九幺]",
        "G": (
            r"""["'*_`]{0,2}\)?"""
            rf"(?:[ \t]{{0,2}}(?:{_SAYS}|(?i:is|was|are|to|on file)(?=[^0-9A-Za-z]))){{0,2}}"
            r"[ \t]{0,2}[:=#|]{0,2}\r?\n?[ \t]{0,3}" + _OPENING
        ),
        "K": """["']?[ \\t]{0,2}[:=#是为]{0,2}[ \\t]{0,3}["']?""",
        "C": r"(?:呢|吗|是多少|多少| please)?[?.。]?\r?\n[A-Za-z一-鿿]{1,10}: ?",
        "E": r"(?: ?(?:ext\.?|x|转分机|分机|转)[ :]?[0-9]{1,6}| ?\((?:ext\.?|转|分机)[ :]?[0-9]{1,6}\))",
        "MONTH": f"(?:{_MONTH_NAMES})",
        "P": f"(?:(?![{_NO_PLACE}])[一-鿿])",
        "PROVINCE": places.PROVINCE,
        "CITY": places.CITY,
    }
)
_FRAGMENT = re.compile(r"\{([A-Z]+)\}")
_SENTENCE_END = re.compile(r"[。！？!?；;\n]|\. ")
_APART = re.compile(
    r"(?i)(?:(?<![a-z])(?:order|tracking|waybill|invoice|ticket|part|model|version|ver|build|release|isbn|issn|doi|sku|"
    r"rfc|row|trace|batch|v)(?: ?(?:no|number|num|id|code))?\.?|订单|流水|单号|运单|快递|发票|版本|型号|"
    r"批号|批次|编码|货号|条码)"
    r"(?:编?号码?|id)?[ :=#是为]{0,3}$"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One way of finding one kind; ``judge`` places and scores a match of ``pattern``, or rejects it.

    ``tail`` continues a finding as often as it matches; one match of it takes at most ``tail_reach`` characters.
    """

    entity: AnyType
    pattern: re.Pattern[str]
    judge: Callable[[re.Match[str]], Verdict]
    tail: re.Pattern[str] | None = None
    tail_reach: int = TAIL_REACH
    gate: str | None = None  # a simpler pattern that every match holds, where the pattern itself makes a poor gate
    gate_reach: int | None = None  # characters from the start of a match to the end of ``gate``, where they are few
    words: tuple[str, ...] = ()  # one of which must stand beside a finding, at most CONTEXT_BEFORE characters before it


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One row of the table: what is found, how, and which law speaks of it."""

    type: EntityType
    name: str
    name_zh: str
    jurisdiction: str
    hipaa_item: str
    cn_class: str
    sensitive: bool
    in_presidio: bool
    context: tuple[str, ...]
    example: str
    counter_example: str
    rules: tuple[Rule, ...] = field(repr=False)


@cache
def kinds() -> tuple[Kind, ...]:
    """The table, in its order; read once."""
    text = Path(__file__).with_name("kinds.toml").read_text(encoding="utf-8")
    return tuple(_kind(row) for row in tomllib.loads(text)["kind"])


def _kind(row: Mapping[str, Any]) -> Kind:
    try:
        entity = EntityType(row["type"])
        context = tuple(row["context"])
        specimens = frozenset(row.get("specimens", ()))
        rules = tuple(_rule(entity, rule, context=context, specimens=specimens) for rule in row["rule"])
        return Kind(
            type=entity, name=row["name"], name_zh=row["zh"], jurisdiction=row["where"], hipaa_item=row["hipaa"],
            cn_class=row["cn"], sensitive=row.get("sensitive", False), in_presidio=row.get("presidio", False),
            context=context, example=row["example"], counter_example=row["counter"], rules=rules,
        )  # fmt: skip
    except (KeyError, ValueError, re.error) as error:
        raise InputError(f"kind {row.get('type', 'without a type')}: {error}") from error


def expanded(pattern: str) -> str:
    """``pattern`` with the fragments of the table written out."""
    return _FRAGMENT.sub(lambda match: _FRAGMENTS[match[1]], pattern)


def context_pattern(words: Sequence[str]) -> re.Pattern[str]:
    """Any of ``words``: those of ASCII letters only between other characters, the others anywhere."""
    ordered = sorted(words, key=lambda word: (-len(word), word))
    latin = "|".join(re.escape(word) for word in ordered if word.isascii())
    other = "|".join(re.escape(word) for word in ordered if not word.isascii())
    parts = [f"(?<![A-Za-z])(?:{latin})(?![A-Za-z])"] * bool(latin) + [other] * bool(other)
    return re.compile("|".join(parts) or "(?!)", re.IGNORECASE | re.ASCII)


def is_beside(words: re.Pattern[str], text: str, start: int, end: int) -> bool:
    """Whether one of ``words`` stands before or closely after ``text[start:end]``."""
    return words.search(text, max(0, start - CONTEXT_BEFORE), start) is not None or _follows(words, text, start, end)


def is_labelled(words: re.Pattern[str], text: str, start: int, end: int) -> bool:
    """Whether one of ``words`` stands before ``text[start:end]`` in its sentence, or closely after.

    Not so where the words right before it say that it is something else, such as the number of an order.
    """
    before = text[max(0, start - CONTEXT_BEFORE) : start]
    sentence = _SENTENCE_END.split(before)[-1]
    if _APART.search(sentence):
        return False
    return words.search(sentence) is not None or _follows(words, text, start, end)


def _follows(words: re.Pattern[str], text: str, start: int, end: int) -> bool:
    after = min(end + CONTEXT_AFTER, start + CONTEXT_REACH)
    return after > end and words.search(text[end:after]) is not None


def _rule(entity: EntityType, row: Mapping[str, Any], *, context: tuple[str, ...], specimens: frozenset[str]) -> Rule:
    check = CHECKS[row["check"]] if "check" in row else None
    listed = tuple(row.get("words", context))
    words = context_pattern(listed)
    needs, loose, apart = "needs" in row, float(row.get("loose", 0)), bool(row.get("apart", False))
    score, why = float(row["score"]), str(row["why"])
    doubt = f"{why.partition(',')[0]}, not well-formed or no valid check digit, beside a word for one"

    def judge(match: re.Match[str]) -> Verdict:
        start, end = match.span(1)
        length = check(match) if check else end - start
        if not length and match[1] in specimens:
            return start, end, score, f"{why.partition(',')[0]}, a well-known specimen"
        if not length and not loose:
            return None
        if apart and _APART.search(match.string, max(0, start - 24), start):
            return None
        if not length:
            doubted = is_labelled(words, match.string, start, end)
            return (start, end, loose, doubt) if doubted else None
        beside = is_beside(words, match.string, start, end)
        if needs and not beside:
            return None
        return start, start + length, min(1.0, score + SCORE_BESIDE_CONTEXT) if beside else score, why

    # ASCII: without it (?i:k) also matches the Kelvin sign
    tail = re.compile(expanded(row["tail"]), re.ASCII) if "tail" in row else None
    pattern = re.compile(expanded(row["pattern"]), re.ASCII)
    if pattern.groups < 1:
        raise ValueError(f"expected a group around the finding in {row['pattern']}")
    return Rule(
        entity=entity, pattern=pattern, judge=judge, tail=tail, tail_reach=row.get("tail_reach", TAIL_REACH),
        gate=expanded(row["gate"]) if "gate" in row else None, gate_reach=row.get("gate_reach"),
        words=listed if needs else (),
    )  # fmt: skip
