"""Dates as they are written: read, moved, and written back in the same way; or their year alone."""

from __future__ import annotations

import re
from datetime import date, timedelta

from mibao.deid.normalisation import MONTHS

_YEAR_FIRST = re.compile(r"([0-9]{4})([-/.])([0-9]{1,2})\2([0-9]{1,2})(.*)", re.DOTALL)
_YEAR_LAST = re.compile(r"([0-9]{1,2})([/.-])([0-9]{1,2})\2([0-9]{4})(.*)", re.DOTALL)
_CHINESE = re.compile(r"([0-9]{4})( ?年 ?)([0-9]{1,2})( ?月 ?)([0-9]{1,2})( ?[日号].*)", re.DOTALL)
_DAY_MONTH = re.compile(r"([0-9]{1,2})(?:st|nd|rd|th)?([ -]+(?:of )?)([A-Za-z]{3,9})(\.?,?[ -]+)([0-9]{4})")
_MONTH_DAY = re.compile(r"([A-Za-z]{3,9})(\.? +)([0-9]{1,2})(?:st|nd|rd|th)?(,? +)([0-9]{4})")
_EIGHT = re.compile("((?:19|20)[0-9]{2})([0-9]{2})([0-9]{2})")
_YEAR = re.compile("(?<![0-9])((?:19|20)[0-9]{2})(?![0-9])")


def shifted(written: str, days: int) -> str | None:
    """``written`` so many days later, in the same form; None where it is no whole date, or could be two.

    The time of day stays. 03/04/2026 is two days on two continents: it could be two.
    """
    for pattern, read in (
        (_YEAR_FIRST, _year_first), (_CHINESE, _chinese), (_YEAR_LAST, _year_last), (_DAY_MONTH, _day_month),
        (_MONTH_DAY, _month_day), (_EIGHT, _eight),
    ):  # fmt: skip
        if match := pattern.fullmatch(written):
            try:
                return read(match, timedelta(days=days))
            except (ValueError, OverflowError):
                return None
    return None


def year_of(written: str) -> str | None:
    """The four digits of the year, where they stand."""
    match = _YEAR.search(written) or _EIGHT.fullmatch(written)
    return match[1] if match else None


def _like(number: int, *samples: str, padded: bool) -> str:
    """``number`` with a leading zero or without, as the samples have it; where they do not say, as ``padded``."""
    if any(len(sample) == 1 for sample in samples):
        padded = False
    elif any(sample.startswith("0") for sample in samples):
        padded = True
    return f"{number:02d}" if padded else str(number)


def _year_first(match: re.Match[str], by: timedelta) -> str:
    moved = date(int(match[1]), int(match[3]), int(match[4])) + by
    month, day = (_like(number, match[3], match[4], padded=True) for number in (moved.month, moved.day))
    return f"{moved.year:04d}{match[2]}{month}{match[2]}{day}{match[5]}"


def _chinese(match: re.Match[str], by: timedelta) -> str:
    moved = date(int(match[1]), int(match[3]), int(match[5])) + by
    month, day = (_like(number, match[3], match[5], padded=False) for number in (moved.month, moved.day))
    return f"{moved.year:04d}{match[2]}{month}{match[4]}{day}{match[6]}"


def _year_last(match: re.Match[str], by: timedelta) -> str | None:
    first, second = int(match[1]), int(match[3])
    if first <= 12 and second <= 12 and first != second:
        return None
    day_first = first > 12 or first == second
    moved = date(int(match[4]), second if day_first else first, first if day_first else second) + by
    order = (moved.day, moved.month) if day_first else (moved.month, moved.day)
    one, two = (_like(number, match[1], match[3], padded=True) for number in order)
    return f"{one}{match[2]}{two}{match[2]}{moved.year:04d}{match[5]}"


def _month(name: str) -> int:
    return next(number for number, month in enumerate(MONTHS, 1) if month[:3] == name[:3].title())


def _month_like(number: int, sample: str) -> str:
    name = MONTHS[number - 1]
    name = name if len(sample) > 4 or sample.title() == MONTHS[_month(sample) - 1] else name[:3]
    return name.upper() if sample.isupper() else name


def _day_month(match: re.Match[str], by: timedelta) -> str | None:
    try:
        moved = date(int(match[5]), _month(match[3]), int(match[1])) + by
    except StopIteration:
        return None
    day, month = _like(moved.day, match[1], padded=False), _month_like(moved.month, match[3])
    return f"{day}{match[2]}{month}{match[4]}{moved.year:04d}"


def _month_day(match: re.Match[str], by: timedelta) -> str | None:
    try:
        moved = date(int(match[5]), _month(match[1]), int(match[3])) + by
    except StopIteration:
        return None
    day, month = _like(moved.day, match[3], padded=False), _month_like(moved.month, match[1])
    return f"{month}{match[2]}{day}{match[4]}{moved.year:04d}"


def _eight(match: re.Match[str], by: timedelta) -> str:
    moved = date(int(match[1]), int(match[2]), int(match[3])) + by
    return f"{moved:%Y%m%d}"
