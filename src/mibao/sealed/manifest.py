"""The signed statement about a sealed model: which bytes, which model, which version, whose.

Source: docs/spec/sealed-model.md, section 3.4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from mibao.codec import canonical
from mibao.codec.canonical import Value
from mibao.crypto import sign as signatures
from mibao.crypto.keys import SignerPrivateKey, SignerPublicKey
from mibao.errors import InputError, IntegrityError, KeyMismatch
from mibao.sealed.layout import (
    FORMAT,
    MAX_CHUNK_BYTES,
    MAX_CHUNKS,
    MAX_MANIFEST_BYTES,
    MAX_PART_BYTES,
    MAX_PARTS,
    MAX_TABLE_BYTES,
    MIN_CHUNK_BYTES,
    SUITE,
)
from mibao.sealed.merkle import HASH_BYTES
from mibao.types import RandomId

MAX_VERSION = (1 << 63) - 1
MAX_MODEL_ID_BYTES = 256
OTHER_SIGNER = "signer: this model is signed by another key than the pinned one"
_PURPOSE = "sealed/manifest"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartFacts:
    """What is signed about one part: bytes of plaintext data, number of chunks, Merkle root of its ciphertext."""

    data_bytes: int
    chunks: int
    root: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What the signer vouches for. ``commitment`` pins the file key, ``table_hash`` the encrypted table."""

    file_id: RandomId
    signer: RandomId
    model_id: str
    version: int
    commitment: bytes
    table_hash: bytes
    table_bytes: int
    chunk_bytes: int
    shards: tuple[PartFacts, ...]
    side_files: tuple[PartFacts, ...]

    @property
    def parts(self) -> tuple[PartFacts, ...]:
        """Shards, then side files: the order in which their data stands in the file."""
        return self.shards + self.side_files


def check_model_id(model_id: str) -> str:
    """``model_id``, if it may stand in a manifest.

    Raises:
        InputError: empty, longer than 256 bytes of UTF-8, or with characters that do not print.
    """
    if not model_id.isprintable() or not 1 <= len(model_id.encode("utf-8", "replace")) <= MAX_MODEL_ID_BYTES:
        raise InputError(f"model id: expected 1 to {MAX_MODEL_ID_BYTES} bytes of printable text")
    return model_id


def check_version(version: int) -> int:
    """``version``, if it may stand in a manifest. Raises ``InputError`` if it is not 1 to 2**63 - 1."""
    if not 1 <= version <= MAX_VERSION:
        raise InputError(f"version: expected a whole number from 1 to 2**63 - 1, got {version}")
    return version


def encode(manifest: Manifest) -> bytes:
    """The bytes that get signed.

    Raises:
        InputError: more parts than fit the limit of a manifest.
    """
    data = canonical.encode(
        {
            "format": FORMAT,
            "suite": SUITE,
            "file_id": manifest.file_id.value,
            "signer": manifest.signer.value,
            "model_id": check_model_id(manifest.model_id),
            "version": check_version(manifest.version),
            "commitment": manifest.commitment,
            "table": manifest.table_hash,
            "table_bytes": manifest.table_bytes,
            "chunk_bytes": manifest.chunk_bytes,
            "shards": [_part_value(part) for part in manifest.shards],
            "side_files": [_part_value(part) for part in manifest.side_files],
        }
    )
    if len(data) > MAX_MANIFEST_BYTES or len(manifest.parts) > MAX_PARTS:
        raise InputError(f"manifest: expected at most {MAX_PARTS} files, got {len(manifest.parts)}")
    return data


def decode(data: bytes) -> Manifest:
    """The manifest in ``data``, within the limits. Says nothing about who signed it.

    Raises:
        IntegrityError: not exactly one well-formed manifest of this format and suite.
    """
    try:
        value = canonical.decode(data, max_bytes=MAX_MANIFEST_BYTES)
    except IntegrityError as error:
        raise IntegrityError("manifest: not well formed") from error
    expected: dict[str, type] = {
        "format": int, "suite": int, "file_id": bytes, "signer": bytes, "model_id": str, "version": int,
        "commitment": bytes, "table": bytes, "table_bytes": int, "chunk_bytes": int, "shards": list, "side_files": list,
    }  # fmt: skip
    fields = _fields(value, expected)
    if (fields["format"], fields["suite"]) != (FORMAT, SUITE):
        raise IntegrityError("manifest: another format or suite than the preamble's")
    try:
        manifest = Manifest(
            file_id=RandomId(cast(bytes, fields["file_id"])),
            signer=RandomId(cast(bytes, fields["signer"])),
            model_id=check_model_id(cast(str, fields["model_id"])),
            version=check_version(cast(int, fields["version"])),
            commitment=cast(bytes, fields["commitment"]),
            table_hash=cast(bytes, fields["table"]),
            table_bytes=cast(int, fields["table_bytes"]),
            chunk_bytes=cast(int, fields["chunk_bytes"]),
            shards=tuple(_part(each) for each in cast("list[Value]", fields["shards"])),
            side_files=tuple(_part(each) for each in cast("list[Value]", fields["side_files"])),
        )
    except (ValueError, InputError) as error:
        raise IntegrityError("manifest: a field is out of its range") from error
    _check_ranges(manifest)
    return manifest


def sign(manifest: bytes, signer: SignerPrivateKey) -> bytes:
    """The signature over an encoded manifest."""
    return signatures.sign(signer, manifest, purpose=_PURPOSE)


def verify(manifest: bytes, signature: bytes, signer: SignerPublicKey) -> Manifest:
    """The manifest, once the pinned signer's signature over exactly these bytes holds.

    Raises:
        IntegrityError: the manifest or its signature was altered.
        KeyMismatch: the manifest names another signer than the pinned one.
    """
    try:
        signatures.verify(signer, manifest, signature, purpose=_PURPOSE)
    except IntegrityError as error:
        if decode(manifest).signer != signer.key_id:
            raise KeyMismatch(OTHER_SIGNER) from error
        raise IntegrityError("manifest: the signature does not match") from error
    verified = decode(manifest)
    if verified.signer != signer.key_id:
        raise KeyMismatch(OTHER_SIGNER)
    return verified


def _part_value(part: PartFacts) -> dict[str, Value]:
    return {"bytes": part.data_bytes, "chunks": part.chunks, "root": part.root}


def _part(value: Value) -> PartFacts:
    fields = _fields(value, {"bytes": int, "chunks": int, "root": bytes})
    data_bytes, chunks, root = cast(int, fields["bytes"]), cast(int, fields["chunks"]), cast(bytes, fields["root"])
    if not 0 <= data_bytes <= MAX_PART_BYTES or not 0 <= chunks <= min(MAX_CHUNKS, data_bytes):
        raise IntegrityError("manifest: a part's size is out of its range")
    if len(root) != HASH_BYTES:
        raise IntegrityError("manifest: a root is not a hash")
    return PartFacts(data_bytes=data_bytes, chunks=chunks, root=root)


def _fields(value: Value, expected: dict[str, type]) -> dict[str, Value]:
    if not isinstance(value, dict) or value.keys() != expected.keys():
        raise IntegrityError("manifest: expected exactly its fields")
    if any(type(value[name]) is not kind for name, kind in expected.items()):
        raise IntegrityError("manifest: a field is of another type")
    return value


def _check_ranges(manifest: Manifest) -> None:
    chunk_bytes = manifest.chunk_bytes
    if not MIN_CHUNK_BYTES <= chunk_bytes <= MAX_CHUNK_BYTES or chunk_bytes & (chunk_bytes - 1):
        raise IntegrityError("manifest: the size of chunks is out of its range")
    if not manifest.shards or len(manifest.parts) > MAX_PARTS:
        raise IntegrityError("manifest: the number of parts is out of its range")
    if {len(manifest.commitment), len(manifest.table_hash)} != {HASH_BYTES}:
        raise IntegrityError("manifest: a field is not 32 bytes")
    if not 1 <= manifest.table_bytes <= MAX_TABLE_BYTES:
        raise IntegrityError("manifest: the size of the table is out of its range")
