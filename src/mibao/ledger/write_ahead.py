"""Whether a write-ahead file holds finished appends that SQLite would drop without a word.

While a ledger is open, or after its writer was killed, its newest entries lie in the file beside it. SQLite replays
that file up to the first frame whose checksum fails: right after a crash, where what follows was never
acknowledged, and wrong after an alteration, where it quietly rolls the ledger back. The two differ in this: a
process that dies leaves no finished transaction behind the last good frame.

Source: SQLite, "WAL-mode File Format", sections 1 to 4 (https://www.sqlite.org/walformat.html).
"""

from __future__ import annotations

import struct

from mibao.errors import IntegrityError

_HEADER = struct.Struct(">8I")
_FRAME = struct.Struct(">6I")
_MAGIC_LITTLE, _MAGIC_BIG = 0x377F0682, 0x377F0683
_VERSION = 3_007_000
_PAGE_SIZES = [1 << power for power in range(9, 17)]
_WORD = 0xFFFF_FFFF


def lost_appends(wal: bytes) -> int:
    """How many finished transactions lie behind the frame at which SQLite will stop.

    None after a process has died. One after a power failure at worst, since the file is synced at every commit:
    that one was not acknowledged. More than one only when the file was changed by another hand.

    Raises:
        IntegrityError: the header is damaged, so that SQLite will replay nothing.
    """
    if len(wal) <= _HEADER.size:
        return 0
    magic, version, page_size, _, salt_1, salt_2, *expected = _HEADER.unpack_from(wal)
    words = struct.Struct(">2I" if magic == _MAGIC_BIG else "<2I")
    running = _checksum(wal[:24], (0, 0), words)
    known = magic in (_MAGIC_LITTLE, _MAGIC_BIG) and version == _VERSION and page_size in _PAGE_SIZES
    if not known or running != tuple(expected):
        raise IntegrityError("write-ahead file beside the ledger: its header is damaged")
    frame_size, stopped, lost = _FRAME.size + page_size, False, 0
    for start in range(_HEADER.size, len(wal) - frame_size + 1, frame_size):
        _, pages_after_commit, frame_salt_1, frame_salt_2, *expected = _FRAME.unpack_from(wal, start)
        if not stopped:
            covered = wal[start : start + 8] + wal[start + _FRAME.size : start + frame_size]
            running = _checksum(covered, running, words)
            stopped = (frame_salt_1, frame_salt_2) != (salt_1, salt_2) or running != tuple(expected)
        # Frames left over from before the file was last reused share neither salt with its header.
        current = frame_salt_1 == salt_1 or frame_salt_2 == salt_2
        lost += stopped and current and pages_after_commit > 0
    return lost


def _checksum(data: bytes, running: tuple[int, int], words: struct.Struct) -> tuple[int, int]:
    first, second = running
    for one, two in words.iter_unpack(data):
        first = first + one + second & _WORD
        second = second + two + first & _WORD
    return first, second
