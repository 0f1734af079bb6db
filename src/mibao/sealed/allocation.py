"""A new file's room on the disk, claimed before it is written; and pages on their way there while the rest is made."""

from __future__ import annotations

import ctypes
import errno
import os
import sys

WINDOW_BYTES = 1 << 22
_SYNC_FILE_RANGE_WRITE = 2  # start, and wait for nothing
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)

_libc = ctypes.CDLL(None, use_errno=True)
_start = getattr(_libc, "sync_file_range", None) if sys.platform == "linux" else None
if _start is not None:
    _start.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
_allocate = getattr(_libc, "fallocate", None) if sys.platform == "linux" else None
if _allocate is not None:
    _allocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def reserved(descriptor: int, count: int) -> None:
    """Give a new file ``count`` bytes, which costs less than growing it and finds a full disk before the work.

    Where the file system cannot, nothing happens. ``os.posix_fallocate`` would then write every block instead.

    Raises:
        OSError: there is no room.
    """
    if _allocate is None or not count or _allocate(descriptor, 0, 0, count) == 0:
        return
    error = ctypes.get_errno()
    if error not in _UNSUPPORTED:
        raise OSError(error, os.strerror(error))


def started(descriptor: int, begin: int, end: int) -> None:
    """Start to write the windows of the file that were just left behind by writing ``[begin, end)``.

    It promises nothing: what must be durable still needs a sync, and errors come up there.
    """
    first, last = begin // WINDOW_BYTES, end // WINDOW_BYTES
    if _start is not None and first < last:
        _start(descriptor, first * WINDOW_BYTES, (last - first) * WINDOW_BYTES, _SYNC_FILE_RANGE_WRITE)
