"""Chunks of an open file: each read once into a private buffer, hashed, compared with the signed index, decrypted.

Source: docs/spec/sealed-model.md, section 5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mibao.crypto.aead import TAG_BYTES
from mibao.errors import IntegrityError
from mibao.sealed import merkle
from mibao.sealed.chunks import Chunk
from mibao.sealed.large_pages import readier
from mibao.sealed.layout import INDEX_ENTRY_BYTES
from mibao.sealed.memory import fresh_memory
from mibao.sealed.opening import Envelope, OpenedFile, OpenedPart, read_indexes
from mibao.sealed.source import ByteSource
from mibao.sealed.workers import Progress, over, silent, thread_count


class Piece(NamedTuple):
    """Where a chunk goes: ``out`` takes the bytes of its plaintext from ``skip`` on."""

    counter: int
    skip: int
    out: memoryview


def verify_chunks(source: ByteSource, envelope: Envelope, *, progress: Progress = silent) -> int:
    """Compare every chunk's ciphertext with the signed index, without any decryption key; how many there were.

    Raises:
        IntegrityError: a chunk, the index or the padding was altered.
    """
    index = b"".join(read_indexes(source, envelope))
    lengths = np.frombuffer(index, dtype=np.uint8).reshape(-1, INDEX_ENTRY_BYTES)[:, :4].copy().view(">u4").ravel()
    ends = envelope.preamble.data_at + np.cumsum(lengths, dtype=np.int64)
    if int(lengths.max(initial=0)) > envelope.manifest.chunk_bytes + TAG_BYTES:
        raise IntegrityError("index: a chunk is longer than the signed size of chunks")

    def worker() -> Callable[[int], None]:
        buffer = memoryview(bytearray(envelope.manifest.chunk_bytes + TAG_BYTES))

        def verify(number: int) -> None:
            length = int(lengths[number])
            chunk = buffer[:length]
            source.read_into(int(ends[number]) - length, chunk)
            at = number * INDEX_ENTRY_BYTES
            if merkle.index_entry(chunk) != index[at : at + INDEX_ENTRY_BYTES]:
                raise IntegrityError(f"data: chunk {number} was altered")
            progress(length)

        return verify

    if int(lengths.sum(dtype=np.int64)) != source.size - envelope.preamble.data_at:
        raise IntegrityError("index: its lengths are not those of the data")
    over(range(len(lengths)), worker, threads=thread_count(source.size))
    return len(lengths)


def decrypt_into(opened: OpenedFile, part: OpenedPart, counters: range, out: memoryview) -> None:
    """Check and decrypt whole chunks into ``out``, which begins where the first of them does.

    Raises:
        IntegrityError: names the first chunk that failed; everything this call wrote to ``out`` is wiped.
    """
    if not counters:
        return
    origin = part.chunks[counters[0]].begin
    ready = readier(out)

    def worker() -> Callable[[int], None]:
        read_checked = _checked_reader(opened, part)

        def decrypt(counter: int) -> None:
            chunk = part.chunks[counter]
            place = chunk.begin - origin
            ready(place, place + chunk.length)
            read_checked(chunk, out[place : place + chunk.length])

        return decrypt

    try:
        over(counters, worker, threads=thread_count(out.nbytes))
    except BaseException:
        wipe(out)
        raise


def decrypt_pieces(opened: OpenedFile, part: OpenedPart, pieces: Sequence[Piece]) -> None:
    """Check and decrypt chunks each to a place of its own; one that is wanted in part goes by way of a buffer.

    Raises:
        IntegrityError: names the first chunk that failed; the places of all pieces are wiped.
    """
    buffers: list[memoryview] = []

    def worker() -> Callable[[int], None]:
        read_checked = _checked_reader(opened, part)
        plain = fresh_memory(opened.envelope.manifest.chunk_bytes)
        buffers.append(plain)

        def decrypt(number: int) -> None:
            counter, skip, out = pieces[number]
            chunk = part.chunks[counter]
            if out.nbytes == chunk.length:
                read_checked(chunk, out)
            else:
                read_checked(chunk, plain[: chunk.length])
                out[:] = plain[skip : skip + out.nbytes]

        return decrypt

    try:
        over(range(len(pieces)), worker, threads=thread_count(sum(piece.out.nbytes for piece in pieces)))
    except BaseException:
        for piece in pieces:
            wipe(piece.out)
        raise
    finally:
        for plain in buffers:
            wipe(plain)


def overlaps(part: OpenedPart, begin: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Each chunk that holds some of the part's bytes ``[begin, end)``: its counter, how many of its bytes to skip, and
    which bytes of the range it gives."""
    for counter in part.chunks.overlapping(begin, end):
        chunk = part.chunks[counter]
        first, last = max(begin, chunk.begin), min(end, chunk.begin + chunk.length)
        yield counter, first - chunk.begin, first - begin, last - begin


def decrypt_range(opened: OpenedFile, part: OpenedPart, begin: int, out: memoryview) -> None:
    """Fill ``out`` with the part's bytes from ``begin`` on. Raises as :func:`decrypt_pieces`."""
    found = overlaps(part, begin, begin + out.nbytes)
    decrypt_pieces(opened, part, [Piece(counter, skip, out[first:last]) for counter, skip, first, last in found])


def decrypt_each(
    opened: OpenedFile,
    part: OpenedPart,
    deliver: Callable[[Chunk, memoryview], None],
    *,
    progress: Progress = silent,
) -> None:
    """Check and decrypt every chunk into a buffer of its thread's own, and ``deliver`` it from there.

    Raises:
        IntegrityError: names the first chunk that failed; what was delivered before is the caller's to destroy.
    """
    buffers: list[memoryview] = []

    def worker() -> Callable[[int], None]:
        read_checked = _checked_reader(opened, part)
        plain = fresh_memory(opened.envelope.manifest.chunk_bytes)
        buffers.append(plain)

        def decrypt(counter: int) -> None:
            chunk = part.chunks[counter]
            read_checked(chunk, plain[: chunk.length])
            deliver(chunk, plain[: chunk.length])
            progress(chunk.length)

        return decrypt

    try:
        over(range(len(part.chunks)), worker, threads=thread_count(part.chunks.data_bytes))
    finally:
        for plain in buffers:
            wipe(plain)


def wipe(buffer: memoryview) -> None:
    """Zero all of ``buffer``."""
    np.frombuffer(buffer, dtype=np.uint8).fill(0)


def _checked_reader(opened: OpenedFile, part: OpenedPart) -> Callable[[Chunk, memoryview], None]:
    buffer = memoryview(bytearray(opened.envelope.manifest.chunk_bytes + TAG_BYTES))
    file_id = opened.keys.file_id

    def read_checked(chunk: Chunk, out: memoryview) -> None:
        # The copy that is hashed is the copy that is decrypted: bytes swapped in the file in between gain nothing.
        sealed = buffer[: chunk.cipher_length]
        opened.source.read_into(part.data_at + chunk.cipher_begin, sealed)
        at = chunk.counter * INDEX_ENTRY_BYTES
        if merkle.index_entry(sealed) != part.index[at : at + INDEX_ENTRY_BYTES]:
            raise IntegrityError(f"{_where(part, chunk)} was altered")
        try:
            part.cipher.open_into(chunk.nonce, sealed, chunk.associated_data(file_id), out)
        except IntegrityError as error:
            raise IntegrityError(f"{_where(part, chunk)} was not sealed as it is signed") from error

    return read_checked


def _where(part: OpenedPart, chunk: Chunk) -> str:
    tensors = [tensor for tensor in part.table.tensors if tensor.nbytes]
    owner = f"tensor {tensors[chunk.segment].name!r}" if tensors else f"file {part.table.name!r}"
    return f"data: chunk {chunk.number} of {owner}"
