"""The ledger of a gateway with many workers: written down by all, appended by one, nothing lost in between.

What a worker acknowledges is a row in the store's outbox, in one transaction with the counts of the request. On the
host that holds the ledger one worker at a time, elected by a lock on a file beside it, moves the rows into the Merkle
log: it appends, then deletes. If it dies between the two, the next finds more entries in the log than the store knows
of, reads those, and does not append again what is there. Every entry bears its request's random id, so nothing is
recorded twice. ``mibao ledger verify`` checks the log; what is still in the outbox is only as safe as the store.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import Connection, delete, insert, select, update

from mibao.codec import canonical, records
from mibao.crypto.kdf import domain_tag, keyed_hash
from mibao.crypto.keys import SignerPrivateKey
from mibao.errors import InputError, IntegrityError, MibaoError
from mibao.events import Event, PersonalDataWithheld, RequestServed
from mibao.ledger import Log
from mibao.serving.admission import Caller, Outcome
from mibao.serving.migrations import LEDGER_STATE, OUTBOX
from mibao.serving.storage import Store
from mibao.types import EntityType, KeyedHash, RandomId

MAX_ROWS = 500
MAX_EVENTS_BYTES = 64 * 1024
INTERVAL_S = 0.25
RETRY_S = 5.0
_ENTITIES: Mapping[str, EntityType] = {entity.value: entity for entity in EntityType}
_log = logging.getLogger(__name__)


def caller_hash(caller: Caller, *, key: bytes) -> KeyedHash:
    """Who asked, for a ledger: only the holder of ``key`` can tell, by trying those it knows."""
    return keyed_hash(
        key, purpose="serving/caller", message=domain_tag("caller", caller.tenant.encode(), caller.key_id.encode())
    )


def events_of(outcome: Outcome, *, request: RandomId, caller: KeyedHash) -> list[Event]:
    """What is recorded of one request: one event, and one for each type of what was found in it."""
    found: dict[EntityType, int] = {}
    for name, count in outcome.findings.items():
        entity = _ENTITIES.get(name, EntityType.CUSTOM)
        found[entity] = found.get(entity, 0) + count
    served = RequestServed(
        request=request,
        caller=caller,
        status=outcome.status,
        findings=sum(found.values()),
        prompt_tokens=outcome.prompt_tokens,
        completion_tokens=outcome.completion_tokens,
        withheld=outcome.withheld is not None,
    )
    return [
        served,
        *(
            PersonalDataWithheld(request=request, entity=entity, findings=count)
            for entity, count in sorted(found.items(), key=lambda item: item[0].value)
            if count
        ),
    ]


def encode(events: list[Event]) -> bytes:
    """Events for the outbox."""
    return canonical.encode([records.to_value(event) for event in events])


def decode(data: bytes) -> list[Event]:
    """What :func:`encode` made. Raises ``IntegrityError`` if it is something else."""
    value = canonical.decode(data, max_bytes=MAX_EVENTS_BYTES)
    if not isinstance(value, list):
        raise IntegrityError("ledger outbox: a row is not a list of events")
    return [records.from_value(item) for item in value]


class Appender:
    """Moves the outbox of ``store`` into the log at ``path``, made if it is not there, while no other worker does.

    Args:
        store: Whose outbox.
        path: The ledger's file, on this host.
        signer: Its Ed25519 key.
        origin: Its name; see :func:`mibao.ledger.checkpoint.check_origin`.
    """

    def __init__(self, store: Store, path: Path, *, signer: SignerPrivateKey, origin: str) -> None:
        self._store, self._path, self._signer, self._origin = store, path, signer, origin
        self._log: Log | None = None
        self._lock: int | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Try to be the one, again and again, in a thread of its own, until :meth:`close`."""
        self._thread = threading.Thread(target=self._run, name="mibao-ledger", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Append what is there if it falls to this worker, and let another be the one."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._resign()

    def append_waiting(self) -> int | None:
        """Move all that waits; the number of rows moved, or None while another worker is the one.

        Raises:
            IntegrityError: the ledger is not the one that this store's outbox went into, or is older.
            InputError: the disk is full, or the store does not answer.
        """
        if not self._elected():
            return None
        log, moved = self._opened(), 0
        while rows := self._waiting():
            self._append(log, rows, skip=frozenset())
            moved += len(rows)
        return moved

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL_S):
            try:
                self.append_waiting()
            except MibaoError as error:
                _log.error("ledger: %s", error)
                self._resign()
                self._stop.wait(RETRY_S)
        try:
            self.append_waiting()
        except MibaoError as error:
            _log.error("ledger: %s", error)

    def _elected(self) -> bool:
        if self._lock is not None:
            return True
        name = self._path.with_name(self._path.name + ".appender")
        descriptor = os.open(name, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._lock = descriptor
        return True

    def _resign(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None
        if self._lock is not None:
            os.close(self._lock)  # which unlocks it
            self._lock = None

    def _opened(self) -> Log:
        """The log, once it is known that everything in it was taken from the outbox."""
        if self._log is not None:
            return self._log
        if self._path.exists():
            log = Log.open(self._path, signer=self._signer)
        else:
            log = Log.create(self._path, signer=self._signer, origin=self._origin)
        try:
            self._reconcile(log)
        except BaseException:
            log.close()
            raise
        self._log = log
        return log

    def _reconcile(self, log: Log) -> None:
        with self._store.writing() as connection:
            known = connection.execute(select(LEDGER_STATE.c.origin, LEDGER_STATE.c.entries)).first()
            if known is None:
                connection.execute(
                    insert(LEDGER_STATE).values(id=0, origin=log.checkpoint.origin, entries=log.checkpoint.size)
                )
                return
        if known.origin != log.checkpoint.origin:
            raise InputError(f"ledger: this store records into '{known.origin}', not '{log.checkpoint.origin}'")
        if known.entries > log.checkpoint.size:
            raise IntegrityError(
                f"ledger: expected at least {known.entries} entries, got {log.checkpoint.size}: rolled back, or another"
            )
        if known.entries < log.checkpoint.size:
            there = [entry.event for entry in log.entries_from(known.entries)]
            done = frozenset(event.request.value for event in there if isinstance(event, RequestServed))
            while rows := self._waiting():
                self._append(log, rows, skip=done)

    def _waiting(self) -> list[tuple[int, bytes, bytes]]:
        query = select(OUTBOX.c.position, OUTBOX.c.request, OUTBOX.c.events).order_by(OUTBOX.c.position).limit(MAX_ROWS)
        with self._store.reading() as connection:
            return [(row[0], bytes(row[1]), bytes(row[2])) for row in connection.execute(query).all()]

    def _append(self, log: Log, rows: list[tuple[int, bytes, bytes]], *, skip: frozenset[bytes]) -> None:
        log.append([event for _, request, data in rows if request not in skip for event in decode(data)])
        with self._store.writing() as connection:
            _delete(connection, [position for position, _, _ in rows])
            connection.execute(update(LEDGER_STATE).values(entries=log.checkpoint.size))


def _delete(connection: Connection, positions: list[int]) -> None:
    connection.execute(delete(OUTBOX).where(OUTBOX.c.position.in_(positions)))
