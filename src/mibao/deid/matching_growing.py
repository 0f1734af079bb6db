"""The engine that starts at once and is fast in the long run.

Compiling all gates takes Hyperscan longer than ``re`` takes for a page, so the first pages go to ``re``. Both give the
same candidates.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from threading import Lock

from mibao.deid.kinds import Rule
from mibao.deid.matching import Candidate, Engine
from mibao.deid.matching_re import ReEngine

PATIENCE = 1 << 17  # characters


class GrowingEngine:
    """Python's ``re`` for the first :data:`PATIENCE` characters or so, Hyperscan from then on."""

    __slots__ = ("_engine", "_lock", "_seen", "rules")

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = rules
        self._engine: Engine = ReEngine(rules)
        self._lock = Lock()
        self._seen = 0

    def candidates(self, text: str) -> list[Candidate]:
        """As :meth:`mibao.deid.matching.Engine.candidates`."""
        self._seen += len(text)
        if self._seen > PATIENCE and isinstance(self._engine, ReEngine):
            self._grow()
        return self._engine.candidates(text)

    def _grow(self) -> None:
        from mibao.deid.matching_hyperscan import HyperscanEngine  # noqa: PLC0415

        with self._lock:
            if isinstance(self._engine, ReEngine):
                self._engine = HyperscanEngine(self.rules)
                _trim()


def _trim() -> None:
    """Give back what compiling took, 40 MB; glibc keeps it otherwise, for a need that does not come again."""
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)
