"""One unchanging view of a stored ledger, for everyone who only reads.

Nothing in the ledger is changed to take it and no file is made beside it; only where a write-ahead file lies there
already may SQLite add that file's index (``-shm``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, select

from mibao.errors import InputError, IntegrityError, MibaoError
from mibao.ledger import log_sqlite
from mibao.ledger.log_sqlite import ENTRIES, Head, storage_errors

READ_ATTEMPTS = 5

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One entry, as stored."""

    position: int
    entry: bytes
    leaf_hash: bytes


class Snapshot:
    """One unchanging view of a stored ledger."""

    def __init__(self, connection: Connection, *, write_ahead_file: Path | None) -> None:
        self._connection = connection
        self._write_ahead_file = write_ahead_file

    def head(self) -> Head:
        """The stored checkpoint and frontier. Raises ``IntegrityError`` when they cannot be read."""
        return log_sqlite.read_head(self._connection)

    def rows(self) -> Iterator[Row]:
        """Every stored entry by position, without gaps, beginning at 0.

        Raises:
            IntegrityError: an entry is missing, out of order, of another type or unreadable; names its index.
        """
        expected = 0
        query = select(ENTRIES.c.position, ENTRIES.c.entry, ENTRIES.c.leaf_hash).order_by(ENTRIES.c.position)
        with storage_errors(lambda: f"entry {expected}", index=lambda: expected):
            for position, entry, leaf_hash in self._connection.execute(query):
                if position != expected:
                    raise IntegrityError(f"entry {expected}: missing or out of order", index=expected)
                if not isinstance(entry, bytes) or not isinstance(leaf_hash, bytes):
                    raise IntegrityError(f"entry {expected}: a malformed row", index=expected)
                yield Row(position=position, entry=entry, leaf_hash=leaf_hash)
                expected += 1

    def check_write_ahead(self) -> None:
        """Return if SQLite has replayed every finished append beside the ledger. Raises ``IntegrityError`` if not."""
        if self._write_ahead_file is not None:
            log_sqlite.check_write_ahead(self._write_ahead_file, tolerated=0)

    def check_pages(self) -> None:
        """Return if SQLite finds every page of the file in order. Raises ``IntegrityError`` otherwise."""
        with storage_errors(lambda: "page structure"):
            found = self._connection.exec_driver_sql("PRAGMA integrity_check(1)").scalars().all()
        if found != ["ok"]:
            raise IntegrityError("ledger file: its page structure is damaged")


def read(path: Path, use: Callable[[Snapshot], Answer]) -> Answer:
    """What ``use`` makes of one unchanging view of the ledger; ``use`` may be called again when a writer interferes.

    Raises:
        InputError: no file, not a ledger, or it is being written to so fast that no view could be had.
        IntegrityError: the file is damaged; and whatever ``use`` raises.
    """
    for _ in range(READ_ATTEMPTS):
        path = log_sqlite.located(path)
        before, locked = _fingerprint(path), _has_write_ahead_file(path)
        try:
            answer = _read_once(path, use, locked=locked)
        except MibaoError:
            if locked or _fingerprint(path) == before:
                raise
            continue  # a writer was at work under an unlocked view: what looked like damage may be none
        if locked or _fingerprint(path) == before:
            return answer
    raise InputError(f"{path}: being written to by another process; try again")


def _read_once(path: Path, use: Callable[[Snapshot], Answer], *, locked: bool) -> Answer:
    # Without a write-ahead file nobody is writing, and `immutable` keeps SQLite from leaving files behind.
    mode = "mode=ro" if locked else "mode=ro&immutable=1"
    engine = log_sqlite.open_engine(f"{path.absolute().as_uri()}?{mode}", begin="BEGIN")
    try:
        with storage_errors(lambda: "file header"):
            connection = engine.connect()
        with connection:
            with storage_errors(lambda: "file header"):
                log_sqlite.set_pragmas(connection, "query_only=ON", "trusted_schema=OFF", "cell_size_check=ON")
                connection.begin()
                log_sqlite.check_schema(connection)
            return use(Snapshot(connection, write_ahead_file=log_sqlite.write_ahead_file(path) if locked else None))
    finally:
        engine.dispose()


def _has_write_ahead_file(path: Path) -> bool:
    try:
        return log_sqlite.write_ahead_file(path).stat().st_size > 0
    except OSError:
        return False


def _fingerprint(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
