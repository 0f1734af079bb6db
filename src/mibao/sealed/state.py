"""What a reader remembers of the models it opened, so that an older one is refused the next time.

For each signer and model id: the highest version opened, and the hash of its manifest. Source:
docs/spec/sealed-model.md, section 5.1.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from mibao.errors import InputError, IntegrityError
from mibao.sealed import manifest as manifests
from mibao.sealed import merkle
from mibao.sealed.manifest import Manifest
from mibao.types import RandomId

MAX_STATE_BYTES = 1 << 24
ROLLED_BACK = "version: this model is older than one that was opened before"
EQUIVOCATION = "version: another model of this version was opened before"
NEVER_OPENED = "state: no version of this model was opened before, and one is required"
DAMAGED = "state: damaged, or not one of mibao's files"
_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One version of a model, and the hash of what its signer signed about it."""

    version: int
    manifest_hash: bytes


Line: TypeAlias = tuple[RandomId, str]
"""A signer's key id and a model id: the line of releases within which versions grow."""

Known: TypeAlias = Mapping[Line, Release]
"""The highest release opened of each line."""


def line_of(manifest: Manifest) -> Line:
    """Whose releases of which model this manifest is one of."""
    return manifest.signer, manifest.model_id


def release_of(manifest: Manifest) -> Release:
    """Which release it is. Two manifests that differ in a byte are two releases."""
    hashed = merkle.digest("manifest", manifests.encode(manifest))
    return Release(version=manifest.version, manifest_hash=hashed)


def check(known: Known, manifest: Manifest, *, required: bool = False) -> None:
    """Return if a model may be opened by a reader that remembers ``known``.

    Args:
        required: Refuse a model of which nothing is known.

    Raises:
        IntegrityError: a lower version than one opened before, the same version with another manifest (its signer
            signed two), or nothing known where something is required.
    """
    before, now = known.get(line_of(manifest)), release_of(manifest)
    if before is None:
        if required:
            raise IntegrityError(f"{NEVER_OPENED} ({manifest.model_id!r}, signer {manifest.signer})")
    elif now.version < before.version:
        raise IntegrityError(f"{ROLLED_BACK} ({now.version}, version {before.version} was)")
    elif now.version == before.version and now.manifest_hash != before.manifest_hash:
        raise IntegrityError(f"{EQUIVOCATION} ({now.version}): its signer has signed two")


def advanced(known: Known, manifest: Manifest) -> Known:
    """What the reader remembers once it has opened a model that :func:`check` lets through."""
    return {**known, line_of(manifest): release_of(manifest)}


def encode(known: Known) -> bytes:
    """The bytes that keep ``known``: JSON, a line for each model, with a checksum.

    Raises:
        InputError: more than 16 MiB.
    """
    models = [
        {
            "signer": str(signer),
            "model_id": model_id,
            "version": release.version,
            "manifest": release.manifest_hash.hex(),
        }
        for (signer, model_id), release in sorted(known.items(), key=lambda item: (item[0][0].value, item[0][1]))
    ]
    lines = ",\n".join(json.dumps(model) for model in models)
    checksum = hashlib.sha256(lines.encode()).hexdigest()
    data = f'{{"format": {_FORMAT}, "checksum": "{checksum}", "models": [\n{lines}\n]}}\n'.encode()
    if len(data) > MAX_STATE_BYTES:
        raise InputError(f"state: expected at most {MAX_STATE_BYTES} bytes of models, got {len(data)}")
    return data


def decode(data: bytes) -> Known:
    """What :func:`encode` kept.

    Raises:
        IntegrityError: not exactly what it wrote, down to the byte.
    """
    if len(data) > MAX_STATE_BYTES:
        raise IntegrityError(DAMAGED)
    try:
        known = dict(_model(each) for each in json.loads(data)["models"])
        same = encode(known) == data
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise IntegrityError(DAMAGED) from error
    if not same:
        raise IntegrityError(DAMAGED)
    return known


def _model(value: dict[str, object]) -> tuple[Line, Release]:
    match value:
        case {"signer": str(signer), "model_id": str(model_id), "version": int(version), "manifest": str(manifest)}:
            release = Release(version=version, manifest_hash=bytes.fromhex(manifest))
            return (RandomId(bytes.fromhex(signer)), model_id), release
    raise ValueError
