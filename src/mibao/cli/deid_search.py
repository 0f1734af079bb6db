"""What a command searches with: the rules, the models of names unless the user leaves them out, the user's types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mibao.deid.custom import CustomTypes
    from mibao.deid.findings import Detector
    from mibao.deid.matching import Engine

_RULES_ONLY = "names are found after cue words only: --rules-only leaves out the models of names"


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """An engine and the detectors beside it; ``missing`` says in a line why names are not looked for, where so."""

    engine: Engine
    detectors: Sequence[Detector]
    missing: str | None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a summary says of the search."""
        return () if self.missing is None else (self.missing,)


def search_of(own: CustomTypes | None, *, rules_only: bool) -> Search:
    """The search that the options of a command ask for."""
    from mibao.deid.detection import default_engine, rules_engine

    missing = why_no_names(rules_only=rules_only)
    if own is None:
        return Search(engine=rules_engine() if rules_only else default_engine(), detectors=(), missing=missing)
    return Search(engine=own.rules_engine if rules_only else own.engine, detectors=own.detectors, missing=missing)


def why_no_names(*, rules_only: bool) -> str | None:
    """Why names without a cue word before them are not looked for; ``None`` if they are."""
    from mibao.deid.detection import names_are_missing

    return _RULES_ONLY if rules_only else names_are_missing()
