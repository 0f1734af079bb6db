"""Personal names that a cue word gives away, in English and Chinese, and their repetitions in the same text.

A name without any cue in the text is missed; a later issue's models find those. Cues and word lists are data;
matching is bounded at every position.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from mibao.deid import lexicon
from mibao.deid.kinds import Rule, Verdict
from mibao.types import EntityType


def _any(words: Iterable[str]) -> str:
    return f"(?:{'|'.join(map(re.escape, words))})"


_UPPER = "A-ZÀ-ÖØ-ÞĀ-ſ"
_LETTER = "A-Za-zÀ-ÖØ-öø-ÿĀ-ſ"
_ELISION = "(?:[DO]['’])?"
_HYPHENATED = rf"(?:['’-](?!s(?![{_LETTER}]))[{_LETTER}]{{1,24}}+){{0,3}}"
_INITIAL = rf"\.(?= ?[{_UPPER}])|(?![{_LETTER}])"
_WORD = rf"{_ELISION}[{_UPPER}](?:[{_LETTER}]{{1,24}}+{_HYPHENATED}|{_INITIAL})"
_PARTICLES = rf"(?:{_any(lexicon.NAME_PARTICLES)} ){{0,2}}"
_LATIN_NAME = rf"{_PARTICLES}{_WORD}(?: {{0,2}}{_PARTICLES}{_WORD}){{0,3}}"
_WORDS = re.compile(rf"[{_LETTER}'’.-]+")
_LATIN_START = re.compile(rf"(?<![{_LETTER}])[{_LETTER}][{_LETTER}'’-]*+")

_NO_LETTER = rf"(?<![{_LETTER}])"
_LABEL = f"(?i:{_any(lexicon.ENGLISH_LABELS)})"
_LEAD_IN = f"(?i:{_any(lexicon.ENGLISH_LEAD_INS)})"
_TITLE = _any(lexicon.ENGLISH_TITLES)
_LABELLED = rf"{_NO_LETTER}{_LABEL} ?: {{0,4}}({_LATIN_NAME}(?:, {_WORD})?)"
_CUE = f"(?:{_LABEL}|I am|I'm) "
_ENGLISH = (
    (
        rf"{_NO_LETTER}{_any(lexicon.ENGLISH_TITLES)}\.? {{1,2}}({_LATIN_NAME})",
        f"{_any(lexicon.ENGLISH_TITLES)}[. ]",
        1,
        0.9,
        "name after an English title",
    ),
    (
        rf"{_NO_LETTER}{_LABEL} ?: {{0,4}}({_LATIN_NAME}(?:, {_WORD})?)",
        f"{_LABEL} ?:",
        1,
        0.85,
        "name after an English label",
    ),
    (
        rf"{_NO_LETTER}{_LEAD_IN}[ \t\n]{{1,2}}({_LATIN_NAME})",
        rf"{_LEAD_IN}[ \t\n]",
        1,
        0.75,
        "name after an English lead-in",
    ),
    (
        rf"{_NO_LETTER}(?:{_LABEL}|I am|I'm) ({_LATIN_NAME})",
        f"(?:{_LABEL}|I am|I'm) ",
        2,
        0.7,
        "name after an English cue",
    ),
)

_HAN = "一-鿿"
_GIVEN = rf"(?!{_any(lexicon.ENDS_A_CHINESE_NAME_WORDS)})(?![{lexicon.ENDS_A_CHINESE_NAME}])[{_HAN}]"
_SURNAME_STARTS = "".join(sorted({*lexicon.SURNAMES, *(name[0] for name in lexicon.COMPOUND_SURNAMES)}))
_SURNAME = (
    rf"(?=[{_SURNAME_STARTS}])(?!{_any(lexicon.NOT_CHINESE_NAMES)})"
    rf"(?:{_any(lexicon.COMPOUND_SURNAMES)}|[{lexicon.SURNAMES}])"
)
_HAN_NAME = rf"{_SURNAME}(?:{_GIVEN}){{1,2}}"
_HAN_LABEL = rf"(?:{_any(lexicon.CHINESE_LABELS)}|{_NO_LETTER}(?i:patient|name|doctor|dr) ?:)"
_HAN_TITLE = _any(lexicon.CHINESE_TITLES)
_ALONE = rf"(?:(?<![{_HAN}])|(?<=[{lexicon.BEFORE_A_LONE_SURNAME}]))"  # 王医生, not the second half of 社区医生
_CHINESE = (
    (rf"{_HAN_LABEL}[ :]{{0,4}}({_HAN_NAME})", _HAN_LABEL, 0.85, "name after a Chinese label"),
    (rf"{_HAN_LABEL}[ :]{{0,4}}({_LATIN_NAME})", _HAN_LABEL, 0.8, "Latin name after a Chinese label"),
    (rf"({_HAN_NAME})(?={_HAN_TITLE})", _HAN_TITLE, 0.85, "name before a Chinese title"),
    (rf"{_ALONE}({_SURNAME})(?={_HAN_TITLE})", _HAN_TITLE, 0.7, "surname before a Chinese title"),
    (rf"(?<![{_HAN}])({_HAN_NAME})(?=[,、 ]{{1,2}}[男女](?![{_HAN}]))", "[,、 ][男女]", 0.85, "name before a sex"),
    (
        rf"(?<=[{_LETTER}]) ?\(({_HAN_NAME})\)",
        f"[{_LETTER}] ?\\([{_HAN}]",
        0.85,
        "Chinese name in brackets after a Latin one",
    ),
)

MAX_NAME = 44
_SHORTEST_REPEATED = 3
_FEW = 64
_LONGEST_SIGNS = 16
_WORD_SO_FAR = re.compile(rf"[{_LETTER}]['’-]*\Z")
_IN_WORD = re.compile(rf"[{_LETTER}'’-]")


def _judge_english(least_words: int, score: float, why: str) -> Callable[[re.Match[str]], Verdict]:
    def judge(match: re.Match[str]) -> Verdict:
        start, end = match.start(1), _end_of_name(match)
        return (start, end, score, why) if len(_WORDS.findall(match.string, start, end)) >= least_words else None

    return judge


def _judge_chinese(score: float, why: str) -> Callable[[re.Match[str]], Verdict]:
    def judge(match: re.Match[str]) -> Verdict:
        start, end = match.start(1), _end_of_name(match)
        return (start, end, score, why) if end > start else None

    return judge


RULES: tuple[Rule, ...] = tuple(
    Rule(entity=EntityType.PERSON, pattern=re.compile(pattern), judge=judge, gate=gate)
    for pattern, gate, judge in (
        *((pattern, gate, _judge_english(words, score, why)) for pattern, gate, words, score, why in _ENGLISH),
        *((pattern, gate, _judge_chinese(score, why)) for pattern, gate, score, why in _CHINESE),
    )
)


def _end_of_name(match: re.Match[str]) -> int:
    """Where the name stops being one: before the first word that is never part of a name, or that is too far on."""
    start = end = match.start(1)
    for word in _WORDS.finditer(match.string, *match.span(1)):
        if word[0].rstrip(".").lower() in lexicon.NEVER_IN_A_NAME or word.end() - start > MAX_NAME:
            return end
        end = word.end()
    return match.end(1) if end == start else end


def repetitions(text: str, names: set[str]) -> Iterator[tuple[int, int]]:
    """Where a known name stands, one of a letter or two left out, which is a word too often.

    A few are looked for one by one, many by their words or characters: time does not grow with the names.
    """
    chinese = {name for name in names if "一" <= name[0] <= "鿿" and len(name) > 1}
    latin = {name for name in names if not "一" <= name[0] <= "鿿" and len(name) >= _SHORTEST_REPEATED}
    if len(names) <= _FEW:
        for name in (*chinese, *latin):
            for start in _occurrences(text, name):
                if name in chinese or _is_word_or_words(text, start, start + len(name)):
                    yield start, start + len(name)
        return
    for length in sorted({len(name) for name in chinese}):
        for start in range(len(text) - length + 1):
            if text[start : start + length] in chinese:
                yield start, start + length
    counts = sorted({len(_LATIN_START.findall(name)) for name in latin})
    words = [match.span() for match in _LATIN_START.finditer(text)] if latin else []
    for index, (start, _) in enumerate(words):
        for count in counts:
            if index + count <= len(words) and text[start : (end := words[index + count - 1][1])] in latin:
                yield start, end


def _occurrences(text: str, name: str) -> Iterator[int]:
    start = text.find(name)
    while start >= 0:
        yield start
        start = text.find(name, start + 1)


def _is_word_or_words(text: str, start: int, end: int) -> bool:
    """Whether a word begins at ``start`` and one ends at ``end``, as :data:`_LATIN_START` cuts them."""
    begins = _WORD_SO_FAR.search(text, max(0, start - _LONGEST_SIGNS), start) is None
    return begins and _WORD_SO_FAR.search(text, start, end) is not None and _IN_WORD.match(text, end) is None
