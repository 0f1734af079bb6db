"""What the demo's steps take from outside themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """A folder for the artefacts, entropy, a clock, and a compute host.

    ``compute_host(bundle, server_keys, request, answer)`` evaluates ``request`` and writes ``answer``, in a process
    of its own that is told those four paths and nothing else.
    """

    folder: Path
    randomness: Callable[[int], bytes]
    clock_s: Callable[[], float]
    compute_host: Callable[[Path, Path, Path, Path], None]

    def timed(self, work: Callable[[], object]) -> float:
        """Seconds that ``work`` took."""
        started = self.clock_s()
        work()
        return self.clock_s() - started
