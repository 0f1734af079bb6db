"""Seal: source parts in, the bytes of a sealed file out. No file, clock or entropy is touched here.

Source: docs/spec/sealed-model.md, sections 2 and 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mibao.crypto.aead import TAG_BYTES
from mibao.crypto.keys import SignerPrivateKey
from mibao.crypto.sign import SIGNATURE_BYTES
from mibao.events import ModelSealed
from mibao.sealed import manifest as manifests
from mibao.sealed import merkle, model_table, recipients
from mibao.sealed.chunks import PartChunks
from mibao.sealed.file_keys import FileKeys
from mibao.sealed.layout import (
    INDEX_ENTRY_BYTES,
    SELECTOR_OPEN_BYTES,
    Preamble,
    Selector,
)
from mibao.sealed.manifest import Manifest, PartFacts
from mibao.sealed.model_table import Layout, ModelTable, PartTable
from mibao.sealed.recipients import Recipient
from mibao.sealed.source import ByteSink, ByteSource
from mibao.sealed.workers import Progress, over, silent, thread_count
from mibao.types import RandomId

CHUNK_BYTES = 1 << 20  # measured: an eighth less CPU than 512 KiB, a quarter less than 256 KiB


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePart:
    """One file to seal: what the table says of it, and where its data lies."""

    table: PartTable
    source: ByteSource
    data_at: int
    data_bytes: int

    @property
    def plaintext_bytes(self) -> int:
        """The size of the file it came from."""
        return len(self.table.header) + self.data_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceModel:
    """All files of one model: its shards, and what lies beside them."""

    layout: Layout
    shards: tuple[SourcePart, ...]
    side_files: tuple[SourcePart, ...] = ()

    @property
    def parts(self) -> tuple[SourcePart, ...]:
        """Shards, then side files."""
        return self.shards + self.side_files


@dataclass(frozen=True, slots=True, kw_only=True)
class SealReport:
    """What was sealed. ``event`` is the record for a ledger."""

    file_id: RandomId
    signer: RandomId
    model_id: str
    version: int
    recipients: tuple[RandomId, ...]
    shards: int
    side_files: int
    chunks: int
    plaintext_bytes: int
    sealed_bytes: int
    event: ModelSealed


def seal_to(
    sink: ByteSink,
    model: SourceModel,
    *,
    to: Sequence[Recipient],
    signer: SignerPrivateKey,
    model_id: str,
    version: int,
    file_id: RandomId,
    file_key: bytes,
    chunk_bytes: int = CHUNK_BYTES,
    progress: Progress = silent,
) -> SealReport:
    """Write the sealed form of ``model`` to ``sink``, reading every byte of the source once.

    Args:
        file_id: 16 random bytes.
        file_key: 32 random bytes, fresh for this call: used twice, nonces repeat.

    Raises:
        InputError: the source, the recipients, the model id or the version are not what can be sealed.
        IntegrityError: the source ended before its size.
    """
    keys = FileKeys(file_key, file_id)
    stanzas = [recipients.wrap(keys, each, signer=signer.key_id) for each in to]
    recipients.check_recipients(stanzas)
    cut = [
        PartChunks(number, part.table.segment_lengths(part.data_bytes), chunk_bytes=chunk_bytes)
        for number, part in enumerate(model.parts)
    ]
    table = ModelTable(layout=model.layout, parts=tuple(part.table for part in model.parts))
    sealed_table = model_table.encrypt(model_table.encode(table), keys)
    blank = [PartFacts(data_bytes=each.data_bytes, chunks=len(each), root=bytes(merkle.HASH_BYTES)) for each in cut]
    split = len(model.shards)
    draft = Manifest(
        file_id=file_id,
        signer=signer.key_id,
        model_id=model_id,
        version=version,
        commitment=keys.commitment,
        table_hash=merkle.digest("table", sealed_table),
        table_bytes=len(sealed_table),
        chunk_bytes=chunk_bytes,
        shards=tuple(blank[:split]),
        side_files=tuple(blank[split:]),
    )
    preamble = Preamble(
        slot_bytes=recipients.slot_bytes_for(stanzas),
        manifest_bytes=len(manifests.encode(draft)),  # roots have one length, whatever they are
        signature_bytes=SIGNATURE_BYTES[signer.suite],
        table_bytes=len(sealed_table),
        index_bytes=sum(len(each) for each in cut) * INDEX_ENTRY_BYTES,
    )
    sink.reserve(preamble.data_at + sum(each.cipher_bytes for each in cut))
    indexes = _encrypt_parts(sink, model, cut, keys, data_at=preamble.data_at, progress=progress)
    facts = [replace(part, root=merkle.root(index)) for part, index in zip(blank, indexes, strict=True)]
    manifest = replace(draft, shards=tuple(facts[:split]), side_files=tuple(facts[split:]))
    header = _header(preamble, keys, manifest, signer, recipients.encode_slot(stanzas, slot_bytes=preamble.slot_bytes))
    sink.write_at(0, b"".join([header, sealed_table, *indexes, bytes(preamble.data_at - preamble.padding_at)]))
    return _report(model, manifest, recipients_=tuple(each.key_id for each in stanzas), data_at=preamble.data_at)


def signed_selector(keys: FileKeys, preamble: Preamble, slot: bytes, *, active: int, rewrapping: bool) -> Selector:
    """The selector that makes ``slot`` the list of recipients, with its header MAC."""
    unsigned = Selector(active=active, rewrapping=rewrapping, mac=bytes(merkle.HASH_BYTES))
    return replace(unsigned, mac=header_mac(keys, preamble, unsigned, slot))


def header_mac(keys: FileKeys, preamble: Preamble, selector: Selector, slot: bytes) -> bytes:
    """The MAC over everything that is not signed: preamble, selector, and the active slot with its padding."""
    return keys.header_mac(preamble.pack() + selector.pack()[:SELECTOR_OPEN_BYTES] + slot)


def _header(preamble: Preamble, keys: FileKeys, manifest: Manifest, signer: SignerPrivateKey, slot: bytes) -> bytes:
    signed = manifests.encode(manifest)
    selector = signed_selector(keys, preamble, slot, active=0, rewrapping=False)
    regions = (preamble.pack(), selector.pack(), signed, manifests.sign(signed, signer), slot, bytes(len(slot)))
    return b"".join(regions)


def _report(model: SourceModel, manifest: Manifest, *, recipients_: tuple[RandomId, ...], data_at: int) -> SealReport:
    plaintext_bytes = sum(part.plaintext_bytes for part in model.parts)
    chunks = sum(part.chunks for part in manifest.parts)
    sealed_bytes = data_at + sum(part.data_bytes for part in manifest.parts) + chunks * TAG_BYTES
    return SealReport(
        file_id=manifest.file_id,
        signer=manifest.signer,
        model_id=manifest.model_id,
        version=manifest.version,
        recipients=recipients_,
        shards=len(manifest.shards),
        side_files=len(manifest.side_files),
        chunks=chunks,
        plaintext_bytes=plaintext_bytes,
        sealed_bytes=sealed_bytes,
        event=ModelSealed(
            file=manifest.file_id,
            signer=manifest.signer,
            version=manifest.version,
            recipients=len(recipients_),
            plaintext_bytes=plaintext_bytes,
            sealed_bytes=sealed_bytes,
        ),
    )


def _encrypt_parts(
    sink: ByteSink, model: SourceModel, cut: Sequence[PartChunks], keys: FileKeys, *, data_at: int, progress: Progress
) -> list[bytes]:
    """Write all data; the index of each part."""
    indexes = []
    for part, chunks in zip(model.parts, cut, strict=True):
        index = bytearray(len(chunks) * INDEX_ENTRY_BYTES)
        worker = _encryptor(sink, part, chunks, keys, index=index, data_at=data_at, progress=progress)
        over(range(len(chunks)), worker, threads=thread_count(part.data_bytes))
        indexes.append(bytes(index))
        data_at += chunks.cipher_bytes
    return indexes


def _encryptor(
    sink: ByteSink,
    part: SourcePart,
    chunks: PartChunks,
    keys: FileKeys,
    *,
    index: bytearray,
    data_at: int,
    progress: Progress,
) -> Callable[[], Callable[[int], None]]:
    cipher = keys.part_cipher(chunks.part)
    longest = chunks.longest

    def worker() -> Callable[[int], None]:
        plain_buffer = memoryview(bytearray(longest))
        sealed_buffer = memoryview(bytearray(longest + TAG_BYTES))

        def encrypt(counter: int) -> None:
            chunk = chunks[counter]
            plain, sealed = plain_buffer[: chunk.length], sealed_buffer[: chunk.cipher_length]
            part.source.read_into(part.data_at + chunk.begin, plain)
            cipher.seal_into(chunk.nonce, plain, chunk.associated_data(keys.file_id), sealed)
            at = counter * INDEX_ENTRY_BYTES
            index[at : at + INDEX_ENTRY_BYTES] = merkle.index_entry(sealed)
            sink.write_at(data_at + chunk.cipher_begin, sealed)
            progress(chunk.length)

        return encrypt

    return worker
