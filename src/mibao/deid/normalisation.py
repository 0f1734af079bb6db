"""One value, many written forms: folding for the matcher, canonical forms for the pseudonym.

:func:`fold` keeps offsets one to one, so a stretch found in folded text is the same stretch of the original.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from mibao.types import EntityType

_FOLDED = (
    {wide: wide - 0xFEE0 for wide in range(0xFF01, 0xFF5F)}
    | dict.fromkeys([0x00A0, *range(0x2002, 0x200B), 0x202F, 0x205F, 0x3000], 0x20)
    | dict.fromkeys([*range(0x2010, 0x2016), 0x2212, 0xFE58, 0xFE63], 0x2D)
)

MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip

_CN_MOBILE = re.compile(r"(?:(?:\+|00)?86|\(\+?86\))?[ -]?(1[3-9][0-9][ .-]?[0-9]{4}[ .-]?[0-9]{4})")
_NANP = re.compile(r"(?:\+?1[ .-]?)?(\(?[2-9][0-9]{2}\)?[ .-]{0,2}[2-9][0-9]{2}[ .-]?[0-9]{4})")
_EXTENSION = re.compile(r"(?:转| *(?:ext\.?|x) *)(?=[0-9]{1,6}$)")
_YEAR_FIRST = re.compile(r"([0-9]{4})[^0-9]{1,3}([0-9]{1,2})[^0-9]{1,3}([0-9]{1,2})[^0-9]?")
_YEAR_LAST = re.compile(r"([0-9]{1,2})[/.-]([0-9]{1,2})[/.-]([0-9]{4})")
_DAY_MONTH = re.compile(r"([0-9]{1,2})(?:st|nd|rd|th)?[ -]+(?:of )?([A-Za-z]{3,9})[., -]+([0-9]{4})")
_MONTH_DAY = re.compile(r"([A-Za-z]{3,9})\.? +([0-9]{1,2})(?:st|nd|rd|th)?,? +([0-9]{4})")


def fold(text: str) -> str:
    """``text`` with full-width ASCII, spaces and dashes as plain ASCII; every other character, and every offset, stays.

    Source: Unicode Standard Annex 15 (the one-to-one part of NFKC) and General Punctuation, U+2010-U+2015.
    """
    return text if text.isascii() else text.translate(_FOLDED)


def canonical_form(entity: EntityType, written: str) -> str:
    """The form that all ways of writing one value share; two forms may share it only if they mean one value."""
    return _CANONICAL[entity](written if entity is EntityType.PLACEHOLDER else fold(written))


def _name(folded: str) -> str:
    name = " ".join(folded.split())
    return name.title() if name.isupper() or name.islower() else name


def _phone(folded: str) -> str:
    number, _, extension = _EXTENSION.sub("\0", folded, count=1).partition("\0")
    suffix = f"x{extension}" if extension else ""
    for national in (_CN_MOBILE, _NANP):  # 11 and 10 digits: the two never meet
        if found := national.fullmatch(number):
            return _digits(found[1]) + suffix
    plus = "+" if number.startswith(("+", "00")) else ""
    return plus + _digits(number.removeprefix("00") if plus else number) + suffix


def _digits(text: str) -> str:
    return re.sub(r"[^0-9]", "", text)


def _date(folded: str) -> str:
    if found := _YEAR_FIRST.fullmatch(folded):
        return _iso(found[1], int(found[2]), found[3])
    if found := _YEAR_LAST.fullmatch(folded):
        first, second = int(found[1]), int(found[2])
        if first > 12 or first == second:
            return _iso(found[3], second, found[1])
        # 03/04/2026 is two different days on two continents: it stays what it is
        return _iso(found[3], first, found[2]) if second > 12 else folded
    if (found := _DAY_MONTH.fullmatch(folded)) and (month := _month(found[2])):
        return _iso(found[3], month, found[1])
    if (found := _MONTH_DAY.fullmatch(folded)) and (month := _month(found[1])):
        return _iso(found[3], month, found[2])
    return " ".join(folded.split())


def _month(name: str) -> int:
    return next((number for number, month in enumerate(MONTHS, 1) if month[:3] == name[:3].title()), 0)


def _iso(year: str, month: int, day: str) -> str:
    return f"{year}-{month:02d}-{int(day):02d}"


_CANONICAL: Mapping[EntityType, Callable[[str], str]] = {
    EntityType.PERSON: _name,
    EntityType.EMAIL_ADDRESS: str.lower,
    EntityType.PHONE_NUMBER: _phone,
    EntityType.CN_RESIDENT_ID: lambda folded: re.sub(r"[ -]", "", folded).upper(),
    EntityType.MEDICAL_RECORD: lambda folded: folded.replace(" ", "").upper(),
    EntityType.DATE_TIME: _date,
    EntityType.PLACEHOLDER: str,
}
