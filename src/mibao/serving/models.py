"""The names by which clients ask for models, and where each is asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mibao.serving.configuration import ModelSettings
from mibao.serving.faults import Withheld
from mibao.serving.upstreams import LONG_NUMBER, Upstream

NAME = "[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}"
_NAME = re.compile(NAME)
ADDRESS = re.compile(r"@[A-Za-z0-9.-]+\.[A-Za-z]{2,}")  # somebody's, where a model's version is @20240620 or @1.2


@dataclass(frozen=True, slots=True)
class Choice:
    """A model's name in the configuration, empty where it is none of it, and where to ask, in the order of trying."""

    name: str
    places: Sequence[tuple[str, Upstream]]


class Models:
    """What may be asked for: the configured models, or where there are none, any of the first upstream."""

    def __init__(self, settings: Sequence[ModelSettings], upstreams: Mapping[str, Upstream]) -> None:
        self._settings = {model.name: model for model in settings}
        self._upstreams = upstreams

    @property
    def first(self) -> Upstream:
        """The upstream that is asked where no model is configured."""
        return next(iter(self._upstreams.values()))

    def listed(self, allowed: frozenset[str] | None) -> dict[str, Any] | None:
        """The answer of ``/v1/models``; None where the upstream knows."""
        if not self._settings:
            return None
        names = [name for name in self._settings if allowed is None or name in allowed]
        models = [{"id": name, "object": "model", "created": 0, "owned_by": "mibao"} for name in names]
        return {"object": "list", "data": models}

    @staticmethod
    def allowed(told: Any, allowed: frozenset[str] | None) -> Any:
        """An upstream's list of models, those left out that the key may not ask for."""
        if allowed is None:
            return told
        listed = told.get("data") if isinstance(told, dict) else None
        kept = [each for each in listed or () if isinstance(each, dict) and each.get("id") in allowed]
        return {"object": "list", "data": kept}

    def chosen(self, model: object, allowed: frozenset[str] | None) -> Choice:
        """Where to ask for ``model``.

        Raises:
            Withheld: it is no name, there is no such model, or the key may not ask for it.
        """
        if not isinstance(model, str) or not _NAME.fullmatch(model):
            raise Withheld("expected a model's name", status=400, code="invalid_model")
        if allowed is not None and model not in allowed:
            raise Withheld("this key may not ask for this model", status=403, code="model_not_allowed")
        if self._settings:
            if model not in self._settings:
                raise Withheld("there is no such model", status=404, code="model_not_found")
            tried = [self._settings[name] for name in (model, *self._settings[model].fallbacks)]
            return Choice(model, [(each.model or each.name, self._upstreams[each.upstream]) for each in tried])
        if LONG_NUMBER.search(model) or ADDRESS.search(model):
            raise Withheld("expected a model's name", status=400, code="invalid_model")
        return Choice("", [(model, self.first)])
