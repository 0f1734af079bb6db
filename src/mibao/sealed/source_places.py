"""Where a sealed model lies: a file, an ``https://`` or ``s3://`` address, or a source that the caller made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

from mibao.errors import InputError
from mibao.sealed.files import FileSource, StrPath
from mibao.sealed.source import ByteSource

ModelPlace: TypeAlias = StrPath | ByteSource
"""A path, an address, or a source of the caller's own, which stays the caller's to close."""


@runtime_checkable
class ClosingSource(ByteSource, Protocol):
    """A source that holds something open."""

    def close(self) -> None:
        """Give it back."""
        ...


class BorrowedSource:
    """A source that its maker closes."""

    __slots__ = ("_source", "read_into")

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self.read_into = source.read_into

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return self._source.size

    def close(self) -> None:
        """Nothing."""


def open_place(place: ModelPlace) -> ClosingSource:
    """The bytes at ``place``.

    Raises:
        InputError: nothing is there, or an address without TLS.
        ProtocolError: the server cannot be reached or does not answer ranges.
    """
    if isinstance(place, ByteSource):
        return BorrowedSource(place)
    text = str(place)
    if text.startswith("https://"):
        from mibao.sealed.source_https import HttpsSource  # noqa: PLC0415 - files need no web client

        return HttpsSource(text)
    if text.startswith("s3://"):
        from mibao.sealed.source_s3 import S3Source  # noqa: PLC0415

        return S3Source(text)
    if text.startswith("http://"):
        raise InputError("source: http:// is refused, anybody on the way could keep back a newer version; use https://")
    return FileSource(Path(place))


@contextmanager
def opened_place(place: ModelPlace) -> Iterator[ClosingSource]:
    """:func:`open_place`, closed at the end of the block."""
    source = open_place(place)
    try:
        yield source
    finally:
        source.close()
