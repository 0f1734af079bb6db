"""What a sealed file is read from and written to: bytes by their offset, wherever they lie."""

from __future__ import annotations

import threading
from typing import Protocol, runtime_checkable

from mibao.errors import IntegrityError


@runtime_checkable
class ByteSource(Protocol):
    """Bytes that can be read by their offset, from several threads at once."""

    @property
    def size(self) -> int:
        """How many bytes there are."""
        ...

    def read_into(self, offset: int, out: memoryview) -> None:
        """Fill ``out`` from ``offset`` on. Raises ``IntegrityError`` if the source ends before."""
        ...


@runtime_checkable
class ByteSink(Protocol):
    """Where bytes can be written by their offset, from several threads at once."""

    def reserve(self, count: int) -> None:
        """Announce that ``count`` bytes will be written, so that a place too small for them fails at once."""
        ...

    def write_at(self, offset: int, data: bytes | memoryview) -> None:
        """Write all of ``data`` at ``offset``."""
        ...


class MemorySource:
    """A source over bytes in memory."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._data = memoryview(data)

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return self._data.nbytes

    def read_into(self, offset: int, out: memoryview) -> None:
        """Fill ``out`` from ``offset`` on. Raises ``IntegrityError`` if the source ends before."""
        if offset + out.nbytes > self.size:
            raise IntegrityError("file: truncated")
        out[:] = self._data[offset : offset + out.nbytes]


class MemorySink:
    """A sink that keeps everything in memory; ``data`` is what was written, gaps zero."""

    __slots__ = ("_lock", "data")

    def __init__(self) -> None:
        self.data = bytearray()
        self._lock = threading.Lock()

    def reserve(self, count: int) -> None:
        """Nothing to announce: memory grows as it is written."""

    def write_at(self, offset: int, data: bytes | memoryview) -> None:
        """Write all of ``data`` at ``offset``."""
        end = offset + memoryview(data).nbytes
        with self._lock:
            self.data.extend(bytes(max(0, end - len(self.data))))
            self.data[offset:end] = data


def read(source: ByteSource, offset: int, count: int) -> bytes:
    """``count`` bytes from ``offset`` on, in memory of their own.

    Raises:
        IntegrityError: the source ends before.
    """
    if offset + count > source.size:  # before the memory is reserved
        raise IntegrityError("file: truncated")
    out = bytearray(count)
    source.read_into(offset, memoryview(out))
    return bytes(out)
