"""Files read by offset, and written whole or not at all."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mibao.crypto import rng
from mibao.errors import InputError, IntegrityError
from mibao.sealed import allocation

StrPath = str | os.PathLike[str]
PUBLIC_MODE = 0o666  # as the user's umask has it
SECRET_MODE = 0o600
_PARTIAL = ".mibao-partial"


class FileSource:
    """An open file, read by offset; every call reads the file afresh."""

    __slots__ = ("_descriptor", "size")
    size: int

    def __init__(self, path: Path) -> None:
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from error
        if not path.is_file():
            self.close()
            raise InputError(f"{path}: expected a file")
        self.size = os.fstat(self._descriptor).st_size

    def read_into(self, offset: int, out: memoryview) -> None:
        """Fill ``out`` from ``offset`` on. Raises ``IntegrityError`` if the file ends before."""
        done = 0
        while done < out.nbytes:
            count = os.preadv(self._descriptor, [out[done:]], offset + done)
            if count == 0:
                raise IntegrityError("file: truncated")
            done += count

    def close(self) -> None:
        """Give the file back."""
        os.close(self._descriptor)

    def __enter__(self) -> FileSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class FileSink:
    """An open file, written by offset."""

    __slots__ = ("descriptor",)

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def reserve(self, count: int) -> None:
        """Claim ``count`` bytes of the disk for a new file. Raises ``OSError`` if it has no room for them."""
        allocation.reserved(self.descriptor, count)

    def write_at(self, offset: int, data: bytes | memoryview) -> None:
        """Write all of ``data`` at ``offset``."""
        view, end = memoryview(data), offset
        while view.nbytes:
            count = os.pwrite(self.descriptor, view, end)
            view, end = view[count:], end + count
        allocation.started(self.descriptor, offset, end)

    def sync(self) -> None:
        """Return once everything written is durable."""
        os.fdatasync(self.descriptor)


@contextmanager
def whole_file(path: Path, *, mode: int) -> Iterator[FileSink]:
    """A sink whose bytes stand at ``path`` once the block ends well; if it does not, nothing does.

    What a killed run for the same path left behind is removed.

    Raises:
        InputError: the file cannot be written there.
    """
    try:
        _remove_stale(path)
        temporary, descriptor = _claimed_file(path, mode)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    try:
        yield FileSink(descriptor)
        os.fsync(descriptor)
        temporary.replace(path)
    except OSError as error:
        _discard(descriptor, temporary)
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    except BaseException:
        _discard(descriptor, temporary)
        raise
    finally:
        os.close(descriptor)
    sync_folder(path.parent)


@contextmanager
def locked(path: Path) -> Iterator[FileSink]:
    """A sink over an existing file, no other writer beside.

    Raises:
        InputError: the file cannot be written to.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise InputError(f"{path}: cannot be changed ({error.strerror})") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield FileSink(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder that stands at ``path`` once the block ends well; if it does not, nothing does.

    What a killed run for the same path left behind is removed.

    Raises:
        InputError: something stands there already, or it cannot be made.
    """
    if path.exists():
        raise InputError(f"{path}: already exists")
    try:
        _remove_stale(path)
        temporary, descriptor = _claimed_folder(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    try:
        yield temporary
        temporary.rename(path)
    except OSError as error:
        _discard_folder(temporary)
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    except BaseException:
        _discard_folder(temporary)
        raise
    finally:
        os.close(descriptor)
    sync_folder(path.parent)


@contextmanager
def file_within(path: Path, *, mode: int) -> Iterator[FileSink]:
    """A sink over a new file in a folder of :func:`whole_folder`, with which it appears or does not."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        yield FileSink(descriptor)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make names in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _name_start(path: Path) -> str:
    return f".{os.fsdecode(os.fsencode(path.name)[:200])}."  # a name has at most 255 bytes


def _temporary(path: Path) -> Path:
    return path.with_name(f"{_name_start(path)}{rng.random_bytes(8).hex()}{_PARTIAL}")


def _claimed_file(path: Path, mode: int) -> tuple[Path, int]:
    """A new file to write what shall stand at ``path``, locked for as long as its descriptor is open."""
    while True:
        temporary = _temporary(path)
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        if _is_claimed(temporary, descriptor):
            return temporary, descriptor
        os.close(descriptor)


def _claimed_folder(path: Path) -> tuple[Path, int]:
    """A new folder likewise."""
    while True:
        temporary = _temporary(path)
        temporary.mkdir(mode=0o700)
        try:
            descriptor = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        if _is_claimed(temporary, descriptor):
            return temporary, descriptor
        os.close(descriptor)


def _is_claimed(temporary: Path, descriptor: int) -> bool:
    """Whether it is ours: another run may have taken it for stale before it was locked."""
    with suppress(OSError):  # a file system without locks: nobody takes it for stale there
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    return temporary.exists()


def _remove_stale(path: Path) -> None:
    """Remove what runs that died while they wrote ``path`` left beside it; their locks went with them."""
    stale = re.compile(re.escape(_name_start(path)) + "[0-9a-f]{16}" + re.escape(_PARTIAL))
    for found in path.parent.iterdir():
        if not stale.fullmatch(found.name):
            continue
        with suppress(OSError):  # still being written, just gone, or not ours to remove
            descriptor = os.open(found, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if found.is_dir():
                    _discard_folder(found)
                else:
                    found.unlink()
            finally:
                os.close(descriptor)


def _discard(descriptor: int, temporary: Path) -> None:
    os.ftruncate(descriptor, 0)
    temporary.unlink(missing_ok=True)


def _discard_folder(temporary: Path) -> None:
    for folder, _, names in os.walk(temporary, topdown=False):
        for name in names:
            (Path(folder) / name).unlink()
        Path(folder).rmdir()
