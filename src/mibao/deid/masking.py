"""Texts with placeholders in place of personal data, and back, exactly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mibao.crypto.kdf import derive
from mibao.deid.custom import CustomTypes
from mibao.deid.detection import default_engine, language_of
from mibao.deid.findings import Detector, Finding
from mibao.deid.matching import Engine
from mibao.deid.pseudonyms import stem_of, utf8
from mibao.deid.scanning import Scanner
from mibao.deid.streaming import Restorer
from mibao.deid.vault import Vault
from mibao.errors import InputError
from mibao.events import PersonalDataMasked, PersonalDataRestored
from mibao.types import AnyType, EntityType, Language


@dataclass(frozen=True, slots=True, kw_only=True)
class Masked:
    """A text after masking. Its ``repr`` shows no text: what was missed still stands in it.

    ``placeholders[i]`` stands in ``text`` where ``findings[i]`` stood in the original.
    """

    text: str = field(repr=False)
    findings: tuple[Finding, ...]
    placeholders: tuple[str, ...] = field(repr=False)
    language: Language
    events: tuple[PersonalDataMasked, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """A text with its personal data back in place. Its ``repr`` shows no text."""

    text: str = field(repr=False)
    event: PersonalDataRestored


def mask(
    text: str,
    *,
    vault: Vault,
    detectors: Sequence[Detector] = (),
    engine: Engine | None = None,
    types: CustomTypes | None = None,
) -> Masked:
    """``text`` with every finding replaced by its placeholder; ``restore(mask(text).text).text == text``, always.

    That holds for any text: no part of what is kept has the form of a placeholder, because such parts are findings
    themselves, and none can arise at a seam, because a placeholder holds ``<`` and ``>`` at its ends only. A value
    longer than about 50 characters has one placeholder for each part of it, as it has in a stream. ``detectors``,
    ``engine`` and ``types`` as in :func:`mibao.deid.detection.detect`; a type's replacement is not used, since nothing
    restores it.
    """
    if types is not None:
        engine, detectors = engine or types.engine, (*detectors, *types.detectors)
    scanner = Scanner(engine or default_engine(), detectors)
    findings = tuple(part.finding() for part in scanner.whole(text))
    with vault.batch():
        placeholders = tuple(vault.placeholder_for(found.type, text[found.start : found.end]) for found in findings)
    pieces, kept_from = [], 0
    for found, placeholder in zip(findings, placeholders, strict=True):
        pieces += [text[kept_from : found.start], placeholder]
        kept_from = found.end
    language = language_of(text)
    return Masked(
        text="".join([*pieces, text[kept_from:]]),
        findings=findings,
        placeholders=placeholders,
        language=language,
        events=_events(findings, placeholders, vault=vault, language=language),
    )


def restore(text: str, *, vault: Vault) -> Restored:
    """``text`` with every placeholder that the vault knows replaced by what it stands for, in one pass.

    ``text`` may be any text around placeholders, such as an answer to a masked question. A placeholder that is
    damaged, unknown or of another scope stays as it is.
    """
    restorer = Restorer(vault)
    restored = restorer.feed(text) + restorer.close()
    event = PersonalDataRestored(scope=vault.scope, placeholders=restorer.restored)
    return Restored(text=restored, event=event)


class Pseudonymiser:
    """Masks and restores the texts of one scope (a patient, a conversation, a study) under one key.

    One value has one stem in all of them, in either language. Two scopes share nothing, under one key or under two.
    """

    __slots__ = ("_vault",)

    def __init__(self, *, key: bytes, scope: str) -> None:
        self._vault = Vault(scope_key=scope_key(key, scope))

    @classmethod
    def open(cls, path: Path, *, key: bytes, scope: str) -> Pseudonymiser:
        """A session whose placeholders are kept in a file, made where there is none: what :meth:`mask` returned can be
        restored by any later session, in any process. Raises as :meth:`mibao.deid.vault.Vault.open`.
        """
        session = cls(key=key, scope=scope)
        session._vault = Vault.open(path, scope_key=scope_key(key, scope))
        return session

    @property
    def vault(self) -> Vault:
        """What the placeholders of this scope stand for."""
        return self._vault

    def __repr__(self) -> str:
        return f"<Pseudonymiser, {len(self._vault)} placeholders>"

    def mask(self, text: str) -> Masked:
        """As :func:`mask`, within this scope."""
        return mask(text, vault=self._vault)

    def restore(self, text: str) -> str:
        """The text of :func:`restore`, within this scope."""
        return restore(text, vault=self._vault).text

    def link(self, entity: AnyType, written: str, *others: str) -> None:
        """As :meth:`mibao.deid.vault.Vault.link`: one person's names in two languages."""
        self._vault.link(entity, written, *others)

    def close(self) -> None:
        """Let go of the vault's file, if there is one."""
        self._vault.close()


def scope_key(key: bytes, scope: str) -> bytes:
    """The 32-byte key of one scope.

    Raises:
        InputError: ``key`` is not 32 bytes.
    """
    if len(key) != 32:
        raise InputError(f"pseudonymiser: expected a key of 32 bytes, got {len(key)}")
    return derive(key, purpose="deid/scope", context=utf8(scope))


def _events(
    findings: tuple[Finding, ...], placeholders: tuple[str, ...], *, vault: Vault, language: Language
) -> tuple[PersonalDataMasked, ...]:
    found = Counter(_on_record(finding.type) for finding in findings)
    values = {(_on_record(finding.type), stem_of(token)) for finding, token in zip(findings, placeholders, strict=True)}
    distinct = Counter(entity for entity, _ in values)
    return tuple(
        PersonalDataMasked(
            scope=vault.scope, language=language, entity=entity, findings=found[entity], distinct=distinct[entity]
        )
        for entity in EntityType
        if found[entity]
    )


def _on_record(entity: AnyType) -> EntityType:
    """The type that a record names: one of a fixed list, since a user's own words could say anything."""
    return entity if isinstance(entity, EntityType) else EntityType.CUSTOM
