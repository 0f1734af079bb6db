"""Types of personal data that only their user knows, written in TOML and searched for by the same engine as all others.

::

    [[type]]
    name = "STAFF_BADGE"                    # or a type that there is: it is found in these ways as well
    pattern = 'HB-[0-9]{6}[0-9X]'           # or several, in a list
    validator = "luhn"                      # a check digit
    context = ["badge", "工牌"]             # words beside it: they raise the score
    needs_context = true                    # ... and without one it is no finding
    deny = ["HB-TEMP"]                      # always found
    allow = ["HB-0000000"]                  # never found
    score = 0.85
    replacement = "[badge]"                 # in place of <STAFF_BADGE>, where the policy does not say otherwise

Patterns: :mod:`mibao.deid.custom_patterns`. They are matched against text as the engines read it: full-width characters
as ASCII, zero-width ones gone.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgspec

from mibao.deid import checksums
from mibao.deid.checks import CHECKS, Check
from mibao.deid.custom_patterns import parse_pattern
from mibao.deid.detection import all_rules, engine_for, with_names
from mibao.deid.kinds import SCORE_BESIDE_CONTEXT, Rule, Verdict, context_pattern, is_beside
from mibao.deid.matching import Candidate, Engine
from mibao.deid.normalisation import fold
from mibao.deid.policies import Policy, Replace
from mibao.deid.wordlists import WordList
from mibao.errors import InputError
from mibao.types import AnyType, type_named

VALIDATORS: Mapping[str, Check] = {
    name: check for name, check in CHECKS.items() if name in checksums.CHECKS or name in ("email", "iban", "entropy")
}
MOST_TYPES = 200


class _Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One ``[[type]]``, as it stands in the file."""

    name: str
    what: str = ""
    pattern: str | tuple[str, ...] = ()
    ignore_case: bool = False
    inside_words: bool = False
    validator: str | None = None
    context: tuple[str, ...] = ()
    needs_context: bool = False
    deny: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    score: float = 0.85
    replacement: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomKind:
    """One type of the user's own: how it is found, and what stands in its place."""

    type: AnyType
    what: str
    rules: tuple[Rule, ...] = field(repr=False)
    words: WordList | None = field(repr=False)
    allowed: frozenset[str] = field(repr=False)
    replacement: str | None


class CustomTypes:
    """A user's types beside those that come with mibao, for ``detect`` and ``mask``; :func:`parse_types` makes it.

    Pickled and copied as the rows that it was made of.
    """

    def __init__(self, rows: Sequence[object], *, source: str) -> None:
        self._rows, self._source = tuple(rows), source
        self.kinds = tuple(_kind(row, where=_where(row, number, source)) for number, row in enumerate(rows, 1))

    def __reduce__(self) -> tuple[object, ...]:
        return parse_rows, (self._rows, self._source)

    def __or__(self, other: CustomTypes) -> CustomTypes:
        return CustomTypes((*self._rows, *other._rows), source=f"{self._source}, {other._source}")

    def __repr__(self) -> str:
        return f"<CustomTypes {', '.join(kind.type.value for kind in self.kinds)}>"

    @cached_property
    def engine(self) -> Engine:
        """All rules, the user's among them, and the models of names; less what the user allows."""
        return self._less_allowed(with_names(self._rules))

    @cached_property
    def rules_engine(self) -> Engine:
        """The same without the models of names."""
        return self._less_allowed(self._rules)

    @cached_property
    def _rules(self) -> Engine:
        own = (rule for kind in self.kinds for rule in kind.rules)
        return engine_for((*all_rules(), *own))

    def _less_allowed(self, engine: Engine) -> Engine:
        allowed: dict[AnyType, frozenset[str]] = {}
        for kind in self.kinds:
            allowed[kind.type] = allowed.get(kind.type, frozenset()) | kind.allowed
        return _Allowing(engine, allowed) if any(allowed.values()) else engine

    @property
    def detectors(self) -> tuple[WordList, ...]:
        """What finds the words that are always found."""
        return tuple(kind.words for kind in self.kinds if kind.words is not None)

    @property
    def names(self) -> frozenset[str]:
        """The types' names."""
        return frozenset(kind.type.value for kind in self.kinds)

    def applied_to(self, policy: Policy) -> Policy:
        """``policy``, with the types' replacements where it does not speak of them itself."""
        own = {
            kind.type.value: Replace(text=kind.replacement) for kind in self.kinds if kind.replacement is not None
        }  # fmt: skip
        return msgspec.structs.replace(policy, types={**own, **policy.types})


def parse_types(text: str, *, source: str) -> CustomTypes:
    """The types that a file of TOML describes.

    Args:
        source: The file's name, for errors.

    Raises:
        InputError: it is no TOML, or a key, a value or a pattern in it is none that a type has; the message names the
            file, the type and the key.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{source}: {error}") from error
    rows = content.pop("type", [])
    if content or not isinstance(rows, list):
        raise InputError(f"{source}: expected 1 to {MOST_TYPES} tables [[type]], and nothing else")
    return parse_rows(rows, source)


def parse_rows(rows: Sequence[object], source: str) -> CustomTypes:
    """The types that ``rows`` describe, one table of :func:`parse_types` each. Raises as it does."""
    if not 0 < len(rows) <= MOST_TYPES:
        raise InputError(f"{source}: expected 1 to {MOST_TYPES} tables [[type]], and nothing else")
    return CustomTypes(rows, source=source)


def _where(row: object, number: int, source: str) -> str:
    name = row.get("name") if isinstance(row, dict) else None
    return f"{source}: type {name}" if isinstance(name, str) and name else f"{source}: type {number}"


def _kind(content: Any, *, where: str) -> CustomKind:
    try:
        row = msgspec.convert(content, _Row)
    except msgspec.ValidationError as error:
        message, _, key = str(error).partition(" - at `$.")
        raise InputError(f"{where}: {key.rstrip('`') + ': ' if key else ''}{message}") from error
    try:
        entity = type_named(row.name)
    except ValueError as error:
        raise InputError(f"{where}: name: {error}") from error
    _check(row, where=where)
    allowed = frozenset(map(_plain, row.allow))
    try:
        words = WordList(entity, row.deny) if row.deny else None
    except InputError as error:
        raise InputError(f"{where}: deny: {error}") from error
    return CustomKind(
        type=entity, what=row.what, rules=tuple(_rules(entity, row, where=where)), words=words,
        allowed=allowed, replacement=row.replacement,
    )  # fmt: skip


def _check(row: _Row, *, where: str) -> None:
    if not (row.pattern or row.deny or row.allow):
        raise InputError(f"{where}: expected pattern, deny or allow, by which it is found")
    if not 0 < row.score <= 1:
        raise InputError(f"{where}: score: expected more than 0 and at most 1, got {row.score}")
    if row.validator is not None and row.validator not in VALIDATORS:
        raise InputError(f"{where}: validator: expected one of {', '.join(sorted(VALIDATORS))}, got {row.validator}")
    if row.needs_context and not row.context:
        raise InputError(f"{where}: needs_context: expected words in context")
    if not all(word.strip() for word in (*row.context, *row.allow)):
        raise InputError(f"{where}: context and allow: expected words that are not empty")


def _rules(entity: AnyType, row: _Row, *, where: str) -> list[Rule]:
    made = []
    patterns = (row.pattern,) if isinstance(row.pattern, str) else row.pattern
    for pattern in patterns:
        try:
            accepted = parse_pattern(pattern, ignore_case=row.ignore_case, inside_words=row.inside_words)
        except ValueError as error:
            raise InputError(f"{where}: pattern {pattern!r}: {error}") from error
        made.append(_rule(entity, row, accepted.text))
    return made


def _rule(entity: AnyType, row: _Row, pattern: str) -> Rule:
    check = VALIDATORS[row.validator] if row.validator else None
    words = context_pattern(tuple(map(fold, row.context)))
    why = f"pattern of the type {entity.value}"

    def judge(match: re.Match[str]) -> Verdict:
        start, end = match.span(1)
        length = check(match) if check else end - start
        if not length:
            return None
        beside = is_beside(words, match.string, start, end)
        if row.needs_context and not beside:
            return None
        return start, start + length, min(1.0, row.score + SCORE_BESIDE_CONTEXT * beside), why

    return Rule(
        entity=entity, pattern=re.compile(pattern, re.ASCII), judge=judge,
        words=tuple(map(fold, row.context)) if row.needs_context else (),
    )  # fmt: skip


class _Allowing:
    """An engine that is silent about the values that are allowed, of each type."""

    def __init__(self, engine: Engine, allowed: Mapping[AnyType, frozenset[str]]) -> None:
        self._engine, self._allowed = engine, allowed
        self.rules = engine.rules

    def candidates(self, text: str) -> list[Candidate]:
        """As :meth:`mibao.deid.matching.Engine.candidates`."""
        return [
            each
            for each in self._engine.candidates(text)
            if each.entity not in self._allowed or _plain(text[each.start : each.end]) not in self._allowed[each.entity]
        ]


def _plain(word: str) -> str:
    return fold(word).lower()
