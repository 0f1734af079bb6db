"""Work on chunks spread over a few threads: ciphers and hashes run without the interpreter's lock."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeAlias

SMALL_BYTES = 1 << 20
MAX_THREADS = 8


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
    """Do every number in ``counters``, each thread a run of neighbours with a ``worker`` and its buffers of its own.

    When one fails, the others stop soon after, and the error of the earliest run is raised once all threads have
    ended: nothing is written after this returns.
    """
    stop = threading.Event()

    def run(own: range) -> None:
        work = worker()
        for counter in own:
            if stop.is_set():
                return
            try:
                work(counter)
            except BaseException:
                stop.set()
                raise

    if threads == 1 or len(counters) <= 1:
        run(counters)
        return
    bounds = [len(counters) * each // threads for each in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(run, counters[a:b]) for a, b in pairwise(bounds)]
    for future in futures:
        future.result()
