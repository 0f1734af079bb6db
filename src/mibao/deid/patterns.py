"""Personal data that has a form: e-mail addresses, phone numbers, identity and record numbers, dates.

Every pattern is bounded, so matching is linear in the text. Boundaries are ASCII (no letter or digit beside the
match): Chinese neighbours, which Unicode counts as letters, do not hide a number. Group 1 is the finding.
Patterns read text that :func:`mibao.deid.normalisation.fold` has folded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from mibao.deid.checksums import is_resident_id
from mibao.deid.findings import Finding
from mibao.deid.normalisation import MONTHS
from mibao.types import EntityType

Verdict: TypeAlias = "tuple[float, str] | None"  # score and why, or not a finding

_LEFT = r"(?<![0-9A-Za-z])"
_LEFT_OF_NUMBER = r"(?=[0-9+(])" + _LEFT + r"(?<![0-9]\.)"  # the look ahead is for speed, here and below
_RIGHT = r"(?![0-9A-Za-z])"
_RIGHT_OF_NUMBER = _RIGHT + r"(?!\.[0-9])"
_EXTENSION = r"(?:(?: ?(?:ext\.?|x) ?|转)[0-9]{1,6})?"
_CONTEXT_CHARACTERS = 24
_IDENTITY_CONTEXT = re.compile(r"身份证|身份号|证件|(?<![a-z])id(?![a-z])|identity|identification", re.IGNORECASE)
_YEAR = "(?:19|20)[0-9]{2}"
_DAY = "[0-3]?[0-9](?:st|nd|rd|th)?"
_MONTH_NAMES = "|".join(  # "may" and "march" in lower case are words
    rf"{full}|{full.upper()}|{full[:3]}\.?|{full[:3].upper()}\.?" for full in (*MONTHS, "Sept")
)
_MONTH = f"(?:{_MONTH_NAMES})"
_ZH_NUMERAL = "[〇○零一二三四五六七八九十]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One way of finding one kind of personal data; ``judge`` gives each match its score and reason, or rejects it."""

    entity: EntityType
    pattern: re.Pattern[str]
    judge: Callable[[re.Match[str]], Verdict]


def find_structured(folded: str) -> Iterator[Finding]:
    """Every match of every rule in :data:`RULES`; findings may overlap."""
    for rule in RULES:
        for match in rule.pattern.finditer(folded):
            if verdict := rule.judge(match):
                score, why = verdict
                start, end = match.span(1)
                yield Finding(type=rule.entity, start=start, end=end, score=score, why=why)


def _rule(
    entity: EntityType,
    pattern: str,
    *,
    why: str,
    score: float,
    accept: Callable[[str], bool] = lambda written: True,
) -> Rule:
    def judge(match: re.Match[str]) -> Verdict:
        return (score, why) if accept(match[1]) else None

    return Rule(entity=entity, pattern=re.compile(pattern), judge=judge)


def _count_digits(written: str) -> int:
    return sum(character.isdigit() for character in written)


def _is_day_and_month(written: str) -> bool:
    first, second = (int(part) for part in re.split(r"[/.-]", written)[:2])
    return 1 <= min(first, second) <= 12 and max(first, second) <= 31


def _judge_resident_id(match: re.Match[str]) -> Verdict:
    if is_resident_id(re.sub("[ -]", "", match[1])):
        return 0.99, "resident identity number, check digit and date of birth hold"
    before = match.string[max(0, match.start() - _CONTEXT_CHARACTERS) : match.start()]
    after = match.string[match.end() : match.end() + _CONTEXT_CHARACTERS // 2]
    if _IDENTITY_CONTEXT.search(before) or _IDENTITY_CONTEXT.search(after):
        return 0.6, "form of a resident identity number beside a word for one, check digit or date wrong"
    return None


_EMAIL = _rule(
    EntityType.EMAIL_ADDRESS,
    rf"{_LEFT}([A-Za-z0-9_][A-Za-z0-9._%+'-]{{0,63}}+@(?:[A-Za-z0-9][A-Za-z0-9-]{{0,62}}+\.){{1,8}}[A-Za-z]{{2,24}}){_RIGHT}",
    why="e-mail address",
    score=0.95,
)

_PHONES = (
    _rule(
        EntityType.PHONE_NUMBER,
        rf"{_LEFT_OF_NUMBER}((?:(?:(?:\+|00)?86|\(\+?86\))[ -]?)?"
        rf"1[3-9][0-9][ .-]?[0-9]{{4}}[ .-]?[0-9]{{4}}){_RIGHT_OF_NUMBER}",
        why="Chinese mobile number",
        score=0.95,
    ),
    _rule(
        EntityType.PHONE_NUMBER,
        rf"{_LEFT_OF_NUMBER}((?:(?:\+|00)?86[ -]?)?(?:\(0[1-9][0-9]{{1,2}}\) ?|0[1-9][0-9]{{1,2}}[ -])"
        rf"[2-9][0-9]{{2,3}}[ -]?[0-9]{{4}}(?:-[0-9]{{1,5}}|{_EXTENSION})){_RIGHT_OF_NUMBER}",
        why="Chinese landline number",
        score=0.9,
    ),
    _rule(
        EntityType.PHONE_NUMBER,
        rf"{_LEFT_OF_NUMBER}((?:\+?1[ .-]?)?(?:\([2-9][0-9]{{2}}\)[ -]?|[2-9][0-9]{{2}}[ .-])"
        rf"[2-9][0-9]{{2}}[ .-][0-9]{{4}}{_EXTENSION}){_RIGHT_OF_NUMBER}",
        why="North American phone number",
        score=0.9,
    ),
    _rule(
        EntityType.PHONE_NUMBER,
        rf"(?<!\+)(\+[1-9](?:[ .()-]{{0,2}}+[0-9]){{6,14}}){_RIGHT}(?![/.-][0-9])",
        why="international phone number",
        score=0.9,
    ),
    _rule(
        EntityType.PHONE_NUMBER,
        r"(?:(?=[A-Za-z])(?<![A-Za-z])(?i:phone|telephone|tel|mobile|mob|cell|fax)(?: ?(?:no|number))?\.?|"
        r"(?:电话|手机|座机|热线|联系方式)号?码?)[ :是为]{0,3}"
        rf"(\+?\(?[0-9][0-9 ().-]{{4,20}}[0-9]){_RIGHT}(?![/.-][0-9])",
        why="number after a word for phone",
        score=0.8,
        accept=lambda written: 6 <= _count_digits(written) <= 15,
    ),
)

_RESIDENT_ID = Rule(
    entity=EntityType.CN_RESIDENT_ID,
    pattern=re.compile(
        rf"{_LEFT}([1-9][0-9]{{5}}[ -]?[0-9]{{4}}[ -]?[0-9]{{2}}[ -]?[0-9]{{2}}[ -]?[0-9]{{3}}[0-9Xx]){_RIGHT}"
    ),
    judge=_judge_resident_id,
)

_RECORD = _rule(
    EntityType.MEDICAL_RECORD,
    r"(?:(?=[A-Za-z])(?<![A-Za-z])(?i:MRN|(?:medical record|hospital|patient|chart)(?: id| no| number| ?#))|"
    r"(?:病历|病案|住院|门诊|就诊|登记|病人|患者|就诊卡)(?:编号|号码|号|ID))"
    rf"[ :#.=()为是]{{0,4}}((?:[A-Za-z]{{1,4}}[ -]?)?[0-9][0-9A-Za-z-]{{1,18}}[0-9A-Za-z]){_RIGHT}",
    why="number after a word for medical record",
    score=0.9,
    accept=lambda written: _count_digits(written) >= 3,
)

_DATES = tuple(
    _rule(EntityType.DATE_TIME, pattern, why=why, score=0.8, accept=accept)
    for pattern, why, accept in (
        (
            rf"{_LEFT}(?<![0-9][./-])({_YEAR}([-/.])(?:0?[1-9]|1[0-2])\2(?:0?[1-9]|[12][0-9]|3[01]))(?![0-9])(?![./-][0-9])",
            "date, year first",
            bool,
        ),
        (
            rf"{_LEFT}(?<![0-9][./-])([0-3]?[0-9]([-/.])[0-3]?[0-9]\2(?:{_YEAR}|(?<=/)[0-9]{{2}})){_RIGHT}(?![./-][0-9])",
            "date, year last",
            _is_day_and_month,
        ),
        (
            rf"(?=[0-9]){_LEFT}({_DAY}[ -]{{1,2}}(?:of )?{_MONTH}(?:,?[ -]{{1,2}}{_YEAR})?){_RIGHT}",
            "English date",
            bool,
        ),
        (rf"(?=[A-Z]){_LEFT}({_MONTH} {{1,2}}{_DAY}(?:,? {{1,2}}{_YEAR})?){_RIGHT}", "English date", bool),
        (rf"(?=[A-Z]){_LEFT}({_MONTH},? {{1,2}}{_YEAR}){_RIGHT}", "English month and year", bool),
        (rf"{_LEFT}({_YEAR} ?年 ?[0-9]{{1,2}} ?月(?: ?[0-9]{{1,2}} ?[日号])?)", "Chinese date", bool),
        (rf"{_LEFT}([0-9]{{1,2}} ?月 ?[0-9]{{1,2}} ?[日号])", "Chinese date", bool),
        (
            rf"({_ZH_NUMERAL}{{4}}年{_ZH_NUMERAL}{{1,2}}月(?:{_ZH_NUMERAL}{{1,3}}[日号])?)",
            "Chinese date in Chinese numerals",
            bool,
        ),
    )
)

RULES: tuple[Rule, ...] = (_EMAIL, *_PHONES, _RESIDENT_ID, _RECORD, *_DATES)
