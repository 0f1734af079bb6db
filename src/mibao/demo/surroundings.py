"""What the demo's steps take from outside themselves."""

from __future__ import annotations

import os
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

    def keep_secret(self, name: str, text: str) -> None:
        """Leave one line of text in the folder for its owner's eyes only."""
        descriptor = os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text + "\n")

    def timed(self, work: Callable[[], object]) -> float:
        """Seconds that ``work`` took."""
        started = self.clock_s()
        work()
        return self.clock_s() - started
