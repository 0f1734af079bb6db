"""Placeholders: what stands in a masked text where a value stood.

Grammar, over the 32 symbols of :data:`SYMBOLS`::

    placeholder = "<" TYPE "_" stem [ "_" form ] ">"
    TYPE        = a capital, then 1 to 31 capitals, digits or "_"
    stem        = 9 symbols of HMAC(scope key, type and canonical value), then 1 check symbol
    form        = 4 symbols of HMAC(scope key, type and written form), absent where written and canonical form agree

The stem says which value (45 bits of a keyed hash), the form says how it was written: ``+86 138 0013 8000`` and
``13800138000`` share their stem, so a reader sees one person, and each is restored as it stood. A placeholder is
taken for one only in exactly this form.
"""

from __future__ import annotations

import re

from mibao.crypto.kdf import domain_tag, keyed_hash
from mibao.errors import InputError
from mibao.types import AnyType

SYMBOLS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's: no I, L, O, U to be misread
STEM_SYMBOLS = 9
FORM_SYMBOLS = 4

_SYMBOL = "[0-9A-HJKMNP-TV-Z]"
_TYPE = "[A-Z][A-Z0-9_]{1,31}"  # any: types of a user's own are restored as well
PLACEHOLDER = re.compile(rf"<{_TYPE}_({_SYMBOL}{{{STEM_SYMBOLS + 1}}})(?:_{_SYMBOL}{{{FORM_SYMBOLS}}})?>")


def stem(entity: AnyType, canonical: str, *, scope_key: bytes, attempt: int) -> str:
    """Nine symbols that name one value within a scope, and their check symbol.

    Args:
        entity: Kind of the value; the same digits as a phone number and as a record number are two values.
        canonical: The value as :func:`mibao.deid.normalisation.canonical_form` gives it.
        scope_key: 32 bytes; without it a guess at the value cannot be tried.
        attempt: 0, or how many values already stood on the stems before (45 bits can collide).

    Raises:
        InputError: the key is shorter than 16 bytes.
    """
    symbols = _keyed_symbols("deid/stem", entity, canonical, scope_key=scope_key, attempt=attempt, count=STEM_SYMBOLS)
    return symbols + check_symbol(symbols)


def form(entity: AnyType, written: str, *, scope_key: bytes, attempt: int) -> str:
    """Four symbols that tell the written forms of one value apart. Arguments and errors as for :func:`stem`."""
    return _keyed_symbols("deid/form", entity, written, scope_key=scope_key, attempt=attempt, count=FORM_SYMBOLS)


def check_symbol(symbols: str) -> str:
    """A symbol that no single wrong symbol, and no exchange of two, leaves right (up to 31 symbols).

    Source: one Reed-Solomon check symbol over GF(32), field polynomial x^5 + x^2 + 1.
    """
    state = 0
    for symbol in symbols:
        state = (state ^ SYMBOLS.index(symbol)) << 1
        state ^= 0b100101 if state & 32 else 0
    return SYMBOLS[state]


def is_placeholder(text: str) -> bool:
    """Whether ``text`` has exactly the grammar of a placeholder and its check symbol is right."""
    match = PLACEHOLDER.fullmatch(text)
    return match is not None and check_symbol(match[1][:-1]) == match[1][-1]


def stem_of(placeholder: str) -> str:
    """The symbols that name the value: equal for all written forms of one value.

    Raises:
        InputError: ``placeholder`` is not of the grammar.
    """
    match = PLACEHOLDER.fullmatch(placeholder)
    if match is None:
        raise InputError("placeholder: expected <TYPE_SYMBOLS> or <TYPE_SYMBOLS_FORM>")
    return match[1]


def utf8(text: str) -> bytes:
    """Bytes of any text that Python can hold, lone surrogates included."""
    return text.encode("utf-8", "surrogatepass")


def _keyed_symbols(purpose: str, entity: AnyType, value: str, *, scope_key: bytes, attempt: int, count: int) -> str:
    message = domain_tag(purpose, utf8(entity.value), utf8(value), attempt.to_bytes(8, "big"))
    number = int.from_bytes(keyed_hash(scope_key, purpose=purpose, message=message).value, "big")
    return "".join(SYMBOLS[(number >> (5 * index)) & 31] for index in range(count))
