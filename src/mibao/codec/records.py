"""Events as canonical bytes, and back, refusing everything that is not exactly an event."""

from __future__ import annotations

import math
from enum import Enum
from typing import cast

from mibao.codec import canonical
from mibao.codec.canonical import Value
from mibao.errors import InputError, IntegrityError
from mibao.events import Event, event_kinds, field_types
from mibao.types import KeyedHash, RandomId

MAX_RECORD_BYTES = 4096


def to_value(event: Event) -> dict[str, Value]:
    """``{"kind": ..., "fields": {...}}`` with every field in its canonical form.

    Raises:
        InputError: a field holds a value of another type than the event declares, or a number that is not finite.
    """
    stored: dict[str, Value] = {}
    for name, declared in field_types(type(event)).items():
        held = getattr(event, name)
        if type(held) is not declared and not (declared is float and type(held) is int):
            raise InputError(f"{event.kind}.{name}: expected {declared.__name__}, got {type(held).__name__}")
        stored[name] = _field_to_value(held, declared)
    return {"kind": event.kind, "fields": stored}


def from_value(value: Value) -> Event:
    """The event that :func:`to_value` described.

    Raises:
        IntegrityError: the kind is unknown, or a field is missing, surplus or of another type.
    """
    if not isinstance(value, dict) or set(value) != {"kind", "fields"}:
        raise IntegrityError("event record: expected exactly the keys 'kind' and 'fields'")
    kind, stored = value["kind"], value["fields"]
    if not isinstance(kind, str) or kind not in event_kinds() or not isinstance(stored, dict):
        raise IntegrityError("event record: unknown kind of event")
    event_type = event_kinds()[kind]
    declared = field_types(event_type)
    if set(stored) != set(declared):
        raise IntegrityError(f"event record {kind}: expected the fields {', '.join(declared)}")
    held = {name: _field_from_value(stored[name], of_type, f"{kind}.{name}") for name, of_type in declared.items()}
    return event_type(**held)


def encode(event: Event) -> bytes:
    """Canonical bytes of one event. Raises ``InputError`` as :func:`to_value`."""
    return canonical.encode(to_value(event))


def decode(data: bytes) -> Event:
    """The event in ``data``. Raises ``IntegrityError`` when ``data`` is not exactly one encoded event."""
    return from_value(canonical.decode(data, max_bytes=MAX_RECORD_BYTES))


def _field_to_value(held: object, declared: type) -> Value:
    if isinstance(held, Enum):
        return cast(str, held.value)
    if isinstance(held, RandomId | KeyedHash):
        return held.value
    if declared is float:
        number = float(cast(float, held))
        if not math.isfinite(number):
            raise InputError("event record: expected a finite number")
        return number
    return cast("int | bool", held)


def _field_from_value(stored: Value, declared: type, where: str) -> object:
    try:
        if issubclass(declared, Enum) and isinstance(stored, str):
            return declared(stored)
        if declared in (RandomId, KeyedHash) and isinstance(stored, bytes):
            return declared(stored)
    except ValueError as error:
        raise IntegrityError(f"event record {where}: not a {declared.__name__}") from error
    if type(stored) is declared:
        return stored
    raise IntegrityError(f"event record {where}: expected {declared.__name__}, got {type(stored).__name__}")
