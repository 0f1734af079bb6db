"""Open: the order of checks from the first byte to a file whose chunks are ready to be decrypted.

Source: docs/spec/sealed-model.md, section 5.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

import numpy as np

from mibao.crypto.aead import TAG_BYTES, AesGcm
from mibao.crypto.keys import SignerPublicKey
from mibao.errors import IntegrityError
from mibao.sealed import manifest as manifests
from mibao.sealed import merkle, model_table, recipients
from mibao.sealed.chunks import PartChunks
from mibao.sealed.file_keys import FileKeys
from mibao.sealed.layout import (
    INDEX_ENTRY_BYTES,
    PREAMBLE_BYTES,
    SELECTOR_BYTES,
    Preamble,
    Selector,
    parse_preamble,
    parse_selector,
)
from mibao.sealed.manifest import Manifest
from mibao.sealed.model_table import ModelTable, PartTable
from mibao.sealed.recipients import Identity
from mibao.sealed.sealing import header_mac
from mibao.sealed.source import ByteSource, read
from mibao.sealed.unlock import Binding, Stanza
from mibao.types import RandomId

OLDER = "version: this model is older than the lowest version accepted"
_RETRIES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What a sealed file says before any decryption. Only as true as the function that made it says."""

    preamble: Preamble
    manifest: Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The recipients of a file, with the slot's bytes and the selector that the header MAC covers."""

    selector: Selector
    slot: bytes
    stanzas: tuple[Stanza, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedPart:
    """One part, ready to be decrypted: its table, its chunks, their index, its cipher, and where its data lies."""

    table: PartTable
    chunks: PartChunks
    index: bytes
    cipher: AesGcm
    data_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedFile:
    """A file whose signature, key, header, table and index have all been checked."""

    source: ByteSource
    envelope: Envelope
    header: Header
    recipient: RandomId
    keys: FileKeys
    table: ModelTable
    parts: tuple[OpenedPart, ...]


def read_verified(source: ByteSource, *, signer: SignerPublicKey, min_version: int | None = None) -> Envelope:
    """The manifest, signed by the pinned signer, of a file of the right length: steps 1 to 4.

    Raises:
        InputError: not a sealed model, or beyond a limit.
        IntegrityError: preamble, manifest or signature were altered, the file was cut or extended, or the version is
            lower than ``min_version``.
        KeyMismatch: signed by another signer.
    """
    preamble = _read_preamble(source)
    raw = read(source, preamble.manifest_at, preamble.manifest_bytes)
    signature = read(source, preamble.signature_at, preamble.signature_bytes)
    manifest = manifests.verify(raw, signature, signer)
    _check_sizes(source, preamble, manifest)
    if min_version is not None and manifest.version < min_version:
        raise IntegrityError(f"{OLDER} ({manifest.version}, expected at least {min_version})")
    return Envelope(preamble=preamble, manifest=manifest)


def read_unverified(source: ByteSource) -> Envelope:
    """What the file claims, nobody's signature checked: to look at, never to act on.

    Raises:
        InputError: not a sealed model, or beyond a limit.
        IntegrityError: not well formed.
    """
    preamble = _read_preamble(source)
    manifest = manifests.decode(read(source, preamble.manifest_at, preamble.manifest_bytes))
    _check_sizes(source, preamble, manifest)
    return Envelope(preamble=preamble, manifest=manifest)


def read_header(source: ByteSource, preamble: Preamble) -> Header:
    """The list of recipients; only :func:`unlock` can tell whether it is the one a recipient wrote.

    Raises:
        IntegrityError: not well formed, or the other slot is not zero though no rewrap is under way.
    """
    for _ in range(_RETRIES):
        start = read(source, PREAMBLE_BYTES, SELECTOR_BYTES)
        slots = [read(source, preamble.slot_at(slot), preamble.slot_bytes) for slot in (0, 1)]
        if read(source, PREAMBLE_BYTES, SELECTOR_BYTES) == start:  # else somebody is rewrapping right now
            break
    selector = parse_selector(start)
    if not selector.rewrapping and any(slots[1 - selector.active]):
        raise IntegrityError("recipients: the other slot is not zero")
    slot = slots[selector.active]
    return Header(selector=selector, slot=slot, stanzas=recipients.decode_slot(slot))


def unlock(source: ByteSource, envelope: Envelope, identity: Identity) -> tuple[Header, FileKeys, RandomId]:
    """The keys of the file, and the id of the stanza that held them: steps 5 to 7.

    Raises:
        KeyMismatch: not sealed to this key.
        IntegrityError: the recipients' list was altered, or opens to another key than the one signed.
    """
    preamble, manifest = envelope.preamble, envelope.manifest
    header = read_header(source, preamble)
    binding = Binding(file_id=manifest.file_id, commitment=manifest.commitment, signer=manifest.signer)
    recipient, keys = recipients.unwrap(header.stanzas, identity, binding)
    if not keys.matches(manifest.commitment):
        raise IntegrityError("key commitment: the recipient's stanza holds another key than the signed one")
    if not hmac.compare_digest(header_mac(keys, preamble, header.selector, header.slot), header.selector.mac):
        raise IntegrityError("header: its MAC does not match")
    return header, keys, recipient


def open_file(source: ByteSource, envelope: Envelope, identity: Identity) -> OpenedFile:
    """Everything but the data, checked and decrypted: steps 5 to 9.

    Raises:
        KeyMismatch: not sealed to this key.
        IntegrityError: names the region that was altered.
    """
    header, keys, recipient = unlock(source, envelope, identity)
    sealed_table = _read_table(source, envelope)
    sizes = [part.data_bytes for part in envelope.manifest.parts]
    table = model_table.decode(model_table.decrypt(sealed_table, keys), data_bytes=sizes)
    indexes = read_indexes(source, envelope)
    parts, data_at = [], envelope.preamble.data_at
    for number, (part, facts) in enumerate(zip(table.parts, envelope.manifest.parts, strict=True)):
        segments = part.segment_lengths(facts.data_bytes)
        chunks = PartChunks(number, segments, chunk_bytes=envelope.manifest.chunk_bytes)
        if len(chunks) != facts.chunks or _lengths(indexes[number]) != chunks.index_lengths():
            raise IntegrityError("index: its lengths are not those that follow from the table")
        cipher = keys.part_cipher(number)
        parts.append(OpenedPart(table=part, chunks=chunks, index=indexes[number], cipher=cipher, data_at=data_at))
        data_at += chunks.cipher_bytes
    return OpenedFile(
        source=source,
        envelope=envelope,
        header=header,
        recipient=recipient,
        keys=keys,
        table=table,
        parts=tuple(parts),
    )


def read_indexes(source: ByteSource, envelope: Envelope) -> list[bytes]:
    """The index of each part, its root compared with the signed one; and the padding behind, which is zero.

    Raises:
        IntegrityError: the index or the padding was altered.
    """
    preamble, manifest = envelope.preamble, envelope.manifest
    whole = read(source, preamble.index_at, preamble.index_bytes)
    indexes, at = [], 0
    for part in manifest.parts:
        end = at + part.chunks * INDEX_ENTRY_BYTES
        index = whole[at:end]
        if merkle.root(index) != part.root:
            raise IntegrityError("index: its root is not the signed one")
        indexes.append(index)
        at = end
    if any(read(source, preamble.padding_at, preamble.data_at - preamble.padding_at)):
        raise IntegrityError("padding: is not zero")
    return indexes


def verify_table(source: ByteSource, envelope: Envelope) -> None:
    """Return if the encrypted table is the signed one. Raises ``IntegrityError`` if it was altered."""
    _read_table(source, envelope)


def _read_preamble(source: ByteSource) -> Preamble:
    start = read(source, 0, min(PREAMBLE_BYTES, source.size))
    return parse_preamble(start, file_bytes=source.size)


def _check_sizes(source: ByteSource, preamble: Preamble, manifest: Manifest) -> None:
    if manifest.table_bytes != preamble.table_bytes:
        raise IntegrityError("preamble: the table has another length than the signed one")
    if preamble.index_bytes != INDEX_ENTRY_BYTES * sum(part.chunks for part in manifest.parts):
        raise IntegrityError("preamble: the index has another length than the signed chunks need")
    data_bytes = sum(part.data_bytes + part.chunks * TAG_BYTES for part in manifest.parts)
    if source.size != preamble.data_at + data_bytes:
        missing = preamble.data_at + data_bytes - source.size
        raise IntegrityError(f"file: {abs(missing)} bytes too {'short' if missing > 0 else 'long'}")


def _read_table(source: ByteSource, envelope: Envelope) -> bytes:
    sealed = read(source, envelope.preamble.table_at, envelope.preamble.table_bytes)
    if merkle.digest("table", sealed) != envelope.manifest.table_hash:
        raise IntegrityError("table: was altered")
    return sealed


def _lengths(index: bytes) -> bytes:
    entries: bytes = np.frombuffer(index, dtype=np.uint8).reshape(-1, INDEX_ENTRY_BYTES)[:, :4].tobytes()
    return entries
