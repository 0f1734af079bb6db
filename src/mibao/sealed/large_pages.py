"""Large pages for as long as the system has them at hand.

A large page costs a sixth of the small ones it replaces, unless a hypervisor has taken the free memory back: then each
costs milliseconds, while small pages come from memory that is still there. Only trying tells.
"""

from __future__ import annotations

import contextlib
import mmap
import time
from collections.abc import Callable

_SLOW_S = 0.003  # CPU time for one chunk: a page at hand takes a tenth of this, the chunk's ciphers as much again


def watched(out: memoryview, fill: Callable[[int], None]) -> Callable[[int], None]:
    """``fill``, which writes into ``out``; when it gets slow, the rest of ``out`` is left to small pages."""
    pages = out.obj
    if not isinstance(pages, mmap.mmap):
        return fill
    large = True

    def fill_and_watch(number: int) -> None:
        nonlocal large
        started = time.thread_time()
        fill(number)
        if large and time.thread_time() - started > _SLOW_S:
            large = False
            with contextlib.suppress(OSError):  # advice only
                pages.madvise(mmap.MADV_NOHUGEPAGE)

    return fill_and_watch
