"""How a part's data is cut into chunks, and what each chunk's encryption is bound to.

Source: docs/spec/sealed-model.md, sections 1 and 2.2.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from mibao.crypto.aead import TAG_BYTES
from mibao.crypto.kdf import domain_tag
from mibao.types import RandomId

_WHERE = struct.Struct(">IIQI")


class Chunk(NamedTuple):
    """One chunk of a part: where its plaintext and its ciphertext lie, counted from the part's first byte."""

    part: int
    counter: int
    segment: int
    number: int
    begin: int
    length: int

    @property
    def cipher_begin(self) -> int:
        """Where its ciphertext begins within the part's ciphertext."""
        return self.begin + self.counter * TAG_BYTES

    @property
    def cipher_length(self) -> int:
        """Bytes of its ciphertext and tag."""
        return self.length + TAG_BYTES

    @property
    def nonce(self) -> bytes:
        """12 bytes that no other chunk under the part's key has."""
        return bytes(4) + self.counter.to_bytes(8, "big")

    def associated_data(self, file_id: RandomId) -> bytes:
        """Binds the chunk to its file, part, segment, number and length."""
        where = _WHERE.pack(self.part, self.segment, self.number, self.length)
        return domain_tag("sealed/chunk", file_id.value, where)


class PartChunks(Sequence[Chunk]):
    """All chunks of one part, in order."""

    __slots__ = ("_begins", "_lengths", "_numbers", "_segments", "data_bytes", "part")

    def __init__(self, part: int, segment_lengths: Sequence[int], *, chunk_bytes: int) -> None:
        sizes = np.asarray([length for length in segment_lengths if length], dtype=np.int64)
        counts = -(-sizes // chunk_bytes)
        self.part = part
        self.data_bytes = int(sizes.sum())
        self._segments: ndarray = np.repeat(np.arange(len(sizes), dtype=np.int64), counts)
        first_chunks = np.cumsum(counts) - counts
        self._numbers = np.arange(int(counts.sum()), dtype=np.int64) - first_chunks[self._segments]
        within = self._numbers * chunk_bytes
        self._begins = (np.cumsum(sizes) - sizes)[self._segments] + within
        self._lengths = np.minimum(sizes[self._segments] - within, chunk_bytes)

    def __len__(self) -> int:
        return len(self._begins)

    def __getitem__(self, counter: int) -> Chunk:  # type: ignore[override]
        return Chunk(
            self.part,
            counter,
            int(self._segments[counter]),
            int(self._numbers[counter]),
            int(self._begins[counter]),
            int(self._lengths[counter]),
        )

    @property
    def cipher_bytes(self) -> int:
        """Bytes of all ciphertexts and tags."""
        return self.data_bytes + len(self) * TAG_BYTES

    @property
    def longest(self) -> int:
        """Bytes of plaintext in the longest chunk."""
        return int(self._lengths.max(initial=0))

    def overlapping(self, begin: int, end: int) -> range:
        """The counters of the chunks that hold the data bytes ``[begin, end)``."""
        if begin >= end:
            return range(0)
        first = int(np.searchsorted(self._begins, begin, side="right")) - 1
        return range(first, int(np.searchsorted(self._begins, end, side="left")))

    def index_lengths(self) -> bytes:
        """The length fields of this part's index entries, 4 bytes each, one after the other."""
        lengths: bytes = (self._lengths + TAG_BYTES).astype(">u4").tobytes()
        return lengths
