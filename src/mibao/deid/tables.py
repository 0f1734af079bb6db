"""Tables changed by a policy: column by column where a column is of one type, cell by cell where it holds text."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mibao.deid.columns import Column, infer
from mibao.deid.findings import Detector
from mibao.deid.matching import Engine
from mibao.deid.operations import Operator
from mibao.deid.policies import Keep, Pseudonym
from mibao.deid.streaming import Masker
from mibao.errors import InputError
from mibao.types import AnyType, EntityType

SAMPLE_ROWS = 200
_REMEMBERED = 50_000


@dataclass(slots=True)
class Changes:
    """What was done to a table so far."""

    found: Counter[AnyType]
    rows: int = 0
    replaced: int = 0


class TableMasker:
    """Changes the cells of one table. Values that repeat are looked at once, as long as they are few.

    Args:
        sample: For each column, values from its beginning, by which its type is inferred.
        engine: What searches; ``detectors``: others to ask as well.
    """

    __slots__ = ("_detectors", "_engine", "_known", "_operator", "changes", "columns")

    def __init__(
        self,
        operator: Operator,
        sample: Mapping[str, Sequence[str]],
        *,
        engine: Engine,
        detectors: Sequence[Detector] = (),
    ) -> None:
        self._operator, self._engine, self._detectors = operator, engine, detectors
        self.columns: dict[str, Column] = {
            name: infer(
                name, [value for value in values if value.strip()][:SAMPLE_ROWS], engine=engine, detectors=detectors
            )
            for name, values in sample.items()
        }
        self._known: dict[str, dict[str, tuple[str, Mapping[AnyType, int]]]] = {}
        self.changes = Changes(found=Counter())

    def cell(self, name: str, written: str) -> str:
        """What stands in column ``name`` where ``written`` stood."""
        return self.column(name, [written])[0] or ""

    def column(self, name: str, values: Sequence[str | None]) -> list[str | None]:
        """A whole column; nothing stays nothing."""
        known = self._known.setdefault(name, {})
        if len(known) > _REMEMBERED:
            known.clear()
        fresh = list(dict.fromkeys(value for value in values if value and value.strip() and value not in known))
        with self._operator.batch():
            known.update(zip(fresh, self._changed(name, fresh), strict=True))
        out: list[str | None] = []
        for value in values:
            if not value or not value.strip():
                out.append(value)
                continue
            after, found = known[value]
            self.changes.found.update(found)
            out.append(after)
        return out

    def is_text(self, name: str) -> bool:
        """Whether column ``name`` is of no type of its own and no policy speaks of it: its cells are searched."""
        column = self.columns.get(name)
        return name not in self._operator.policy.columns and (column is None or column.entity is None)

    def keeps(self, name: str) -> bool:
        """Whether the policy leaves column ``name`` as it is, so that its type may stay too."""
        column = self.columns.get(name)
        operation = self._operator.policy.columns.get(name)
        if operation is not None:
            return isinstance(operation, Keep)
        return (
            column is not None
            and column.entity is not None
            and isinstance(self._operator.policy.operation(column.entity), Keep)
        )

    def _changed(self, name: str, values: Sequence[str]) -> Iterator[tuple[str, Mapping[AnyType, int]]]:
        operation = self._operator.policy.columns.get(name)
        column = self.columns.get(name)
        entity = column.entity if column is not None else None
        if operation is None and entity is None:
            masker = Masker(self._operator, engine=self._engine, detectors=self._detectors)
            yield from masker.texts(values)
            self.changes.replaced += masker.replaced
            return
        kind = entity or EntityType.CUSTOM
        for written in values:
            try:
                after = (
                    self._operator.changed(kind, written)
                    if operation is None
                    else self._operator.carry_out(operation, kind, written)
                )
            except InputError:
                if isinstance(operation or self._operator.policy.operation(kind), Pseudonym):
                    raise  # the vault failed
                self.changes.replaced += 1
                after = f"<{kind.value}>"
            yield after, {kind: 1}


def in_strings(value: Any, change: Callable[[str, str], str], *, name: str = "") -> Any:
    """A JSON value with every string in it changed; ``change`` gets the nearest name above it, and the string.

    Numbers that are long enough to identify somebody are looked at as text; only a change makes them strings.
    """
    if isinstance(value, str):
        return change(name, value)
    if isinstance(value, dict):
        return {key: in_strings(each, change, name=key) for key, each in value.items()}
    if isinstance(value, list):
        return [in_strings(each, change, name=name) for each in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        text = str(value)
        after = change(name, text)
        return value if after == text else after
    return value


def records(lines: Iterable[bytes]) -> Iterator[tuple[int, dict[str, Any] | InputError]]:
    """Each line's number from 1 and its JSON object, or why it has none."""
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line.decode())
        except (ValueError, RecursionError):
            record = None
        yield number, record if isinstance(record, dict) else InputError("expected a JSON object in the line")
