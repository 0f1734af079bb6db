"""What a stretch of work cost this process: wall time, CPU time, page faults. Needs the standard library only."""

import mmap
import os
import resource
import time

WARM_BYTES = 3 << 30
_POPULATE_WRITE = 23  # MADV_POPULATE_WRITE, Linux 5.14


def warm_memory() -> None:
    """Touch 3 GiB of fresh memory and give them back, just before the work that is measured.

    Hypervisors take memory back that stood free for a second or two, and the next process to touch it waits for it,
    up to 2 s a GB here. Which side of a comparison that hits would be chance.
    """
    pages = mmap.mmap(-1, WARM_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    pages.madvise(mmap.MADV_HUGEPAGE)
    pages.madvise(_POPULATE_WRITE)
    pages.close()


class Cost:
    """Counts from the moment it is made."""

    def __init__(self) -> None:
        self._faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        self._cpu = os.times()
        self._started = time.perf_counter()

    def figures(self) -> dict[str, float]:
        """Seconds, CPU seconds of all threads in the program and in the kernel, and page faults, until now."""
        seconds = time.perf_counter() - self._started
        cpu = os.times()
        return {
            "seconds": seconds,
            "user_s": cpu.user - self._cpu.user,
            "system_s": cpu.system - self._cpu.system,
            "cpu_s": cpu.user - self._cpu.user + cpu.system - self._cpu.system,
            "faults": float(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - self._faults),
        }
