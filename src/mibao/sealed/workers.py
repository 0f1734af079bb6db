"""Work on chunks spread over a few threads: ciphers and hashes run without the interpreter's lock."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

SMALL_BYTES = 1 << 20
MAX_THREADS = 8
NEIGHBOURS = 2  # chunks of 1 MiB, so that a large page of fresh memory mostly belongs to one thread


Progress: TypeAlias = Callable[[int], None]
"""Called with the bytes just done, from any thread."""


def silent(done_bytes: int) -> None:
    """Report progress to nobody."""


def thread_count(total_bytes: int) -> int:
    """How many threads pay for this many bytes."""
    if total_bytes <= SMALL_BYTES:
        return 1
    return min(MAX_THREADS, len(os.sched_getaffinity(0)))


def over(counters: range, worker: Callable[[], Callable[[int], None]], *, threads: int) -> None:
    """Do every number in ``counters``, a few neighbours at a time, each thread with a ``worker`` and its buffers.

    When one fails, the others stop soon after, and the error of one that failed is raised once all threads have
    ended: nothing is written after this returns.
    """
    stop = threading.Event()
    starts = iter(range(0, len(counters), NEIGHBOURS))

    def run() -> None:
        work = worker()
        for start in starts:  # shared: whoever is free takes what comes next, so that no thread waits for a slow one
            for counter in counters[start : start + NEIGHBOURS]:
                if stop.is_set():
                    return
                try:
                    work(counter)
                except BaseException:
                    stop.set()
                    raise

    if threads == 1 or len(counters) <= NEIGHBOURS:
        run()
        return
    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(run) for _ in range(threads)]
    for future in futures:
        future.result()
