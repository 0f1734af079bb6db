"""What is done to each type: a policy, in TOML.

::

    name = "clinic"
    purpose = "Notes for teaching"
    least_score = 0.0                       # findings below it are left as they are
    allow = ["Mercy Hospital"]              # never changed, whatever finds it

    [words]                                 # always found
    PERSON = ["Zaphod", "阿福"]

    [otherwise]                             # every type that is not named
    how = "replace"

    [types.DATE_TIME]
    how = "shift"
    days = 180

    [columns.diagnosis]                     # in tables: a whole column, whatever stands in it
    how = "keep"

``how`` is one of the classes of this module, in small letters; their fields are its settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

import msgspec

from mibao.errors import InputError
from mibao.types import AnyType, EntityType

READY = ("hipaa-safe-harbor", "gbt-35273", "pipl", "gdpr-pseudonymise", "finance", "clinical")


class _Operation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="how", tag=str.lower):
    """One way of changing a value."""


class Redact(_Operation, frozen=True, kw_only=True):
    """Nothing is left."""


class Replace(_Operation, frozen=True, kw_only=True):
    """The name of the type, ``<PHONE_NUMBER>``, or another text."""

    text: str | None = None


class Mask(_Operation, frozen=True, kw_only=True):
    """Letters and digits become ``sign``, but for some at the start and the end; separators stay."""

    first: int = 0
    last: int = 4
    sign: str = "*"


class Pseudonym(_Operation, frozen=True, kw_only=True):
    """A placeholder that a vault restores; equal values of a scope have equal ones."""


class Fake(_Operation, frozen=True, kw_only=True):
    """A value of the same form, the same for equal values: digits for digits, a name for a name."""


class Encrypt(_Operation, frozen=True, kw_only=True):
    """Format-preserving encryption (FF1) of the digits, all but some at the start and the end; undone with the key."""

    first: int = 0
    last: int = 0


class Token(_Operation, frozen=True, kw_only=True):
    """AES-256-GCM in a token, ``<PHONE_NUMBER:...>``; undone with the key, without a vault."""


class Hash(_Operation, frozen=True, kw_only=True):
    """A keyed hash of so many characters; not undone."""

    length: int = 16


class Shift(_Operation, frozen=True, kw_only=True):
    """A date moved by up to so many days, all dates of one person by the same number."""

    days: int = 365


class Generalise(_Operation, frozen=True, kw_only=True):
    """Less exact: the year of a date, the first digits of a postal code, the province of an address, ..."""


class Keep(_Operation, frozen=True, kw_only=True):
    """As it stands."""


Operation: TypeAlias = (
    Redact | Replace | Mask | Pseudonym | Fake | Encrypt | Token | Hash | Shift | Generalise | Keep
)  # fmt: skip


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One policy. ``operation`` says what it does to a type."""

    name: str
    purpose: str = ""
    least_score: float = 0.0
    allow: tuple[str, ...] = ()
    words: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    otherwise: Operation = msgspec.field(default_factory=Replace)
    types: dict[str, Operation] = msgspec.field(default_factory=dict)
    columns: dict[str, Operation] = msgspec.field(default_factory=dict)

    def operation(self, entity: AnyType) -> Operation:
        """What is done to a value of type ``entity``. What only looks like a placeholder is not personal data."""
        if entity is EntityType.PLACEHOLDER:
            return Pseudonym() if self.uses(Pseudonym) else Keep()
        return self.types.get(entity.value, self.otherwise)

    def operations(self) -> Mapping[str, Operation]:
        """Every operation by what it is for, a column before a type; the one for all others under ``otherwise``."""
        columns = {f"column {name}": operation for name, operation in self.columns.items()}
        return {**columns, **self.types, "otherwise": self.otherwise}

    def uses(self, *kinds: type[_Operation]) -> bool:
        """Whether one of its operations is of one of ``kinds``."""
        return any(isinstance(operation, kinds) for operation in self.operations().values())

    @property
    def needs_key(self) -> bool:
        """Whether what it writes depends on a key."""
        return self.uses(Pseudonym, Fake, Encrypt, Token, Hash, Shift)


REPLACE = Policy(name="replace", purpose="The name of the type in place of each finding.")
PSEUDONYMS = Policy(name="pseudonyms", purpose="Placeholders that a vault restores.", otherwise=Pseudonym())


def parse_policy(text: str, *, source: str, types: Iterable[str] = ()) -> Policy:
    """The policy written in ``text``.

    Args:
        source: Its name, for errors.
        types: Names of types of the user's own, which it may speak of.

    Raises:
        InputError: it is no TOML, or a name or a value in it is none that a policy has.
    """
    try:
        policy = msgspec.toml.decode(text, type=Policy)
    except msgspec.DecodeError as error:
        raise InputError(f"policy {source}: {error}") from error
    known = {*types, *(entity.value for entity in EntityType)}
    if unknown := sorted({*policy.types, *policy.words} - known):
        raise InputError(f"policy {source}: no such type: {', '.join(unknown)} (mibao deid types lists them)")
    for entity, operation in policy.operations().items():
        _check(operation, where=f"policy {source}: {entity}")
    return policy


def ready_policy(name: str) -> Policy:
    """One of :data:`READY`.

    Raises:
        InputError: there is none of that name.
    """
    if name not in READY:
        raise InputError(f"policy: expected a file or one of {', '.join(READY)}, got {name}")
    path = Path(__file__).with_name("policies_toml") / f"{name}.toml"
    return parse_policy(path.read_text(encoding="utf-8"), source=name)


def _check(operation: Operation, *, where: str) -> None:
    match operation:
        case Mask(first=first, last=last, sign=sign) if min(first, last) < 0 or len(sign) != 1 or sign.isalnum():
            raise InputError(f"{where}: expected first and last from 0 on and a sign that is no letter or digit")
        case Encrypt(first=first, last=last) if min(first, last) < 0:
            raise InputError(f"{where}: expected first and last from 0 on")
        case Hash(length=length) if not 8 <= length <= 64:
            raise InputError(f"{where}: expected a length of 8 to 64, got {length}")
        case Shift(days=days) if not 1 <= days <= 36_500:
            raise InputError(f"{where}: expected 1 to 36500 days, got {days}")
        case _:
            pass
