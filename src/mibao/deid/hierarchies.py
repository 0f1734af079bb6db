"""How the values of a column are made less exact, step by step: a hierarchy, from the values themselves to ``*``.

Made from what stands in the column (numbers in intervals, dates by month and year, codes from their end), or read from
a table of the user's, one line for each value: the value, then less and less exact ones.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from io import StringIO

from mibao.errors import InputError

ANY = "*"
MOST_LEVELS = 12
_DATE = re.compile(r"([0-9]{4})[-/]([0-9]{1,2})[-/]([0-9]{1,2})(?:[ T].*)?")
_NICE = (1, 2, 5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchy:
    """The values of one column at each level; ``levels[0]`` is the values themselves, the last is ``*`` for all.

    ``penalty[level][value]`` says how much is lost where ``value`` stands at that level, from 0 to 1: the width of an
    interval of the whole range, else the share of the column's distinct values that it might be.
    """

    kind: str
    levels: tuple[dict[Hashable, str], ...]
    penalty: tuple[dict[str, float], ...]

    @property
    def height(self) -> int:
        """The number of the last level."""
        return len(self.levels) - 1


def hierarchy_of(values: Iterable[Hashable]) -> Hierarchy:
    """The hierarchy that the values suggest; nothing (None or an empty cell) is a value of its own."""
    distinct = list(dict.fromkeys(values))
    given = [value for value in distinct if value not in (None, "")]
    if numbers := _numbers(given):
        return _of_numbers(distinct, numbers)
    written = [str(value) for value in given]
    if given and all(_DATE.fullmatch(text) for text in written):
        return _by_steps("dates", distinct, [_month, _year, _decade])
    lengths = {len(text) for text in written}
    if len(lengths) == 1 and (length := lengths.pop()) >= 3 and all(any(map(str.isdigit, text)) for text in written):
        steps = [lambda text, kept=kept: text[:kept] + ANY * (len(text) - kept) for kept in range(length - 1, 0, -1)]
        return _by_steps("codes", distinct, steps[: MOST_LEVELS - 2])
    return _by_steps("names", distinct, [])


def parse_hierarchy(text: str, values: Iterable[Hashable], *, source: str) -> Hierarchy:
    """The hierarchy written in ``text``: CSV with commas or semicolons, no heading.

    Raises:
        InputError: lines differ in length, a value has two lines or none.
    """
    rows = [row for row in csv.reader(StringIO(text), delimiter=";" if ";" in text else ",") if row]
    width = len(rows[0]) if rows else 0
    if width < 2 or any(len(row) != width for row in rows) or width > MOST_LEVELS:
        raise InputError(f"{source}: expected lines of a value and 1 to {MOST_LEVELS - 1} less exact ones, all as long")
    table = {row[0]: row for row in rows}
    if len(table) < len(rows):
        raise InputError(f"{source}: expected each value once")
    distinct = list(dict.fromkeys(values))
    if missing := sum(_text(value) not in table for value in distinct):
        raise InputError(f"{source}: expected a line for each value of the column, {missing} have none")
    levels = [{value: table[_text(value)][level] for value in distinct} for level in range(width)]
    return _made("file", levels)


def _by_steps(kind: str, distinct: Sequence[Hashable], steps: Sequence[object]) -> Hierarchy:
    levels = [{value: _text(value) for value in distinct}]
    levels += [{value: step(_text(value)) if _text(value) else "" for value in distinct} for step in steps]  # type: ignore[operator]
    return _made(kind, levels)


def _made(kind: str, levels: list[dict[Hashable, str]]) -> Hierarchy:
    """The levels that lose something more than the one before, and ``*`` at the end."""
    kept = [levels[0]]
    for level in levels[1:]:
        if 1 < len(set(level.values())) < len(set(kept[-1].values())):
            kept.append(level)
    kept.append(dict.fromkeys(levels[0], ANY))
    return Hierarchy(kind=kind, levels=tuple(kept), penalty=tuple(_shares(level) for level in kept))


def _shares(level: dict[Hashable, str]) -> dict[str, float]:
    counts: dict[str, int] = {}
    for text in level.values():
        counts[text] = counts.get(text, 0) + 1
    others = max(1, len(level) - 1)
    return {text: 1.0 if text == ANY and len(level) > 1 else (count - 1) / others for text, count in counts.items()}


def _of_numbers(distinct: Sequence[Hashable], numbers: dict[Hashable, float]) -> Hierarchy:
    low, high = min(numbers.values()), max(numbers.values())
    whole = all(number == int(number) for number in numbers.values())
    span = high - low if high - low > 1e-9 * max(1.0, abs(low), abs(high)) else 0.0
    levels = [{value: _text(value) for value in distinct}]
    penalty = [dict.fromkeys(levels[0].values(), 0.0)]
    width = _nice(max(span / 64, 1.5 if whole else span / 1000)) if span else 1.0
    while span and width < span and len(levels) < MOST_LEVELS - 1:
        level = {value: _interval(numbers[value], width, whole=whole) if value in numbers else "" for value in distinct}
        if len(set(level.values())) < len(set(levels[-1].values())):
            levels.append(level)
            penalty.append({text: min(1.0, width / span) if text else 0.0 for text in level.values()})
        width = _nice(width * 1.9)
    levels.append(dict.fromkeys(distinct, ANY))
    penalty.append({ANY: 1.0 if len(distinct) > 1 else 0.0})
    return Hierarchy(kind="numbers", levels=tuple(levels), penalty=tuple(penalty))


def _nice(width: float) -> float:
    """The next of 1, 2, 5, 10, 20, ... from ``width`` on."""
    power = 10.0 ** math.floor(math.log10(width))
    return next(power * step for step in (*_NICE, 10) if power * step >= width * (1 - 1e-9))


def _interval(number: float, width: float, *, whole: bool) -> str:
    start = math.floor(number / width + 1e-9) * width
    if whole:
        return f"{start:.0f}-{start + width - 1:.0f}"
    return f"[{start:.10g}, {start + width:.10g})"


def _numbers(values: Sequence[Hashable]) -> dict[Hashable, float]:
    """Each value as a number; nothing where one is none, or is written as a code, with a zero at its start."""
    found: dict[Hashable, float] = {}
    for value in values:
        if isinstance(value, str) and re.match(r"0[0-9]", value):
            return {}
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return {}
        if not math.isfinite(number):
            return {}
        found[value] = number
    return found


def _text(value: Hashable) -> str:
    return "" if value is None else str(value)


def _month(text: str) -> str:
    match = _DATE.fullmatch(text)
    return f"{match[1]}-{int(match[2]):02d}" if match else ANY


def _year(text: str) -> str:
    return text[:4]


def _decade(text: str) -> str:
    return f"{text[:3]}0s"
