"""Frozen records of what happened. Pillars return them, ``ledger`` stores them, neither imports the other.

A field is an enum, a number, a :class:`~mibao.types.RandomId` or a :class:`~mibao.types.KeyedHash`, and
nothing else: there is no place for a name, a text or a plain hash of personal data to stand.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum
from types import MappingProxyType
from typing import ClassVar

from mibao.types import (
    ComputeMode,
    EntityType,
    KeyedHash,
    Language,
    MaskingScheme,
    Mechanism,
    RandomId,
    Refusal,
    Strategy,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened. ``kind`` is its name in a ledger and never changes once released."""

    kind: ClassVar[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonalDataMasked(Event):
    """One text was masked: how many findings of one type, and how many distinct values they held."""

    kind: ClassVar[str] = "personal-data-masked"
    scope: KeyedHash
    language: Language
    entity: EntityType
    findings: int
    distinct: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonalDataRestored(Event):
    """One text was restored from its pseudonyms."""

    kind: ClassVar[str] = "personal-data-restored"
    scope: KeyedHash
    placeholders: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SecureSumReleased(Event):
    """The server learned one sum over ``survivors`` of ``invited`` clients."""

    kind: ClassVar[str] = "secure-sum-released"
    session: RandomId
    scheme: MaskingScheme
    round: int
    invited: int
    survivors: int
    threshold: int
    length: int
    modulus_bits: int
    upload_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseAdded(Event):
    """One release carried this much noise, counting only the clients that took part.

    ``noise_multiplier`` is the standard deviation of the noise in the sum over its L2 ``sensitivity``, which is in
    units of the integer grid on which the noise was drawn; the sum has ``dimension`` coordinates. ``sampling_rate``
    is the chance with which each client was in it, drawn for each on its own; 1 where nobody was left to chance.
    """

    kind: ClassVar[str] = "noise-added"
    session: RandomId
    mechanism: Mechanism
    round: int
    contributors: int
    dimension: int
    sensitivity: float
    noise_multiplier: float
    sampling_rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacySpent(Event):
    """Privacy spent by all releases of a session so far."""

    kind: ClassVar[str] = "privacy-spent"
    session: RandomId
    releases: int
    epsilon: float
    delta: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTrained(Event):
    """One federated round updated the shared model."""

    kind: ClassVar[str] = "round-trained"
    session: RandomId
    strategy: Strategy
    round: int
    invited: int
    survivors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSealed(Event):
    """A model was sealed to ``recipients`` and signed."""

    kind: ClassVar[str] = "model-sealed"
    file: RandomId
    signer: RandomId
    version: int
    recipients: int
    plaintext_bytes: int
    sealed_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOpened(Event):
    """A sealed model was opened after every check passed."""

    kind: ClassVar[str] = "model-opened"
    file: RandomId
    signer: RandomId
    recipient: RandomId
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRefused(Event):
    """A sealed model was not opened."""

    kind: ClassVar[str] = "model-refused"
    reason: Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitEvaluated(Event):
    """A compute host evaluated a circuit on ciphertexts."""

    kind: ClassVar[str] = "circuit-evaluated"
    circuit: RandomId
    mode: ComputeMode
    rows: int
    ring_degree: int
    modulus_bits: int
    request_bytes: int
    answer_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestServed(Event):
    """The gateway was done with one request; ``caller`` is a hash of tenant and key under a key of the gateway's.

    ``findings`` of all types were replaced in it; ``withheld`` says that it, or its answer, was not passed on.
    """

    kind: ClassVar[str] = "request-served"
    request: RandomId
    caller: KeyedHash
    status: int
    findings: int
    prompt_tokens: int
    completion_tokens: int
    withheld: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonalDataWithheld(Event):
    """So many findings of one type were replaced in one request to a model service."""

    kind: ClassVar[str] = "personal-data-withheld"
    request: RandomId
    entity: EntityType
    findings: int


def event_kinds() -> Mapping[str, type[Event]]:
    """Every event class by its ``kind``."""
    return _KINDS


def field_types(event_type: type[Event]) -> Mapping[str, type]:
    """The fields of one event class, by name, in order of declaration.

    Raises:
        TypeError: a field is of a type that could hold free text or personal data.
    """
    return _FIELD_TYPES[event_type.kind]


def _checked_field_types(event_type: type[Event]) -> Mapping[str, type]:
    hints = typing.get_type_hints(event_type)
    checked = {field.name: hints[field.name] for field in fields(event_type)}
    for name, kind in checked.items():
        if kind in (int, float, bool, RandomId, KeyedHash):
            continue
        if not (isinstance(kind, type) and issubclass(kind, Enum)):
            raise TypeError(f"{event_type.__name__}.{name} is {kind}: an entry holds no free text")
    return MappingProxyType(checked)


_KINDS: Mapping[str, type[Event]] = MappingProxyType(
    {
        event.kind: event
        for event in tuple(globals().values())
        if isinstance(event, type) and issubclass(event, Event) and event is not Event
    }
)
_FIELD_TYPES = MappingProxyType({kind: _checked_field_types(event) for kind, event in _KINDS.items()})
