"""Start writing a file's pages to disk while the rest of it is still being made, so that the last sync finds little."""

from __future__ import annotations

import ctypes
import sys

WINDOW_BYTES = 1 << 22
_SYNC_FILE_RANGE_WRITE = 2  # start, and wait for nothing

_start = getattr(ctypes.CDLL(None), "sync_file_range", None) if sys.platform == "linux" else None
if _start is not None:
    _start.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def started(descriptor: int, begin: int, end: int) -> None:
    """Start to write the windows of the file that were just left behind by writing ``[begin, end)``.

    It promises nothing: what must be durable still needs a sync, and errors come up there.
    """
    first, last = begin // WINDOW_BYTES, end // WINDOW_BYTES
    if _start is not None and first < last:
        _start(descriptor, first * WINDOW_BYTES, (last - first) * WINDOW_BYTES, _SYNC_FILE_RANGE_WRITE)
