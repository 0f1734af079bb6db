"""The engine that also finds names: that of the rules and the models of names, asked together."""

from __future__ import annotations

from collections.abc import Sequence

from mibao.deid.kinds import Rule
from mibao.deid.matching import Candidate, Engine
from mibao.deid.names_model import NamesModel


class NamesEngine:
    """What ``engine`` finds and the pieces of names that ``model`` finds.

    A model that fails raises: a text that could not be searched for names counts as not searched.
    """

    __slots__ = ("_engine", "_model", "rules")

    def __init__(self, engine: Engine, model: NamesModel) -> None:
        self._engine, self._model = engine, model
        self.rules: Sequence[Rule] = engine.rules

    def candidates(self, text: str) -> list[Candidate]:
        """As :meth:`mibao.deid.matching.Engine.candidates`."""
        found = self._engine.candidates(text)
        found += (
            Candidate(piece.start, piece.end, piece.score, piece.entity, why, rest=piece.rest, splits=True)
            for piece, why in self._model.pieces(text)
        )
        return found
