"""The index of ciphertext chunks and the Merkle root that is signed.

Source: RFC 6962, section 2.1, with BLAKE3's ``derive_key`` contexts in place of prefixed SHA-256.
"""

from __future__ import annotations

from blake3 import blake3

from mibao.crypto.aead import Buffer
from mibao.sealed.layout import INDEX_ENTRY_BYTES

HASH_BYTES = 32


def digest(name: str, data: Buffer) -> bytes:
    """``H(name, data)`` of the specification: 32 bytes, one function for each name."""
    return blake3(data, derive_key_context=f"mibao/v1/sealed/{name}").digest()


def index_entry(chunk: Buffer) -> bytes:
    """The 36 bytes that stand in the index for one chunk: its length and its hash."""
    return memoryview(chunk).nbytes.to_bytes(4, "big") + digest("chunk", chunk)


def root(entries: bytes) -> bytes:
    """The Merkle root over index entries of 36 bytes each, which stand one after the other in ``entries``."""
    level = [
        digest("leaf", entries[at : at + INDEX_ENTRY_BYTES]) for at in range(0, len(entries), INDEX_ENTRY_BYTES)
    ] or [digest("leaf", b"")]
    # Pairing neighbours and carrying an odd last one up gives the tree of RFC 6962, level by level.
    while len(level) > 1:
        paired = [digest("node", level[at] + level[at + 1]) for at in range(0, len(level) - 1, 2)]
        level = paired + level[len(paired) * 2 :]
    return level[0]
