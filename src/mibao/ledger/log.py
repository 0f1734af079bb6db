"""The ledger in its file: append events, read them back, prove them. Files and the clock live here.

    >>> with Log.create(path, signer=private_key, origin="example.com/hospital-a") as log:
    ...     log.append([RoundTrained(...)])

An append returns when its entries, the Merkle frontier and the checkpoint signed over them are on the disk, all in
one transaction: a process that dies loses nothing that was acknowledged. Several processes may append in turn.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from sqlalchemy import Connection, Engine, func, select, update
from sqlalchemy.exc import IntegrityError as DuplicateRow

from mibao.crypto.keys import SignerPrivateKey
from mibao.errors import InputError, IntegrityError
from mibao.events import Event
from mibao.ledger import checkpoint as checkpoints
from mibao.ledger import entry as entries
from mibao.ledger import log_sqlite, merkle, proof
from mibao.ledger import snapshot as snapshots
from mibao.ledger.checkpoint import Checkpoint
from mibao.ledger.entry import Entry
from mibao.ledger.log_sqlite import ENTRIES, HEAD, Head
from mibao.ledger.merkle import Frontier
from mibao.ledger.snapshot import Row, Snapshot

MAX_BATCH = 65_536


def wall_clock_ms() -> int:
    """Milliseconds since 1970-01-01 UTC by this machine's clock."""
    return time.time_ns() // 1_000_000


class Log:
    """A ledger opened for appending by the holder of its signer's key. Threads may share one."""

    def __init__(
        self, engine: Engine, connection: Connection, *, signer: SignerPrivateKey, clock_ms: Callable[[], int]
    ) -> None:
        self._engine = engine
        self._connection = connection
        self._signer = signer
        self._clock_ms = clock_ms
        self._lock = threading.Lock()
        self._known: _State | None = None

    @classmethod
    def create(
        cls, path: Path, *, signer: SignerPrivateKey, origin: str, clock_ms: Callable[[], int] = wall_clock_ms
    ) -> Log:
        """A new, empty ledger, opened.

        Args:
            path: Where no file is yet.
            signer: The Ed25519 key whose signature every checkpoint carries.
            origin: The ledger's name, such as ``example.com/hospital-a``; see :func:`checkpoint.check_origin`.
            clock_ms: The time of new entries.

        Raises:
            InputError: a file is there, the key is not Ed25519, or the origin is not a valid one.
        """
        empty = Checkpoint(origin=origin, size=0, root=merkle.EMPTY_ROOT)
        note = checkpoints.sign(empty, signer)
        log_sqlite.create_file(path, Head(note=note.encode(), frontier=merkle.EMPTY.encode()))
        return cls.open(path, signer=signer, clock_ms=clock_ms)

    @classmethod
    def open(cls, path: Path, *, signer: SignerPrivateKey, clock_ms: Callable[[], int] = wall_clock_ms) -> Log:
        """An existing ledger, to append to.

        The checkpoint is verified; the entries are not read again: that is :func:`verification.verify`'s work.

        Raises:
            InputError: no file, not a ledger, or the key is not Ed25519.
            KeyMismatch: the ledger was made with another key.
            IntegrityError: the checkpoint, the frontier or the number of entries do not fit one another.
        """
        checkpoints.check_signer(signer.suite)
        engine, connection = log_sqlite.open_for_append(path)
        log = cls(engine, connection, signer=signer, clock_ms=clock_ms)
        try:
            with log._lock, log_sqlite.storage_errors(lambda: "checkpoint"), connection.begin():
                log._known = log._current_state()
        except BaseException:
            log._release()
            raise
        return log

    def append(self, events: Sequence[Event]) -> range:
        """Store ``events`` in this order, all or none, and return their indices once they are durable.

        Raises:
            InputError: over :data:`MAX_BATCH` events, an event that holds what it may not, the disk is full, or
                another process has held the ledger for :data:`log_sqlite.BUSY_TIMEOUT_S`.
            IntegrityError: the stored ledger was changed by someone else than a holder of the key.
        """
        if len(events) > MAX_BATCH:
            raise InputError(f"ledger: expected at most {MAX_BATCH} events at once, got {len(events)}")
        now = self._clock_ms()
        batch = [entries.encode(Entry(time_ms=now, event=event)) for event in events]
        leaves = [merkle.leaf_hash(data) for data in batch]
        with self._lock, log_sqlite.storage_errors(lambda: "ledger"):
            if not batch:
                return range(self.checkpoint.size, self.checkpoint.size)
            with self._connection.begin():
                state = self._current_state()
                after = self._store(state, batch, leaves)
            self._known = after  # only now: until the commit has returned, the old state is the true one
        return range(state.checkpoint.size, after.checkpoint.size)

    def entries_from(self, start: int) -> list[Entry]:
        """The entries from index ``start`` on: what a writer that was killed had appended, or another has since.

        Raises:
            IntegrityError: one cannot be read; names its index.
        """
        query = select(ENTRIES.c.position, ENTRIES.c.entry, ENTRIES.c.leaf_hash)
        query = query.where(ENTRIES.c.position >= start).order_by(ENTRIES.c.position)
        with self._lock, log_sqlite.storage_errors(lambda: "ledger"), self._connection.begin():
            rows = self._connection.execute(query).all()
        return [decode_row(Row(position=row.position, entry=row.entry, leaf_hash=row.leaf_hash)) for row in rows]

    @property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint after the last append made through this object."""
        return self._state().checkpoint

    @property
    def note(self) -> str:
        """The signed note of :attr:`checkpoint`: what an auditor should keep."""
        return self._state().head.note.decode()

    def close(self) -> None:
        """Write everything back into the one file and let go of it. What was acknowledged is safe without this.

        Raises:
            InputError: the disk is full.
        """
        try:
            log_sqlite.write_back(self._connection)
        finally:
            self._release()

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _release(self) -> None:
        self._connection.close()
        self._engine.dispose()

    def _state(self) -> _State:
        if self._known is None:
            raise InputError("ledger: not opened")
        return self._known

    def _current_state(self) -> _State:
        """The stored state, verified anew when another process has appended since."""
        head = log_sqlite.read_head(self._connection)
        known = self._known
        state = known if known and known.head == head else _State.verified(head, self._signer)
        if known and state is not known and state.checkpoint.size <= known.checkpoint.size:
            raise IntegrityError("ledger: rolled back or rewritten while it was open")
        last = self._connection.execute(select(func.max(ENTRIES.c.position))).scalar()
        if last != (state.checkpoint.size - 1 if state.checkpoint.size else None):
            raise IntegrityError(f"ledger: expected {state.checkpoint.size} entries as the checkpoint says")
        return state

    def _store(self, state: _State, batch: list[bytes], leaves: list[bytes]) -> _State:
        start = state.checkpoint.size
        frontier = state.frontier.extended(leaves)
        checkpoint = Checkpoint(origin=state.checkpoint.origin, size=frontier.size, root=frontier.root)
        note = checkpoints.sign(checkpoint, self._signer)
        head = Head(note=note.encode(), frontier=frontier.encode())
        rows = [
            {"position": start + offset, "entry": data, "leaf_hash": leaf}
            for offset, (data, leaf) in enumerate(zip(batch, leaves, strict=True))
        ]
        try:
            self._connection.execute(ENTRIES.insert(), rows)
        except DuplicateRow as error:
            raise IntegrityError("ledger: entries lie beyond those that the checkpoint covers") from error
        self._connection.execute(update(HEAD).values(note=head.note, frontier=head.frontier))
        return _State(head=head, checkpoint=checkpoint, frontier=frontier)


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """A stored head and what it means."""

    head: Head
    checkpoint: Checkpoint
    frontier: Frontier

    @classmethod
    def verified(cls, head: Head, signer: SignerPrivateKey) -> _State:
        checkpoint = checkpoints.verify(note_text(head), signer.public)
        frontier = Frontier.decode(head.frontier, size=checkpoint.size)
        if frontier.root != checkpoint.root:
            raise IntegrityError("frontier: it does not lead to the signed root")
        return cls(head=head, checkpoint=checkpoint, frontier=frontier)


def note_text(head: Head) -> str:
    """The stored note as text. Raises ``IntegrityError`` when it is not UTF-8."""
    try:
        return head.note.decode()
    except UnicodeDecodeError as error:
        raise IntegrityError("checkpoint: not text") from error


def stored_note(path: Path) -> str:
    """The signed note of a stored ledger, as it stands there, not verified.

    Raises:
        InputError: no file, or not a ledger.
        IntegrityError: it cannot be read as a checkpoint.
    """
    note = snapshots.read(path, lambda snapshot: note_text(snapshot.head()))
    checkpoints.read_unverified(note)
    return note


def stored_entries(path: Path) -> list[Entry]:
    """Every entry of a stored ledger, in order, not verified.

    Raises:
        InputError: no file, or not a ledger.
        IntegrityError: an entry cannot be read; names its index.
    """
    return snapshots.read(path, _decoded)


def export(path: Path) -> bytes:
    """The whole ledger as JSON lines, one an entry, then one with the checkpoint: equal ledgers, equal bytes.

    Nothing is verified. Raises as :func:`stored_entries`.
    """

    def dump(snapshot: Snapshot) -> bytes:
        lines = [entries.to_json(entry, index=index) for index, entry in enumerate(_decoded(snapshot))]
        return _json_lines([*lines, {"checkpoint": note_text(snapshot.head())}])

    return snapshots.read(path, dump)


def prove(path: Path, index: int) -> str:
    """The proof that the entry at ``index`` is in the ledger, as text; :func:`proof.verify` checks it.

    Raises:
        InputError: no file, not a ledger, or no entry at ``index``.
        IntegrityError: the ledger cannot be read, or does not match its checkpoint.
    """
    return snapshots.read(path, lambda snapshot: _prove(snapshot, index))


def prove_consistency(path: Path, *, old_size: int) -> tuple[bytes, ...]:
    """The hashes that :func:`merkle.verify_consistency` needs to see that the ledger only grew since ``old_size``.

    Raises:
        InputError: no file, not a ledger, or it holds fewer than ``old_size`` entries.
        IntegrityError: the ledger cannot be read.
    """
    return snapshots.read(path, lambda snapshot: merkle.consistency_proof(_leaves(snapshot), old_size))


def _prove(snapshot: Snapshot, index: int) -> str:
    data, leaves = b"", []
    for row in snapshot.rows():
        leaves.append(merkle.leaf_hash(row.entry))
        if row.position == index:
            data = row.entry
    if not 0 <= index < len(leaves):
        raise InputError(f"ledger: it holds {len(leaves)} entries, numbered from 0; there is no entry {index}")
    note = note_text(snapshot.head())
    checkpoint = checkpoints.read_unverified(note)
    if checkpoint.size != len(leaves) or checkpoint.root != merkle.root(leaves):
        raise IntegrityError("ledger: its entries do not match its checkpoint; `mibao ledger verify` says where")
    return proof.encode(proof.Proof(index=index, data=data, hashes=merkle.inclusion_proof(leaves, index), note=note))


def _leaves(snapshot: Snapshot) -> list[bytes]:
    return [merkle.leaf_hash(row.entry) for row in snapshot.rows()]


def _decoded(snapshot: Snapshot) -> list[Entry]:
    return [decode_row(row) for row in snapshot.rows()]


def decode_row(row: Row) -> Entry:
    """The entry in a stored row. Raises ``IntegrityError`` that names its index when it is not one."""
    try:
        return entries.decode(row.entry)
    except IntegrityError as error:
        raise IntegrityError(f"entry {row.position}: {error}", index=row.position) from error


def _json_lines(objects: Sequence[dict[str, object]]) -> bytes:
    return "".join(json.dumps(item, separators=(",", ":")) + "\n" for item in objects).encode()
