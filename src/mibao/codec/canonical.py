"""Deterministic CBOR: one value has one encoding, and only that encoding is read back.

Source: RFC 8949, section 4.2.3 (length-first core deterministic encoding), which ``cbor2`` calls canonical.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import cbor2

from mibao.errors import InputError, IntegrityError

Value: TypeAlias = "bool | int | float | str | bytes | list[Value] | dict[str, Value]"

MAX_DEPTH = 8
_INT_LIMIT = 1 << 64

# Of these kinds every value will do: most of a record, not worth a call each.
_ANY = frozenset({bytes, str, bool})
_NESTED = (list, dict)


def encode(value: object) -> bytes:
    """The one canonical encoding of ``value``.

    Raises:
        InputError: a float is not finite, an integer needs more than 64 bits, a map key is not text, a type
            is not one of :data:`Value`, or nesting exceeds :data:`MAX_DEPTH`.
    """
    _check(value, depth=0)
    return cbor2.dumps(value, canonical=True)


def decode(data: bytes, *, max_bytes: int) -> Value:
    """The value that :func:`encode` turned into ``data``.

    Raises:
        IntegrityError: ``data`` is longer than ``max_bytes``, is not CBOR, has bytes left over, or is not the
            canonical encoding of what it holds.
    """
    if len(data) > max_bytes:
        raise IntegrityError(f"canonical record: expected at most {max_bytes} bytes, got {len(data)}")
    try:
        value: Value = cbor2.loads(data, max_depth=MAX_DEPTH + 1, allow_indefinite=False, allow_duplicate_keys=False)
        canonical = encode(value)
    except (cbor2.CBORDecodeError, InputError, OverflowError) as error:
        raise IntegrityError("canonical record: not well formed") from error
    if canonical != data:
        raise IntegrityError("canonical record: not in canonical form")
    return value


def _check(value: object, *, depth: int) -> None:
    kind = type(value)
    if kind in _ANY:
        return
    if isinstance(value, int):
        if not -_INT_LIMIT <= value < _INT_LIMIT:
            raise InputError("canonical record: expected an integer of at most 64 bits")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise InputError("canonical record: expected a finite number")
    elif isinstance(value, _NESTED):
        if depth >= MAX_DEPTH:
            raise InputError(f"canonical record: expected at most {MAX_DEPTH} levels of nesting")
        for key in value if isinstance(value, dict) else ():
            if not isinstance(key, str):
                raise InputError(f"canonical record: expected text as a key, got {type(key).__name__}")
        for item in value.values() if isinstance(value, dict) else value:
            if type(item) not in _ANY:
                _check(item, depth=depth + 1)
    else:
        raise InputError(f"canonical record: {kind.__name__} has no canonical encoding")
