"""One value, many written forms: folding for the matcher, canonical forms for the pseudonym.

:func:`fold` changes characters one for one, so a stretch found in folded text is the same stretch of the original.
:func:`folded` also leaves out characters that nobody sees, and knows where each that remains stood.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from mibao.types import AnyType, CustomType, EntityType

_MATHEMATICAL_DIGITS = range(0x1D7CE, 0x1D800)
_DECIMAL_DIGITS = {  # of every other script: Arabic-Indic, Devanagari, ...
    code: 0x30 + value
    for code in (*range(0x660, 0x1100), *range(0x1810, 0x181A), *range(0xA620, 0xAC00), *_MATHEMATICAL_DIGITS)
    if (value := unicodedata.digit(chr(code), None)) is not None and unicodedata.category(chr(code)) == "Nd"
}
# Letters of other scripts that look like Latin ones: Unicode Technical Standard 39, confusables (a selection).
_LOOK_ALIKES = dict(
    zip(
        map(ord, "АВЕЅІЈКМНОРСТХҮасеіјорѕхуԁһԛԝΑΒΕΖΗΙΚΜΝΟΡΤΥΧανορ"),
        map(ord, "ABESIJKMHOPCTXYaceijopsxydhqwABEZHIKMNOPTYXavop"),
        strict=True,
    )
)
_FOLDED = (
    {wide: wide - 0xFEE0 for wide in range(0xFF01, 0xFF5F)}
    | dict.fromkeys([0x00A0, *range(0x2002, 0x200B), 0x202F, 0x205F, 0x3000], 0x20)
    | dict.fromkeys([*range(0x2010, 0x2016), 0x2212, 0xFE58, 0xFE63], 0x2D)
    | {0x2024: 0x2E, 0xFE52: 0x2E, 0xFF61: 0x2E, 0x30FB: 0xB7, 0xFE55: 0x3A, 0xFE6B: 0x40}
    | _DECIMAL_DIGITS
    | _LOOK_ALIKES
)
# Soft hyphen, zero-width spaces and joiners, directional marks, invisible operators, the byte order mark.
_UNSEEN = re.compile("[\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufe00-\ufe0f\ufeff]")
_LONG = 4096

CHINESE_DIGITS = str.maketrans("零〇一二三四五六七八九幺两壹贰叁肆伍陆柒捌玖", "0012345678912123456789")

MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip

_CN_MOBILE = re.compile(r"(?:(?:\+|00)?86|\(\+?86\))?[ -]?(1[3-9][0-9][ .-]?[0-9]{4}[ .-]?[0-9]{4})")
_NANP = re.compile(r"(?:\+?1[ .-]?)?(\(?[2-9][0-9]{2}\)?[ .-]{0,2}[2-9][0-9]{2}[ .-]?[0-9]{4})")
_EXTENSION = re.compile(r" *\(?(?:转分机|分机|转|ext\.?|x)[ :]*([0-9]{1,6})\)?$")
_YEAR_FIRST = re.compile(r"([0-9]{4})[^0-9]{1,3}([0-9]{1,2})[^0-9]{1,3}([0-9]{1,2})[^0-9]?")
_YEAR_LAST = re.compile(r"([0-9]{1,2})[/.-]([0-9]{1,2})[/.-]([0-9]{4})")
_DAY_MONTH = re.compile(r"([0-9]{1,2})(?:st|nd|rd|th)?[ -]+(?:of )?([A-Za-z]{3,9})[., -]+([0-9]{4})")
_MONTH_DAY = re.compile(r"([A-Za-z]{3,9})\.? +([0-9]{1,2})(?:st|nd|rd|th)?,? +([0-9]{4})")


def fold(text: str) -> str:
    """``text`` with full-width ASCII, spaces and dashes as plain ASCII; every other character, and every offset, stays.

    So are decimal digits of every script, and letters that look like Latin ones.

    Source: Unicode Standard Annex 15 (the one-to-one part of NFKC) and General Punctuation, U+2010-U+2015.
    """
    if text.isascii():
        return text
    return text.translate(_FOLDED) if len(text) < _LONG else _fold_long(text)


def _fold_long(text: str) -> str:
    """The same through an array: five times as fast, and not worth loading NumPy for a sentence."""
    import numpy as np  # noqa: PLC0415

    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    return str(_table()[codes].tobytes().decode("utf-32-le", "surrogatepass"))


@cache
def _table() -> Any:
    import numpy as np  # noqa: PLC0415

    table = np.arange(0x110000, dtype=np.uint32)
    table[list(_FOLDED)] = list(_FOLDED.values())
    return table


@dataclass(frozen=True, slots=True, kw_only=True)
class Folded:
    """A text as the matcher reads it, and where each of its characters stands in the original."""

    text: str = field(repr=False)
    unseen: tuple[int, ...] = ()  # for each character left out, how many characters of ``text`` stand before it

    def original(self, index: int) -> int:
        """Where the character ``text[index]`` stands in the original text."""
        return index + bisect_right(self.unseen, index)

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Where ``text[start:end]`` stands in the original text; characters left out at its ends are not in it."""
        return (start, end) if not self.unseen else (self.original(start), self.original(end - 1) + 1)


def folded(text: str) -> Folded:
    """``text`` folded, without the characters that nobody sees."""
    if text.isascii() or _UNSEEN.search(text) is None:
        return Folded(text=fold(text))
    unseen = tuple(match.start() - count for count, match in enumerate(_UNSEEN.finditer(text)))
    return Folded(text=fold(_UNSEEN.sub("", text)), unseen=unseen)


def canonical_form(entity: AnyType, written: str) -> str:
    """The form that all ways of writing one value share; two forms may share it only if they mean one value."""
    if entity is EntityType.PLACEHOLDER:
        return written
    if isinstance(entity, CustomType):  # nobody knows which of its signs may go
        return fold(_UNSEEN.sub("", written))
    return _CANONICAL.get(entity, _number)(fold(_UNSEEN.sub("", written)))


def _number(written: str) -> str:
    """The default: separators gone, digits as digits, letters as capitals."""
    return fold(re.sub(r"[ ._·•/-]", "", written.translate(CHINESE_DIGITS)).upper())


def _name(folded: str) -> str:
    name = " ".join(folded.split())
    return name.title() if name.isupper() or name.islower() else name


def _phone(folded: str) -> str:
    folded = re.sub(r"[·•_*]| {2,}", " ", folded.translate(CHINESE_DIGITS))
    number, _, extension = _EXTENSION.sub(lambda found: "\0" + found[1], folded, count=1).partition("\0")
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


# Where capitals, points or signs tell two values apart.
_AS_WRITTEN = (
    EntityType.URL, EntityType.IP_ADDRESS, EntityType.COORDINATES, EntityType.AGE, EntityType.ADDRESS,
    EntityType.CRYPTO, EntityType.API_KEY, EntityType.JWT, EntityType.PRIVATE_KEY, EntityType.PASSWORD,
    EntityType.USERNAME, EntityType.CN_WECHAT, EntityType.LOCATION, EntityType.ORGANIZATION, EntityType.TITLE,
    EntityType.CUSTOM,
)  # fmt: skip
_CANONICAL: Mapping[AnyType, Callable[[str], str]] = {
    **dict.fromkeys(_AS_WRITTEN, str),
    EntityType.PERSON: _name,
    EntityType.EMAIL_ADDRESS: str.lower,
    EntityType.PHONE_NUMBER: _phone,
    EntityType.MEDICAL_RECORD: lambda folded: fold(folded.replace(" ", "").upper()),
    EntityType.DATE_TIME: _date,
    EntityType.MAC_ADDRESS: lambda folded: re.sub("[:.-]", "", folded).upper(),
}
