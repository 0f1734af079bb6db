"""Sealed models as files: seal, open, verify, inspect. Entropy enters here.

Source: docs/spec/sealed-model.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mibao.codec.tensor_table import TensorSpec
from mibao.crypto import rng
from mibao.crypto.keys import SignerPrivateKey, SignerPublicKey
from mibao.errors import InputError
from mibao.events import ModelOpened
from mibao.sealed import opening, reading, rewrapping
from mibao.sealed import recipients as recipients_
from mibao.sealed.chunks import Chunk
from mibao.sealed.file_keys import FILE_KEY_BYTES
from mibao.sealed.files import (
    PUBLIC_MODE,
    SECRET_MODE,
    FileSink,
    FileSource,
    StrPath,
    file_within,
    locked,
    whole_file,
    whole_folder,
)
from mibao.sealed.memory import fresh_memory
from mibao.sealed.model_table import Layout
from mibao.sealed.opening import OpenedFile, OpenedPart
from mibao.sealed.recipients import Identity, Recipient
from mibao.sealed.rewrapping import Rewrap
from mibao.sealed.sealing import SealReport, seal_to
from mibao.sealed.source import ByteSource, read
from mibao.sealed.source_files import source_model
from mibao.sealed.source_places import ModelPlace, opened_place
from mibao.sealed.state_file import VersionState
from mibao.sealed.workers import Progress, silent
from mibao.types import RandomId

COPY_BYTES = 1 << 22
UNCHECKED = ("the list of recipients", "the contents of the encrypted table")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenReport:
    """What was opened, every byte of the file accounted for. ``event`` is the record for a ledger."""

    file_id: RandomId
    signer: RandomId
    model_id: str
    version: int
    recipient: RandomId
    plaintext_bytes: int
    event: ModelOpened


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What the pinned signer vouches for, checked without a decryption key; ``unchecked`` says what was not."""

    file_id: RandomId
    signer: RandomId
    model_id: str
    version: int
    shards: int
    side_files: int
    chunks: int
    sealed_bytes: int
    unchecked: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What a file says of itself. Nobody's signature was checked: to look at, never to act on.

    ``tensors`` are the tensors of each shard by its name, and None without a recipient's key.
    """

    file_id: RandomId
    signer: RandomId
    model_id: str
    version: int
    shards: int
    side_files: int
    chunks: int
    chunk_bytes: int
    data_bytes: int
    sealed_bytes: int
    recipients: tuple[tuple[str, RandomId], ...]
    post_quantum: bool
    rewrap_interrupted: bool
    tensors: dict[str, tuple[TensorSpec, ...]] | None


def seal(
    source_path: StrPath,
    output_path: StrPath,
    *,
    recipients: Sequence[Recipient],
    signer: SignerPrivateKey,
    model_id: str,
    version: int = 1,
    progress: Progress = silent,
) -> SealReport:
    """Seal a ``.safetensors`` file, a checkpoint's folder, or any one file; the output appears whole or not at all.

    Args:
        recipients: Who can open it.
        signer: Whose model it is; readers pin the public half.
        model_id: What the model is called; public.
        version: Grows with each release of ``model_id``, so that readers can refuse older ones.
        progress: Called with the bytes just done, from any thread.

    Raises:
        InputError: the source is not what it says, a recipient stands twice, or the output cannot be written.
    """
    file_id, file_key = rng.random_id(), rng.random_bytes(FILE_KEY_BYTES)
    with source_model(Path(source_path)) as model, whole_file(Path(output_path), mode=PUBLIC_MODE) as sink:
        return seal_to(
            sink,
            model,
            to=recipients,
            signer=signer,
            model_id=model_id,
            version=version,
            file_id=file_id,
            file_key=file_key,
            progress=progress,
        )


def open_sealed(
    path: ModelPlace,
    output_path: StrPath | None,
    *,
    identity: Identity,
    signer: SignerPublicKey,
    min_version: int | None = None,
    state: VersionState | None = None,
    progress: Progress = silent,
) -> OpenReport:
    """Write the exact bytes that were sealed to ``output_path``: a file, or a new folder; None only checks them.

    Args:
        min_version: Refuse a lower version.
        state: Refuse what is older than, or another model than, the version opened before; advanced once all is
            checked, before the output appears. None keeps and asks no state.

    Raises:
        InputError: ``path`` is not a sealed model, or the output cannot be written.
        IntegrityError: names what was altered, or a version refused; nothing is left at the output.
        KeyMismatch: not sealed to ``identity``, or not signed by ``signer``.
    """
    with opened_place(path) as source:
        opened = open_file(source, identity=identity, signer=signer, min_version=min_version, state=state)
        if output_path is None:
            for part in opened.parts:
                reading.decrypt_each(opened, part, lambda chunk, plain: None, progress=progress)
            record(state, opened)
        elif opened.table.layout is Layout.FILE:
            with whole_file(Path(output_path), mode=SECRET_MODE) as sink:
                _write_part(opened, opened.parts[0], sink, progress)
                record(state, opened)
        else:
            with whole_folder(Path(output_path)) as folder:
                for part in opened.parts:
                    _write_into(opened, part, folder, progress)
                record(state, opened)
        return _open_report(opened)


def open_bytes(
    path: ModelPlace,
    *,
    identity: Identity,
    signer: SignerPublicKey,
    min_version: int | None = None,
    state: VersionState | None = None,
) -> bytes:
    """The exact bytes of the one file that was sealed. Python keeps them until it likes: they cannot be wiped.

    Raises:
        InputError: not a sealed model, or a folder of several files.
        IntegrityError: names the part of the file that was altered, or a version refused.
        KeyMismatch: not sealed to ``identity``, or not signed by ``signer``.
    """
    with opened_place(path) as source:
        opened = open_file(source, identity=identity, signer=signer, min_version=min_version, state=state)
        if opened.table.layout is not Layout.FILE:
            raise InputError("expected a model of one file, got a folder: open it to a folder")
        part = opened.parts[0]
        whole = fresh_memory(len(part.table.header) + part.chunks.data_bytes)
        whole[: len(part.table.header)] = part.table.header
        reading.decrypt_into(opened, part, range(len(part.chunks)), whole[len(part.table.header) :])
        record(state, opened)
        return bytes(whole)


def verify(
    path: ModelPlace,
    *,
    signer: SignerPublicKey,
    min_version: int | None = None,
    state: VersionState | None = None,
    progress: Progress = silent,
) -> VerifyReport:
    """Check signature, table hash, index, padding and every chunk's hash, without any decryption key.

    Args:
        min_version: Refuse a lower version.
        state: Refuse what an opening with this state would refuse. It is not advanced: whether the reader can open
            the file at all is not known here.

    Raises:
        InputError: not a sealed model.
        IntegrityError: names the part of the file that was altered, or a version refused.
        KeyMismatch: not signed by ``signer``.
    """
    with opened_place(path) as source:
        envelope = opening.read_verified(source, signer=signer, min_version=min_version)
        if state is not None:
            state.check(envelope.manifest)
        opening.read_header(source, envelope.preamble)
        opening.verify_table(source, envelope)
        chunks = reading.verify_chunks(source, envelope, progress=progress)
        manifest = envelope.manifest
        return VerifyReport(
            file_id=manifest.file_id,
            signer=manifest.signer,
            model_id=manifest.model_id,
            version=manifest.version,
            shards=len(manifest.shards),
            side_files=len(manifest.side_files),
            chunks=chunks,
            sealed_bytes=source.size,
            unchecked=UNCHECKED,
        )


def inspect(path: ModelPlace, *, identity: Identity | None = None) -> Inspection:
    """What the file says of itself, and with a recipient's key its tensors. No signature is checked.

    Raises:
        InputError: not a sealed model.
        IntegrityError: not well formed.
        KeyMismatch: not sealed to ``identity``.
    """
    with opened_place(path) as source:
        envelope = opening.read_unverified(source)
        header = opening.read_header(source, envelope.preamble)
        manifest = envelope.manifest
        tensors = None
        if identity is not None:
            table = opening.open_file(source, envelope, identity).table
            tensors = {part.name: part.tensors for part in table.parts[: len(manifest.shards)]}
        return Inspection(
            file_id=manifest.file_id,
            signer=manifest.signer,
            model_id=manifest.model_id,
            version=manifest.version,
            shards=len(manifest.shards),
            side_files=len(manifest.side_files),
            chunks=sum(part.chunks for part in manifest.parts),
            chunk_bytes=manifest.chunk_bytes,
            data_bytes=sum(part.data_bytes for part in manifest.parts),
            sealed_bytes=source.size,
            recipients=tuple((each.kind, each.key_id) for each in header.stanzas),
            post_quantum=all(recipients_.is_post_quantum(each) for each in header.stanzas),
            rewrap_interrupted=header.selector.rewrapping,
            tensors=tensors,
        )


def rewrap(
    path: StrPath,
    *,
    identity: Identity,
    add: Sequence[Recipient] = (),
    remove: Sequence[RandomId] = (),
) -> tuple[RandomId, ...]:
    """Change who can open the file at ``path``; the ids of its recipients afterwards. Data bytes stay as they are.

    Safe against a crash at any point. A recipient removed can still open copies made before, and keeps the file key.

    Raises:
        InputError: nobody would be left, a key stands twice, one to remove is not there, or the file is read-only.
        IntegrityError: the file was altered where its recipients stand.
        KeyMismatch: not sealed to ``identity``.
    """
    if "://" in str(path):
        raise InputError("rewrap: expected a file on this machine, got an address")
    with FileSource(Path(path)) as source, locked(Path(path)) as sink:
        change = rewrapping.plan(source, identity, add=add, remove=remove)
        if change.fits:
            for step, (offset, data) in enumerate(rewrapping.steps(change)):
                if step:
                    sink.sync()  # what was written is durable before the next step; the last one only tidies up
                sink.write_at(offset, data)
        else:
            _enlarge(Path(path), source, change)
    return tuple(each.key_id for each in change.stanzas)


def _enlarge(path: Path, source: FileSource, change: Rewrap) -> None:
    old = change.envelope.preamble
    signed = read(source, old.manifest_at, old.manifest_bytes + old.signature_bytes)
    preamble, header = rewrapping.larger_header(change, signed)
    with whole_file(path, mode=PUBLIC_MODE) as sink:
        sink.write_at(0, header)
        sink.write_at(preamble.table_at, read(source, old.table_at, old.table_bytes + old.index_bytes))
        for at in range(0, source.size - old.data_at, COPY_BYTES):
            piece = read(source, old.data_at + at, min(COPY_BYTES, source.size - old.data_at - at))
            sink.write_at(preamble.data_at + at, piece)
        sink.write_at(preamble.padding_at, bytes(preamble.data_at - preamble.padding_at))


def open_file(
    source: ByteSource,
    *,
    identity: Identity,
    signer: SignerPublicKey,
    min_version: int | None,
    state: VersionState | None,
) -> OpenedFile:
    """Everything but the data, checked and decrypted; ``state`` is asked and not yet advanced: :func:`record` does.

    Raises:
        InputError: not a sealed model.
        IntegrityError: names the part of the file that was altered, or a version refused.
        KeyMismatch: not sealed to ``identity``, or not signed by ``signer``.
    """
    envelope = opening.read_verified(source, signer=signer, min_version=min_version)
    if state is not None:
        state.check(envelope.manifest)
    return opening.open_file(source, envelope, identity)


def record(state: VersionState | None, opened: OpenedFile) -> None:
    """Advance ``state``, if there is one, to what :func:`open_file` opened. Raises as :meth:`VersionState.record`."""
    if state is not None:
        state.record(opened.envelope.manifest)


def _write_part(opened: OpenedFile, part: OpenedPart, sink: FileSink, progress: Progress) -> None:
    header = part.table.header
    sink.reserve(len(header) + part.chunks.data_bytes)
    sink.write_at(0, header)

    def deliver(chunk: Chunk, plain: memoryview) -> None:
        sink.write_at(len(header) + chunk.begin, plain)

    reading.decrypt_each(opened, part, deliver, progress=progress)


def _write_into(opened: OpenedFile, part: OpenedPart, folder: Path, progress: Progress) -> None:
    with file_within(folder / part.table.name, mode=SECRET_MODE) as sink:
        _write_part(opened, part, sink, progress)


def _open_report(opened: OpenedFile) -> OpenReport:
    manifest = opened.envelope.manifest
    return OpenReport(
        file_id=manifest.file_id,
        signer=manifest.signer,
        model_id=manifest.model_id,
        version=manifest.version,
        recipient=opened.recipient,
        plaintext_bytes=sum(len(part.table.header) + part.chunks.data_bytes for part in opened.parts),
        event=ModelOpened(
            file=manifest.file_id, signer=manifest.signer, recipient=opened.recipient, version=manifest.version
        ),
    )
