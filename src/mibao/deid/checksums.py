"""Check characters of public identity numbers."""

from __future__ import annotations

from datetime import date

from mibao.errors import InputError

_CHECK_CHARACTERS = "10X98765432"
_BIRTH_YEARS = range(1900, 2100)


def resident_id_check_character(first_17: str) -> str:
    """The last character of a Chinese resident identity number, ``0``-``9`` or ``X``.

    Raises:
        InputError: ``first_17`` is not 17 ASCII digits.

    Source: GB 11643-1999, section 4.2; ISO 7064 MOD 11-2, weight ``2**i`` for the i-th character from the right.
    """
    if len(first_17) != 17 or not (first_17.isascii() and first_17.isdigit()):
        raise InputError("resident identity number: expected 17 digits before the check character")
    total = sum(int(digit) << (17 - index) for index, digit in enumerate(first_17))
    return _CHECK_CHARACTERS[total % 11]


def is_resident_id(number: str) -> bool:
    """Whether 18 characters carry a real date of birth (1900-2099) and the right check character.

    The region code is not looked up: codes come and go, and old ones stay valid on the cards that carry them.
    """
    body, check = number[:17], number[17:].upper()
    if len(number) != 18 or not (body.isascii() and body.isdigit()):
        return False
    return _is_birth_date(body[6:14]) and check == resident_id_check_character(body)


def _is_birth_date(digits: str) -> bool:
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:])).year in _BIRTH_YEARS
    except ValueError:
        return False
