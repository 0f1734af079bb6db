"""How much a key may use, counted where every worker and host counts.

A request takes its place before it is served, and a reservation of tokens and spend that :class:`Settle` replaces by
what was used. So requests at the same time cannot use up more than is left, but for what one request uses beyond its
reservation: how long an answer becomes is known when it is there. While less is left than a request reserves, one
request at a time gets the rest. A reservation that nobody settles, because its worker died, is charged in full when
it expires.

Requests are counted in slots of :data:`SLOT_MS`, and a limit looks back over the minute and the slot that it begins in:
no 60 seconds hold more than the limit. A batch of requests is decided in one transaction, under a lock for each key in
PostgreSQL and under the file's lock in SQLite.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import BindParameter, Connection, bindparam, delete, func, insert, literal, select
from sqlalchemy.dialects import postgresql, sqlite

from mibao.serving.admission import Refused
from mibao.serving.api_keys import Limits
from mibao.serving.migrations import OUTBOX, REQUEST_SLOTS, RESERVATIONS, USAGE

SLOT_MS = 5_000
MINUTE_SLOTS = 60_000 // SLOT_MS
DAY_MS = 86_400_000
RESERVATION_MS = 30 * 60_000
NO_MODEL = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserve:
    """Let one request in, and put aside what it may use."""

    reservation: bytes
    key_id: str
    limits: Limits
    tokens: int
    spend: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserved:
    """Let in: what was put aside, which is less than was asked for where less is left."""

    tokens: int
    spend: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settle:
    """What one request used. ``events`` are for the ledger, encoded; empty where none is kept."""

    request: bytes
    key_id: str
    reserved: bool
    model: str
    prompt_tokens: int
    completion_tokens: int
    spend: int
    withheld: bool
    events: bytes


Operation = Reserve | Settle


@dataclass(slots=True)
class _Left:
    """What one key has left, while a batch is decided."""

    requests: int
    oldest_slot: int | None
    tokens: int
    spend: int


def is_durable(batch: Sequence[Operation]) -> bool:
    """Whether a batch must outlast a power failure: what is counted may be lost with the machine, a record not."""
    return any(isinstance(operation, Settle) for operation in batch)


class Quotas:
    """Applies batches of :data:`Operation` to the store. ``clock_ms`` is the time in UTC, in milliseconds."""

    def __init__(self, clock_ms: Callable[[], int]) -> None:
        self._clock_ms = clock_ms

    def apply(self, connection: Connection, batch: Sequence[Operation]) -> list[Reserved | Refused | None]:
        """The answer to each: of a :class:`Reserve` a :class:`Reserved` or why not, of a :class:`Settle` nothing."""
        now_ms = self._clock_ms()
        reserves = [operation for operation in batch if isinstance(operation, Reserve)]
        settles = [operation for operation in batch if isinstance(operation, Settle)]
        _lock(connection, {operation.key_id for operation in reserves})
        if settles:
            _settle(connection, settles, now_ms)
        answers = _decide(connection, reserves, now_ms) if reserves else {}
        return [answers.get(id(operation)) for operation in batch]

    def sweep(self, connection: Connection) -> None:
        """Charge reservations that nobody settled and forget the minutes that are over."""
        now_ms = self._clock_ms()
        lost = connection.execute(
            delete(RESERVATIONS)
            .where(RESERVATIONS.c.expires_ms <= now_ms)
            .returning(RESERVATIONS.c.key_id, RESERVATIONS.c.tokens, RESERVATIONS.c.spend)
        ).all()
        _add_usage(
            connection,
            ((key_id, NO_MODEL, {"completion_tokens": tokens, "spend": spend}) for key_id, tokens, spend in lost),
            now_ms,
        )
        connection.execute(delete(REQUEST_SLOTS).where(REQUEST_SLOTS.c.slot < now_ms // SLOT_MS - 2 * MINUTE_SLOTS))


def _lock(connection: Connection, key_ids: Iterable[str]) -> None:
    """Keep other workers from deciding for these keys until the transaction is over; SQLite's has kept all already."""
    if connection.dialect.name != "postgresql":
        return
    for key_id in sorted(key_ids):
        number = int.from_bytes(hashlib.sha256(key_id.encode()).digest()[:8], "big", signed=True)
        connection.execute(_ADVISORY_LOCK, {"number": number})


def _decide(connection: Connection, reserves: Sequence[Reserve], now_ms: int) -> dict[int, Reserved | Refused | None]:
    left: dict[str, _Left] = {}
    answers: dict[int, Reserved | Refused | None] = {}
    taken: list[tuple[Reserve, Reserved]] = []
    for reserve in reserves:
        if reserve.key_id not in left:
            left[reserve.key_id] = _left(connection, reserve, now_ms)
        answer = _take(left[reserve.key_id], reserve, now_ms)
        answers[id(reserve)] = answer
        if isinstance(answer, Reserved):
            taken.append((reserve, answer))
    counted: dict[str, int] = {}
    for reserve, _ in taken:
        if reserve.limits.requests_per_minute is not None:
            counted[reserve.key_id] = counted.get(reserve.key_id, 0) + 1
    slot = now_ms // SLOT_MS
    for key_id, requests in sorted(counted.items()):
        connection.execute(
            _COUNT_REQUESTS[connection.dialect.name], {"key_id": key_id, "slot": slot, "requests": requests}
        )
    rows = [
        {
            "reservation": reserve.reservation,
            "key_id": reserve.key_id,
            "tokens": reserved.tokens,
            "spend": reserved.spend,
            "expires_ms": now_ms + RESERVATION_MS,
        }
        for reserve, reserved in taken
        if reserved.tokens or reserved.spend
    ]
    if rows:
        connection.execute(_RESERVE, rows)
    return answers


def _left(connection: Connection, reserve: Reserve, now_ms: int) -> _Left:
    day = now_ms // DAY_MS
    # One statement, so that what another worker settles meanwhile is either still reserved or already used.
    row = connection.execute(
        _USED,
        {
            "key": reserve.key_id,
            "since": now_ms // SLOT_MS - MINUTE_SLOTS,
            "day": day,
            "month": _first_of_month(day),
        },
    ).one()
    limits = reserve.limits  # PostgreSQL's sums are decimals
    return _Left(
        requests=_minus(limits.requests_per_minute, int(row.requests)),
        oldest_slot=row.oldest_slot,
        tokens=_minus(limits.tokens_per_day, int(row.tokens + row.reserved_tokens)),
        spend=_minus(limits.spend_per_month, int(row.spend + row.reserved_spend)),
    )


def _take(left: _Left, reserve: Reserve, now_ms: int) -> Reserved | Refused:
    limits = reserve.limits
    if limits.requests_per_minute is not None and left.requests <= 0:
        oldest = left.oldest_slot if left.oldest_slot is not None else now_ms // SLOT_MS
        wait_ms = (oldest + MINUTE_SLOTS + 1) * SLOT_MS - now_ms
        return _refused("too many requests a minute", "rate_limit_exceeded", wait_ms)
    if limits.tokens_per_day is not None and left.tokens <= 0:
        return _refused("the tokens of the day are used up", "quota_exceeded", DAY_MS - now_ms % DAY_MS)
    if limits.spend_per_month is not None and left.spend <= 0:
        return _refused("the budget of the month is used up", "budget_exceeded", _month_left_ms(now_ms))
    tokens = min(reserve.tokens, left.tokens) if limits.tokens_per_day is not None else 0
    spend = min(reserve.spend, left.spend) if limits.spend_per_month is not None else 0
    left.requests -= 1
    left.tokens -= tokens
    left.spend -= spend
    if left.oldest_slot is None:
        left.oldest_slot = now_ms // SLOT_MS
    return Reserved(tokens=tokens, spend=spend)


def _settle(connection: Connection, settles: Sequence[Settle], now_ms: int) -> None:
    reserved = [{"held": settle.request} for settle in settles if settle.reserved]
    if reserved:
        connection.execute(_RELEASE, reserved)
    used = (
        (
            settle.key_id,
            settle.model,
            {
                "requests": 1,
                "prompt_tokens": settle.prompt_tokens,
                "completion_tokens": settle.completion_tokens,
                "spend": settle.spend,
                "withheld": int(settle.withheld),
            },
        )
        for settle in settles
    )
    _add_usage(connection, used, now_ms)
    kept = [{"request": settle.request, "events": settle.events} for settle in settles if settle.events]
    if kept:
        connection.execute(_KEEP, kept)


def _add_usage(connection: Connection, used: Iterable[tuple[str, str, Mapping[str, int]]], now_ms: int) -> None:
    day = now_ms // DAY_MS
    sums: dict[tuple[str, str], dict[str, int]] = {}
    for key_id, model, counts in used:
        total = sums.setdefault((key_id, model), dict.fromkeys(_COUNTS, 0))
        for name, count in counts.items():
            total[name] += count
    # Sorted, so that two workers never wait for each other's rows.
    rows = [{"key_id": key_id, "day": day, "model": model, **sums[key_id, model]} for key_id, model in sorted(sums)]
    if rows:
        connection.execute(_ADD_USAGE[connection.dialect.name], rows)


def _minus(limit: int | None, used: int) -> int:
    return 0 if limit is None else limit - used


def _refused(message: str, code: str, wait_ms: int) -> Refused:
    return Refused(message, status=429, code=code, retry_after_s=float(max(1, -(-wait_ms // 1000))))


def _first_of_month(day: int) -> int:
    return day - (_date(day).day - 1)


def _month_left_ms(now_ms: int) -> int:
    day = now_ms // DAY_MS
    following = (_date(_first_of_month(day)) + timedelta(days=32)).replace(day=1)
    return int(following.timestamp() * 1000) - now_ms


def _date(day: int) -> datetime:
    return datetime.fromtimestamp(day * DAY_MS / 1000, tz=UTC)


def _adding(insert_into: Any, table: Any, columns: Sequence[str], keys: Sequence[str]) -> Any:
    """An insertion that adds to the row that is there."""
    statement = insert_into(table)
    added = {name: table.c[name] + statement.excluded[name] for name in columns}
    return statement.on_conflict_do_update(index_elements=list(keys), set_=added)


# Built once: their text is compiled once and remembered by SQLAlchemy.
_COUNTS = ("requests", "prompt_tokens", "completion_tokens", "spend", "withheld")
_INSERTS = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
_ADD_USAGE = {name: _adding(into, USAGE, _COUNTS, ("key_id", "day", "model")) for name, into in _INSERTS.items()}
_COUNT_REQUESTS = {
    name: _adding(into, REQUEST_SLOTS, ("requests",), ("key_id", "slot")) for name, into in _INSERTS.items()
}
_RESERVE = insert(RESERVATIONS)
_RELEASE = delete(RESERVATIONS).where(RESERVATIONS.c.reservation == bindparam("held"))
_KEEP = insert(OUTBOX)
_ADVISORY_LOCK = select(func.pg_advisory_xact_lock(bindparam("number")))
_KEY: BindParameter[str] = bindparam("key")


def _sum(column: Any, *where: Any) -> Any:
    return select(func.coalesce(func.sum(column), literal(0))).where(*where).scalar_subquery()


_RECENT = (REQUEST_SLOTS.c.key_id == _KEY, REQUEST_SLOTS.c.slot >= bindparam("since"))
_USED = select(
    _sum(REQUEST_SLOTS.c.requests, *_RECENT).label("requests"),
    select(func.min(REQUEST_SLOTS.c.slot)).where(*_RECENT).scalar_subquery().label("oldest_slot"),
    _sum(USAGE.c.prompt_tokens + USAGE.c.completion_tokens, USAGE.c.key_id == _KEY, USAGE.c.day == bindparam("day"))
    .label("tokens"),
    _sum(USAGE.c.spend, USAGE.c.key_id == _KEY, USAGE.c.day >= bindparam("month")).label("spend"),
    _sum(RESERVATIONS.c.tokens, RESERVATIONS.c.key_id == _KEY).label("reserved_tokens"),
    _sum(RESERVATIONS.c.spend, RESERVATIONS.c.key_id == _KEY).label("reserved_spend"),
)  # fmt: skip
