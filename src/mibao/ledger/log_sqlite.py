"""A ledger as one SQLite file: its two tables, how it is opened, and what the file's errors mean.

Entries lie in a table by position, each with its leaf hash; one row holds the signed checkpoint and the Merkle
frontier, and changes in the transaction that adds entries. There is no other table, index, view or trigger: a
file that holds one is refused, so that what is read is what was written.

Source: SQLite, "Write-Ahead Logging" and "Defense Against The Dark Arts" (https://www.sqlite.org).
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Column, Connection, Engine, Integer, LargeBinary, MetaData, Table, create_engine, event, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

from mibao.errors import InputError, IntegrityError, MibaoError
from mibao.ledger import write_ahead

APPLICATION_ID = 0x6D62_6C67  # "mblg"
FORMAT_VERSION = 1
BUSY_TIMEOUT_S = 30.0
CLOSE_TIMEOUT_MS = 2000
MAX_VALUE_BYTES = 1 << 20
SETTLE_ATTEMPTS = 5
_SETTLE_S = 0.05
_MAGIC = b"SQLite format 3\x00"
_APPLICATION_ID_AT = slice(68, 72)

_metadata = MetaData()
ENTRIES = Table(
    "entries",
    _metadata,
    Column("position", Integer, primary_key=True),
    Column("entry", LargeBinary, nullable=False),
    Column("leaf_hash", LargeBinary, nullable=False),
)
HEAD = Table(
    "head",
    _metadata,
    Column("id", Integer, primary_key=True),
    Column("note", LargeBinary, nullable=False),
    Column("frontier", LargeBinary, nullable=False),
)
# The file must hold exactly these statements, so they stand here as text and not as SQLAlchemy would write them.
SCHEMA = {
    "entries": (
        "CREATE TABLE entries (position INTEGER PRIMARY KEY, entry BLOB NOT NULL, leaf_hash BLOB NOT NULL) STRICT"
    ),
    "head": (
        "CREATE TABLE head (id INTEGER PRIMARY KEY CHECK (id = 0), note BLOB NOT NULL, frontier BLOB NOT NULL) STRICT"
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The signed checkpoint and the frontier, as stored."""

    note: bytes
    frontier: bytes


def read_head(connection: Connection) -> Head:
    """The one row of the head table. Raises ``IntegrityError`` when it is missing, doubled or malformed."""
    with storage_errors(lambda: "checkpoint"):
        rows = connection.execute(select(HEAD.c.id, HEAD.c.note, HEAD.c.frontier).limit(2)).all()
    if len(rows) != 1 or rows[0].id != 0:
        raise IntegrityError("checkpoint: expected exactly one in the ledger")
    note, frontier = rows[0].note, rows[0].frontier
    if not isinstance(note, bytes) or not isinstance(frontier, bytes):
        raise IntegrityError("checkpoint: a malformed row")
    return Head(note=note, frontier=frontier)


def create_file(path: Path, head: Head) -> None:
    """Write an empty ledger to a path where no file is; it appears whole or not at all.

    Raises:
        InputError: there is a file already, or the folder cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        if path.exists():
            raise FileExistsError
        _check_nothing_left_beside(path)
        temporary.touch(exist_ok=False)
        _write_empty(temporary, head)
        # A link, unlike a rename, never replaces a file that another process has just made.
        os.link(temporary, path)
        _sync_folder(path.parent)
    except FileExistsError as error:
        raise InputError(f"{path}: expected no file there, a ledger is never overwritten") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be created ({error.strerror})") from error
    finally:
        temporary.unlink(missing_ok=True)


def _check_nothing_left_beside(path: Path) -> None:
    # SQLite would replay what another ledger of this name has left behind into the new one.
    for suffix in ("-wal", "-journal"):
        if os.path.lexists(path.with_name(path.name + suffix)):
            raise InputError(f"{path}: expected no file {path.name}{suffix} beside a new ledger")


def _write_empty(path: Path, head: Head) -> None:
    engine = open_engine(f"{path.absolute().as_uri()}?mode=rw", begin="BEGIN IMMEDIATE")
    try:
        with storage_errors(lambda: "new file"), engine.connect() as connection:
            set_pragmas(connection, "journal_mode=WAL", "synchronous=FULL")
            with connection.begin():
                set_pragmas(connection, f"application_id={APPLICATION_ID}", f"user_version={FORMAT_VERSION}")
                for statement in SCHEMA.values():
                    connection.exec_driver_sql(statement)
                connection.execute(HEAD.insert(), {"id": 0, "note": head.note, "frontier": head.frontier})
    finally:
        engine.dispose()


def open_for_append(path: Path) -> tuple[Engine, Connection]:
    """A connection whose transactions take the write lock at once and are durable when they return.

    Raises:
        InputError: no file, not a ledger, or not writable.
        IntegrityError: the file is damaged.
    """
    path = located(path)
    # To open is to drop what cannot be replayed. One unfinished append may be a power failure's; two are not.
    check_write_ahead(write_ahead_file(path), tolerated=1)
    engine = open_engine(f"{path.absolute().as_uri()}?mode=rw", begin="BEGIN IMMEDIATE")
    try:
        with storage_errors(lambda: "file header"):
            connection = engine.connect()
            set_pragmas(connection, "journal_mode=WAL", "synchronous=FULL", "trusted_schema=OFF", "cell_size_check=ON")
            with connection.begin():
                check_schema(connection)
    except MibaoError:
        engine.dispose()
        raise
    return engine, connection


def check_write_ahead(file: Path, *, tolerated: int) -> None:
    """Return if SQLite will drop at most so many finished appends of a write-ahead file.

    A writer at work can be caught between two writes, so only a file that stays as it is counts as damaged.

    Raises:
        InputError: it went on changing.
        IntegrityError: it is damaged.
    """
    seen = None
    for _ in range(SETTLE_ATTEMPTS):
        wal = file.read_bytes() if file.exists() else b""
        try:
            lost = write_ahead.lost_appends(wal)
        except IntegrityError:
            if wal == seen:
                raise
        else:
            if lost <= tolerated:
                return
            if wal == seen:
                raise IntegrityError(f"write-ahead file beside the ledger: damaged, {lost} finished appends are lost")
        seen = wal
        time.sleep(_SETTLE_S)
    raise InputError("ledger: being written to by another process; try again")


def write_back(connection: Connection) -> None:
    """Move what lies in the write-ahead file into the ledger's own file, as far as other readers let it.

    SQLite does so when the last connection closes, but when two close at once neither is the last.

    Raises:
        InputError: the disk is full.
    """
    with storage_errors(lambda: "ledger"):
        set_pragmas(connection, f"busy_timeout={CLOSE_TIMEOUT_MS}", "wal_checkpoint(TRUNCATE)")


def located(path: Path) -> Path:
    """Where the ledger really lies, through any link: SQLite keeps its other files beside that place.

    Raises:
        InputError: no file, not readable, not a ledger.
        IntegrityError: a rollback journal lies beside it. A ledger never has one, and SQLite would play it back.
    """
    _check_is_ledger(path)
    real = path.resolve(strict=True)
    if os.path.lexists(real.with_name(real.name + "-journal")):
        raise IntegrityError(f"rollback journal beside the ledger: {real.name}-journal could undo entries")
    return real


def _check_is_ledger(path: Path) -> None:
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except IsADirectoryError as error:
        raise InputError(f"{path}: expected a ledger file, got a folder") from error
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if not header.startswith(_MAGIC) or header[_APPLICATION_ID_AT] != APPLICATION_ID.to_bytes(4, "big"):
        raise InputError(f"{path}: not a mibao ledger")


@contextmanager
def storage_errors(part: Callable[[], str], *, index: Callable[[], int | None] = lambda: None) -> Iterator[None]:
    """Turn what SQLite reports into an error that names ``part``: damage, or a reason outside the file."""
    try:
        yield
    except (DBAPIError, sqlite3.Error, UnicodeDecodeError) as error:  # the last: a damaged name in SQLite's message
        code = getattr(getattr(error, "orig", error), "sqlite_errorcode", 0) & 0xFF
        outside = {
            sqlite3.SQLITE_BUSY: f"another process has held its lock for {BUSY_TIMEOUT_S:.0f} s",
            sqlite3.SQLITE_READONLY: "it is read-only",
            sqlite3.SQLITE_PERM: "no permission",
            sqlite3.SQLITE_CANTOPEN: "SQLite cannot open it or the files beside it",
            sqlite3.SQLITE_FULL: "the disk is full",
            sqlite3.SQLITE_IOERR: "the disk does not answer",
        }
        if code in outside:
            raise InputError(f"ledger file: {outside[code]}") from error
        raise IntegrityError(f"{part()}: cannot be read, the ledger file is damaged", index=index()) from error


def open_engine(uri: str, *, begin: str) -> Engine:
    """An engine of one connection to an SQLite URI, whose transactions begin with the statement ``begin``."""

    def connect() -> sqlite3.Connection:
        # isolation_level=None: the driver begins no transaction of its own, the listener below does.
        connection = sqlite3.connect(
            uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
        return connection

    engine = create_engine("sqlite://", creator=connect, poolclass=StaticPool)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


def set_pragmas(connection: Connection, *pragmas: str) -> None:
    """Run pragmas outside of any transaction. Raises the driver's own errors."""
    # On the driver's own cursor: SQLAlchemy would begin a transaction first, and some pragmas need none open.
    cursor = connection.connection.cursor()
    for pragma in pragmas:
        cursor.execute(f"PRAGMA {pragma}").fetchall()
    cursor.close()


def check_schema(connection: Connection) -> None:
    """Return if the file holds the two tables as specified and nothing else. Raises ``IntegrityError`` otherwise."""
    version = connection.exec_driver_sql("PRAGMA user_version").scalar()
    if version != FORMAT_VERSION:
        raise IntegrityError(f"ledger file: expected format version {FORMAT_VERSION}")
    found = connection.exec_driver_sql("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name").all()
    if [tuple(row) for row in found] != [("table", name, name, sql) for name, sql in SCHEMA.items()]:
        raise IntegrityError("ledger file: expected the tables entries and head as specified, and nothing else")


def write_ahead_file(path: Path) -> Path:
    """Where SQLite keeps what is not yet in the ledger's own file."""
    return path.with_name(path.name + "-wal")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
