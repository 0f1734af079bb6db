"""One entry: a typed event and when the writer says it happened, as canonical CBOR ``{v, time_ms, kind, fields}``.

Fields are enums, numbers, random ids and keyed hashes (:mod:`mibao.events`): an entry has no place for free text.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from mibao.codec import canonical, records
from mibao.errors import InputError, IntegrityError
from mibao.events import Event

VERSION = 1
MAX_ENTRY_BYTES = 4096
MAX_TIME_MS = (1 << 53) - 1
_YEAR_10000_S = 253_402_300_800
_KEYS = {"v", "time_ms", "kind", "fields"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An event and the writer's clock: milliseconds since 1970-01-01 UTC, asserted by the writer and not proven."""

    time_ms: int
    event: Event


def encode(entry: Entry) -> bytes:
    """The bytes of an entry: what the Merkle leaf is computed over.

    Raises:
        InputError: a field of the event is of another type than it declares, the time is outside
            ``[0, MAX_TIME_MS]``, or the entry exceeds :data:`MAX_ENTRY_BYTES`.
    """
    if not 0 <= entry.time_ms <= MAX_TIME_MS:
        raise InputError(f"ledger entry: expected a time of 0 to {MAX_TIME_MS} ms, got {entry.time_ms}")
    data = canonical.encode({"v": VERSION, "time_ms": entry.time_ms, **records.to_value(entry.event)})
    if len(data) > MAX_ENTRY_BYTES:
        raise InputError(f"ledger entry: expected at most {MAX_ENTRY_BYTES} bytes, got {len(data)}")
    return data


def decode(data: bytes) -> Entry:
    """The entry in ``data``.

    Raises:
        IntegrityError: ``data`` is not exactly one encoded entry of this version.
    """
    value = canonical.decode(data, max_bytes=MAX_ENTRY_BYTES)
    if not isinstance(value, dict) or set(value) != _KEYS:
        raise IntegrityError("ledger entry: expected exactly the keys v, time_ms, kind and fields")
    version, time_ms = value["v"], value["time_ms"]
    if type(version) is not int or version != VERSION:
        raise IntegrityError(f"ledger entry: expected version {VERSION}")
    if type(time_ms) is not int or not 0 <= time_ms <= MAX_TIME_MS:
        raise IntegrityError("ledger entry: expected a time in milliseconds")
    return Entry(time_ms=time_ms, event=records.from_value({"kind": value["kind"], "fields": value["fields"]}))


def to_json(entry: Entry, *, index: int) -> dict[str, object]:
    """An entry as one JSON object: ids and hashes in hexadecimal, the time also as text in UTC."""
    stored = records.to_value(entry.event)
    fields = stored["fields"]
    if not isinstance(fields, dict):
        raise TypeError("an event record holds a map of fields")
    shown = {name: held.hex() if isinstance(held, bytes) else held for name, held in fields.items()}
    return {
        "index": index,
        "time": time_text(entry.time_ms),
        "time_ms": entry.time_ms,
        "kind": entry.event.kind,
        "fields": shown,
    }


def time_text(time_ms: int) -> str:
    """A time in milliseconds since 1970 as ``2026-01-31T23:59:59.123Z``; beyond the year 9999, as the number."""
    seconds, milliseconds = divmod(time_ms, 1000)
    if seconds >= _YEAR_10000_S:
        return f"{time_ms} ms"
    return f"{datetime.fromtimestamp(seconds, tz=UTC):%Y-%m-%dT%H:%M:%S}.{milliseconds:03}Z"
