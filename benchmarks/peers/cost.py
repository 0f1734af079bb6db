"""What a stretch of work cost this process: wall time, CPU time, page faults. Needs the standard library only."""

import os
import resource
import time


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
