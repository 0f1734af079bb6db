"""A vault's file: one SQLite database whose rows are sealed one by one, written by any number of processes in turn.

Each row is found by a keyed hash of what it is about and holds AES-256-GCM over what it says, with the scope and the
surrogate as associated data: a row that was altered, or put in another's place, does not open. One head row holds how
many there are, sealed as well, so that a row cannot be taken away unnoticed. ``docs/spec/vault.md`` fixes the format.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mibao.crypto.aead import NONCE_BYTES, TAG_BYTES, AesGcm
from mibao.crypto.kdf import derive, domain_tag, keyed_hash
from mibao.crypto.rng import random_bytes
from mibao.errors import InputError, IntegrityError, KeyMismatch
from mibao.types import KeyedHash

APPLICATION_ID = 0x6D62_7674  # "mbvt"
FORMAT_VERSION = 1
SALT_BYTES = 32
BUSY_TIMEOUT_S = 30.0
MAX_VALUE_BYTES = 1 << 24
SCHEMA = {
    "head": (
        "CREATE TABLE head (id INTEGER PRIMARY KEY CHECK (id = 0), scope BLOB NOT NULL, salt BLOB NOT NULL, "
        "counts BLOB NOT NULL) STRICT"
    ),
    "rows": "CREATE TABLE rows (tag BLOB PRIMARY KEY, sealed BLOB NOT NULL) STRICT, WITHOUT ROWID",
}
_MAGIC = b"SQLite format 3\x00"
_NUMBER_BYTES = 8


class VaultFile:
    """The rows of one vault, opened. Not for several threads at once; :class:`mibao.deid.vault.Vault` sees to that."""

    def __init__(self, connection: sqlite3.Connection, *, scope: KeyedHash, scope_key: bytes) -> None:
        self._connection, self._scope = connection, scope
        self._pending: dict[bytes, bytes] = {}
        self._added = 0
        with storage_errors():
            connection.execute("BEGIN")
            head = connection.execute("SELECT scope, salt FROM head WHERE id = 0").fetchone()
            if head is None or len(head[1]) != SALT_BYTES:
                raise IntegrityError("vault: its head is missing or malformed")
            if head[0] != scope.value:
                raise KeyMismatch("vault: sealed for another key or another scope")
            self._cipher, self._tag_key = _keys(scope_key, head[1])
            self._rows, self._placeholders = self._counts()
            (found,) = connection.execute("SELECT count(*) FROM rows").fetchone()
            connection.execute("ROLLBACK")
        if found != self._rows:
            raise IntegrityError(f"vault: expected {self._rows} rows as its head says, got {found}")

    @classmethod
    def open(cls, path: Path, *, scope: KeyedHash, scope_key: bytes) -> VaultFile:
        """The vault at ``path``, made where there is none, readable by its owner only.

        Raises:
            InputError: it cannot be read or written, or is no vault.
            KeyMismatch: it belongs to another key or another scope.
            IntegrityError: it was changed, as far as its head tells.
        """
        if not os.path.lexists(path):
            _create(path, scope=scope, scope_key=scope_key)
        with storage_errors():
            connection = _connected(_located(path))
        try:
            with storage_errors():
                _prepare(connection)
            return cls(connection, scope=scope, scope_key=scope_key)
        except BaseException:
            connection.close()
            raise

    def __len__(self) -> int:
        return self._placeholders

    def get(self, kind: str, *about: bytes) -> bytes | None:
        """What the row of this kind about ``about`` says; None where there is none.

        Raises:
            IntegrityError: the row was altered.
        """
        tag = self._tag(kind, about)
        sealed = self._pending.get(tag)
        if sealed is None:
            with storage_errors():
                found = self._connection.execute("SELECT sealed FROM rows WHERE tag = ?", (tag,)).fetchone()
            if found is None:
                return None
            (sealed,) = found
        return self._opened(sealed, _about("deid/vault-row", self._scope, kind.encode(), *about), "a row of it")

    def put(self, kind: str, *about: bytes, says: bytes) -> None:
        """Add a row; it is on the disk when the transaction ends. Only inside of one."""
        if len(says) > MAX_VALUE_BYTES // 2:
            raise InputError(f"vault: expected values of at most {MAX_VALUE_BYTES // 2} bytes, got {len(says)}")
        sealed = self._sealed(says, _about("deid/vault-row", self._scope, kind.encode(), *about))
        self._pending[self._tag(kind, about)] = sealed
        self._added += kind == "placeholder"

    def begin(self) -> None:
        """Take the write lock: until the end of the transaction no other process adds a row."""
        if self._connection.in_transaction:
            return
        with storage_errors():
            self._connection.execute("BEGIN IMMEDIATE")
            rows, placeholders = self._counts()
        if rows < self._rows:
            self.roll_back()
            raise IntegrityError("vault: rolled back or replaced while it was open")
        self._rows, self._placeholders = rows, placeholders

    def commit(self) -> None:
        """End the transaction: everything that was put is on the disk when this returns."""
        if not self._connection.in_transaction:
            return
        rows, placeholders = self._rows + len(self._pending), self._placeholders + self._added
        with storage_errors():
            if self._pending:
                self._connection.executemany("INSERT INTO rows VALUES (?, ?)", self._pending.items())
                counts = self._sealed_counts(rows, placeholders)
                self._connection.execute("UPDATE head SET counts = ? WHERE id = 0", (counts,))
            self._connection.execute("COMMIT")
        self._rows, self._placeholders = rows, placeholders
        self._pending, self._added = {}, 0

    def roll_back(self) -> None:
        """End the transaction: nothing of it stays."""
        self._pending, self._added = {}, 0
        if self._connection.in_transaction:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")

    def close(self) -> None:
        """Write everything back into the one file and let go of it. What was committed is safe without this."""
        with suppress(sqlite3.Error):
            self._connection.execute("PRAGMA busy_timeout=2000")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self._connection.close()

    def _tag(self, kind: str, about: tuple[bytes, ...]) -> bytes:
        message = domain_tag("deid/vault-tag", kind.encode(), *about)
        return keyed_hash(self._tag_key, purpose="deid/vault-tag", message=message).value

    def _sealed(self, plain: bytes, about: bytes) -> bytes:
        nonce = random_bytes(NONCE_BYTES)
        return nonce + self._cipher.seal(nonce, plain, about)

    def _opened(self, sealed: object, about: bytes, part: str) -> bytes:
        if not isinstance(sealed, bytes) or len(sealed) < NONCE_BYTES + TAG_BYTES:
            raise IntegrityError(f"vault: {part} was altered")
        try:
            return self._cipher.open(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], about)
        except IntegrityError as error:
            raise IntegrityError(f"vault: {part} was altered") from error

    def _sealed_counts(self, rows: int, placeholders: int) -> bytes:
        plain = b"".join(number.to_bytes(_NUMBER_BYTES, "big") for number in (rows, placeholders))
        return self._sealed(plain, _about("deid/vault-head", self._scope))

    def _counts(self) -> tuple[int, int]:
        head = self._connection.execute("SELECT counts FROM head WHERE id = 0").fetchone() or (None,)
        plain = self._opened(head[0], _about("deid/vault-head", self._scope), "its head")
        return int.from_bytes(plain[:_NUMBER_BYTES], "big"), int.from_bytes(plain[_NUMBER_BYTES:], "big")


def _about(purpose: str, scope: KeyedHash, *parts: bytes) -> bytes:
    return domain_tag(purpose, bytes([FORMAT_VERSION]), scope.value, *parts)


def _keys(scope_key: bytes, salt: bytes) -> tuple[AesGcm, bytes]:
    cipher = AesGcm(derive(scope_key, purpose="deid/vault-file", salt=salt))
    return cipher, derive(scope_key, purpose="deid/vault-tags", salt=salt)


def _create(path: Path, *, scope: KeyedHash, scope_key: bytes) -> None:
    """An empty vault at ``path``, whole or not at all; one that another process has just made there stays."""
    if os.path.lexists(path.with_name(f"{path.name}-wal")):
        raise InputError(f"vault: expected no file {path.name}-wal beside a new vault")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        _write_empty(temporary, scope=scope, scope_key=scope_key)
        with suppress(FileExistsError):
            os.link(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise InputError(f"vault: cannot write {path}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _write_empty(path: Path, *, scope: KeyedHash, scope_key: bytes) -> None:
    salt = random_bytes(SALT_BYTES)
    cipher, _ = _keys(scope_key, salt)
    nonce = random_bytes(NONCE_BYTES)
    counts = nonce + cipher.seal(nonce, bytes(2 * _NUMBER_BYTES), _about("deid/vault-head", scope))
    with storage_errors():
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            for pragma in (f"application_id={APPLICATION_ID}", f"user_version={FORMAT_VERSION}", "journal_mode=WAL"):
                connection.execute(f"PRAGMA {pragma}").fetchall()
            connection.execute("PRAGMA synchronous=FULL")
            for statement in SCHEMA.values():
                connection.execute(statement)
            connection.execute("INSERT INTO head VALUES (0, ?, ?, ?)", (scope.value, salt, counts))
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            connection.close()


def _located(path: Path) -> Path:
    """Where the vault really lies: SQLite keeps its other files beside that place."""
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InputError(f"vault: cannot read {path}: not a regular file")
            header = file.read(100)
    except OSError as error:
        raise InputError(f"vault: cannot read {path}: {error.strerror}") from error
    if not header.startswith(_MAGIC) or header[68:72] != APPLICATION_ID.to_bytes(4, "big"):
        raise InputError(f"{path}: not a vault of mibao")
    real = path.resolve(strict=True)
    if os.path.lexists(real.with_name(f"{real.name}-journal")):
        raise IntegrityError(f"rollback journal beside the vault: {real.name}-journal could undo rows")
    return real


def _open_at_once(path: str, flags: int) -> int:
    """Open a FIFO without waiting for its writer."""
    return os.open(path, flags | os.O_NONBLOCK)


def _connected(path: Path) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode=rw"
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    """Settings of every connection, once it is clear that the file holds the two tables and nothing else."""
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "trusted_schema=OFF", "cell_size_check=ON"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    if connection.execute("PRAGMA user_version").fetchone() != (FORMAT_VERSION,):
        raise IntegrityError(f"vault: expected format version {FORMAT_VERSION}")
    found = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name").fetchall()
    if found != [("table", name, name, sql) for name, sql in SCHEMA.items()]:
        raise IntegrityError("vault: expected the tables head and rows as specified, and nothing else")


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turn what SQLite reports into an error of ours: damage, or a reason outside of the file."""
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the last: a damaged name in SQLite's message
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        outside = {
            sqlite3.SQLITE_BUSY: f"another process has held its lock for {BUSY_TIMEOUT_S:.0f} s",
            sqlite3.SQLITE_READONLY: "it is read-only",
            sqlite3.SQLITE_PERM: "no permission",
            sqlite3.SQLITE_CANTOPEN: "SQLite cannot open it or the files beside it",
            sqlite3.SQLITE_FULL: "the disk is full",
            sqlite3.SQLITE_IOERR: "the disk does not answer",
        }
        if code in outside:
            raise InputError(f"vault: {outside[code]}") from error
        raise IntegrityError("vault: it cannot be read, the file is damaged") from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
