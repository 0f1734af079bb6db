"""Length-prefixed, versioned frames: what crosses a process boundary or lies in a file.

A frame is ``magic (4) || version (1) || kind (1) || length (4, big endian) || payload``. Kinds are numbered by
the protocol that owns the magic. Every reader states the longest payload it accepts.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from mibao.errors import InputError, IntegrityError

_HEADER = struct.Struct(">4sBBI")
HEADER_BYTES = _HEADER.size
MAX_PAYLOAD_BYTES = (1 << 32) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One message: which protocol (``magic``), its version, the kind of message, and its bytes."""

    magic: bytes
    version: int
    kind: int
    payload: bytes


def encode(frame: Frame) -> bytes:
    """Header and payload in one piece.

    Raises:
        InputError: the magic is not 4 bytes, a number does not fit one byte, or the payload 32 bits of length.
    """
    if len(frame.magic) != 4 or not 0 <= frame.version < 256 or not 0 <= frame.kind < 256:
        raise InputError("frame: expected a magic of 4 bytes and one byte each for version and kind")
    if len(frame.payload) > MAX_PAYLOAD_BYTES:
        raise InputError(f"frame: expected at most {MAX_PAYLOAD_BYTES} bytes, got {len(frame.payload)}")
    return _HEADER.pack(frame.magic, frame.version, frame.kind, len(frame.payload)) + frame.payload


def decode(data: bytes, *, magic: bytes, version: int, max_bytes: int) -> Frame:
    """The one frame that fills ``data``.

    Raises:
        IntegrityError: another magic or version, a payload over ``max_bytes``, bytes missing or left over.
    """
    frame, end = decode_from(data, 0, magic=magic, version=version, max_bytes=max_bytes)
    if end != len(data):
        raise IntegrityError(f"frame: {len(data) - end} bytes after the end")
    return frame


def view(data: bytes, *, magic: bytes, version: int, max_bytes: int) -> tuple[int, memoryview]:
    """Kind and payload of the one frame that fills ``data``, without a copy. Raises as :func:`decode`."""
    kind, begin, length = _read_header(data, 0, magic=magic, version=version, max_bytes=max_bytes)
    if begin + length != len(data):
        raise IntegrityError(f"frame: {len(data) - begin - length} bytes after the end")
    return kind, memoryview(data)[begin:]


def decode_from(data: bytes, start: int, *, magic: bytes, version: int, max_bytes: int) -> tuple[Frame, int]:
    """The frame that begins at ``start``, and where the next would begin. Raises as :func:`decode`."""
    kind, begin, length = _read_header(data, start, magic=magic, version=version, max_bytes=max_bytes)
    return Frame(magic=magic, version=version, kind=kind, payload=bytes(data[begin : begin + length])), begin + length


def _read_header(data: bytes, start: int, *, magic: bytes, version: int, max_bytes: int) -> tuple[int, int, int]:
    """The frame's kind, and where its payload begins and how long it is."""
    if len(data) - start < HEADER_BYTES:
        raise IntegrityError("frame: shorter than its header")
    found_magic, found_version, kind, length = _HEADER.unpack_from(data, start)
    if found_magic != magic:
        raise IntegrityError(f"frame: expected {magic!r} at its start")
    if found_version != version:
        raise IntegrityError(f"frame: expected version {version}, got {found_version}")
    if length > max_bytes:
        raise IntegrityError(f"frame: expected at most {max_bytes} bytes of payload, got {length}")
    begin = start + HEADER_BYTES
    if len(data) - begin < length:
        raise IntegrityError(f"frame: truncated, {length} bytes announced, {len(data) - begin} present")
    return kind, begin, length
