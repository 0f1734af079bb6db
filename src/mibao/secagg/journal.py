"""What a party must remember through a crash: the first thing recorded under a name is the only one, for ever.

A client records its message before it sends it, a member its transcript before it signs it. This module is an edge:
the one of ``secagg`` that writes files.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Protocol, runtime_checkable

from mibao.errors import InputError


@runtime_checkable
class Journal(Protocol):
    """Records that can be added and never changed."""

    def find(self, name: bytes) -> bytes | None:
        """What is recorded under ``name``."""
        ...

    def record(self, name: bytes, content: bytes) -> bytes:
        """Record ``content`` unless something is there, and return what is there now, once it would survive a crash."""
        ...


class MemoryJournal:
    """A journal that lives as long as its process: for simulations. A party that may restart needs a file."""

    def __init__(self) -> None:
        self._records: dict[bytes, bytes] = {}

    def find(self, name: bytes) -> bytes | None:
        """What is recorded under ``name``."""
        return self._records.get(name)

    def record(self, name: bytes, content: bytes) -> bytes:
        """Record ``content`` unless something is there, and return what is there now."""
        return self._records.setdefault(name, content)


class FileJournal:
    """A journal in a folder of its own, a file a record. Several processes may share it; the first to record wins.

    Raises:
        InputError: the folder cannot be made or written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"journal: cannot use {folder}: {error.strerror}") from error

    def find(self, name: bytes) -> bytes | None:
        """What is recorded under ``name``. Raises ``InputError`` when it cannot be read."""
        path = self._path(name)
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError(f"journal: cannot read {path}: {error.strerror}") from error

    def record(self, name: bytes, content: bytes) -> bytes:
        """Record ``content`` unless something is there, and return what is there now, on the disk.

        Raises:
            InputError: it cannot be written; then nothing must be sent.
        """
        path = self._path(name)
        draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
        try:
            _write(draft, content)
            try:
                # A link appears whole or not at all, and never over another record.
                os.link(draft, path)
            except FileExistsError:
                pass
            finally:
                draft.unlink()
            self._sync()
            return path.read_bytes()
        except OSError as error:
            raise InputError(f"journal: cannot write {path}: {error.strerror}") from error

    def _path(self, name: bytes) -> Path:
        return self._folder / hashlib.sha256(name).hexdigest()

    def _sync(self) -> None:
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _write(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
