"""The gateway's state in one SQLite file, or in PostgreSQL where several workers or hosts share it.

    >>> with Store.open("gateway.db") as store, store.writing() as connection:
    ...     connection.execute(...)

What lies in it tells who asked how often, and never what: keys as hashes, counts, and values only under seal. The
tables are those of :mod:`mibao.serving.migrations`, which every opening brings up to date.

Source: SQLite, "Write-Ahead Logging" (https://www.sqlite.org/wal.html); PostgreSQL, "Explicit Locking".
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from mibao.errors import InputError, IntegrityError, MissingExtra
from mibao.serving import migrations

APPLICATION_ID = 0x6D62_6777  # "mbgw"
BUSY_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 5
STATEMENT_TIMEOUT_MS = 10_000
MAX_CONNECTIONS = 8
# A server whose machine is gone is noticed within seconds: libpq, "Parameter Key Words".
_LOST_SOON = {
    "connect_timeout": CONNECT_TIMEOUT_S,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
_READS = "mibao_reads"
_SOFT = "mibao_soft"


class Unavailable(InputError):
    """The store does not answer: nothing was decided and nothing was written down."""


class Store:
    """A database opened by one process. Threads may share it; each transaction has a connection of its own."""

    def __init__(self, engine: Engine, *, shown: str) -> None:
        self._engine = engine
        self.shown = shown

    @classmethod
    def open(cls, place: str | Path) -> Store:
        """The store at ``place``, made if it is not there, its tables brought up to date.

        Args:
            place: A file for SQLite, or ``postgresql://user@host:port/database?sslmode=verify-full``. A password is
                best left to ``PGPASSWORD`` or a password file (libpq's ``PGPASSFILE``).

        Raises:
            InputError: the file is another's, may be read by others, or was made by a newer mibao; the address is
                not one.
            Unavailable: the database does not answer.
            MissingExtra: PostgreSQL without psycopg.
            IntegrityError: the file is damaged.
        """
        text = str(place)
        engine = _open_postgresql(text) if "://" in text else _open_sqlite(Path(text))
        store = cls(engine, shown=_shown(text))
        try:
            with store.writing() as connection:
                migrations.upgrade(connection)
        except BaseException:
            store.close()
            raise
        return store

    @property
    def is_postgresql(self) -> bool:
        """Whether other hosts can share it."""
        return bool(self._engine.dialect.name == "postgresql")

    @contextmanager
    def writing(self, *, durable: bool = True, on: Connection | None = None) -> Iterator[Connection]:
        """A transaction that is committed at the end and undone when something is raised.

        Args:
            on: One of :meth:`connection` to write on; a moment's own when left out.
            durable: It outlasts a power failure. Without, it outlasts the death of any process and may be lost with
                the machine, in SQLite only: PostgreSQL's are durable.

        Raises:
            Unavailable: the database does not answer, or is held by another for :data:`BUSY_TIMEOUT_S`.
            IntegrityError: it is damaged.
        """
        with self._errors(), nullcontext(on) if on is not None else self._engine.connect() as connection:
            connection.execution_options(**{_SOFT: not durable})
            with connection.begin():
                yield connection

    def connection(self) -> Connection:
        """A connection for one thread to keep; it is the caller's to close. Raises as :meth:`writing`."""
        with self._errors():
            return self._engine.connect()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that only reads. Raises as :meth:`writing`."""
        with self._errors(), self._engine.connect() as plain:
            connection = plain.execution_options(**{_READS: True})
            with connection.begin():
                yield connection

    def close(self) -> None:
        """Let go of every connection."""
        self._engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            raise _reason(error, self.shown) from None  # the cause names statements and what was put into them


def _reason(error: SQLAlchemyError, shown: str) -> InputError | IntegrityError:
    original = getattr(error, "orig", None)
    code = getattr(original, "sqlite_errorcode", 0) & 0xFF
    outside = {
        sqlite3.SQLITE_BUSY: f"another process has held it for {BUSY_TIMEOUT_S:.0f} s",
        sqlite3.SQLITE_READONLY: "it is read-only",
        sqlite3.SQLITE_CANTOPEN: "SQLite cannot open it or the files beside it",
        sqlite3.SQLITE_FULL: "the disk is full",
        sqlite3.SQLITE_IOERR: "the disk does not answer",
    }
    if code in outside:
        return Unavailable(f"store {shown}: {outside[code]}")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return IntegrityError(f"store {shown}: the file is damaged, or none of mibao's")
    state = getattr(original, "sqlstate", None)
    name = type(original or error).__name__
    if isinstance(error, DBAPIError) and (error.connection_invalidated or state is None):
        return Unavailable(f"store {shown}: the database does not answer ({name})")
    return Unavailable(f"store {shown}: the database refused ({name}, {state})")


def _shown(place: str) -> str:
    """The place as it may stand in a message: without a password."""
    if "://" not in place:
        return place
    url = make_url(place)
    return f"postgresql://{url.host or ''}{f':{url.port}' if url.port else ''}/{url.database or ''}"


def _open_postgresql(place: str) -> Engine:
    try:
        url = make_url(place)
    except ArgumentError:
        raise InputError("store: expected a file or postgresql://user@host:port/database") from None
    if url.drivername not in ("postgresql", "postgres"):
        raise InputError(f"store: expected a file or a postgresql:// address, got one of {url.drivername}")
    try:
        import psycopg  # noqa: F401, PLC0415 - asked for only where it is
    except ImportError as error:
        raise MissingExtra("state in PostgreSQL", extra="serving") from error
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args={**_LOST_SOON, "application_name": "mibao", "prepare_threshold": 1},
        isolation_level="READ COMMITTED",  # what is read after a lock must be what was there when it was had
        pool_size=MAX_CONNECTIONS,
        max_overflow=0,
        pool_pre_ping=True,
        hide_parameters=True,
    )
    event.listen(engine, "connect", _limit_time)
    return engine


def _limit_time(connection: Any, _: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SET statement_timeout = {STATEMENT_TIMEOUT_MS}")
    connection.commit()


def _open_sqlite(path: Path) -> Engine:
    _make_or_check(path)

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,  # the driver begins no transaction of its own, the listener below does
            check_same_thread=False,
        )
        _write_ahead(connection)
        for pragma in ("synchronous=FULL", "trusted_schema=OFF", "cell_size_check=ON"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        return connection

    engine = create_engine(
        "sqlite://",
        creator=connect,
        poolclass=QueuePool,
        pool_size=MAX_CONNECTIONS,
        max_overflow=0,
        hide_parameters=True,
    )
    event.listen(engine, "begin", _begin_sqlite)
    try:
        with engine.begin() as connection:
            _claim(connection, path)
    except SQLAlchemyError as error:
        engine.dispose()
        raise _reason(error, str(path)) from None
    except InputError:
        engine.dispose()
        raise
    return engine


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch to a write-ahead log, asking again where others switch as well: SQLite does not wait for them itself."""
    until_s = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").fetchall()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until_s:
                raise
            time.sleep(0.01)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    options = connection.get_execution_options()
    cursor: Any = connection.connection.cursor()
    if options.get(_READS):
        cursor.execute("BEGIN")
    else:
        cursor.execute("PRAGMA synchronous=NORMAL" if options.get(_SOFT) else "PRAGMA synchronous=FULL")
        cursor.execute("BEGIN IMMEDIATE")
    cursor.close()


def _claim(connection: Connection, path: Path) -> None:
    found = connection.exec_driver_sql("PRAGMA application_id").scalar()
    if found == 0 and connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar() == 0:
        connection.exec_driver_sql(f"PRAGMA application_id={APPLICATION_ID}")
    elif found != APPLICATION_ID:
        raise InputError(f"{path}: expected a gateway's store, got another SQLite file")


def _make_or_check(path: Path) -> None:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path}: expected a file") from None
        if status.st_mode & 0o077:
            raise InputError(f"{path}: others may read it; expected a file for its owner alone (chmod 600)") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror})") from error
