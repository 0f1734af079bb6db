"""Merkle trees over a list that only grows: roots, inclusion proofs, consistency proofs.

A leaf is hashed behind a byte 0x00 and a node behind 0x01, so that neither can pass for the other. Every list of
leaves has one root, and a proof is a list of at most ``ceil(log2(size)) + 1`` hashes of 32 bytes.

Source: RFC 6962, section 2.1; verification as RFC 9162, sections 2.1.3.2 and 2.1.4.2, words it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mibao.errors import InputError, IntegrityError

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()
MAX_SIZE = 1 << 62


def leaf_hash(data: bytes) -> bytes:
    """The 32-byte hash of one leaf. Source: RFC 6962, section 2.1."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The 32-byte hash over two subtrees. Source: RFC 6962, section 2.1."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """All that is needed of a tree to append to it: its size and the roots of its full subtrees, largest first."""

    size: int
    peaks: tuple[bytes, ...]

    def extended(self, leaf_hashes: Iterable[bytes]) -> Frontier:
        """The frontier after these leaves, in amortised constant time a leaf."""
        size, peaks = self.size, list(self.peaks)
        for leaf in leaf_hashes:
            subtree, carry = leaf, size
            while carry & 1:
                subtree = node_hash(peaks.pop(), subtree)
                carry >>= 1
            peaks.append(subtree)
            size += 1
        return Frontier(size=size, peaks=tuple(peaks))

    @property
    def root(self) -> bytes:
        """The root of the whole tree."""
        if not self.peaks:
            return EMPTY_ROOT
        *others, root = self.peaks
        for peak in reversed(others):
            root = node_hash(peak, root)
        return root

    def spans(self) -> list[range]:
        """The positions of the leaves under each peak."""
        spans, start = [], 0
        for level in range(self.size.bit_length() - 1, -1, -1):
            if self.size >> level & 1:
                spans.append(range(start, start + (1 << level)))
                start += 1 << level
        return spans

    def encode(self) -> bytes:
        """The peaks, one after the other."""
        return b"".join(self.peaks)

    @classmethod
    def decode(cls, data: bytes, *, size: int) -> Frontier:
        """The frontier of a tree of ``size`` leaves.

        Raises:
            IntegrityError: ``data`` is not as long as a tree of that size demands.
        """
        if not 0 <= size <= MAX_SIZE or len(data) != HASH_BYTES * size.bit_count():
            raise IntegrityError("frontier: its length does not fit the size of the tree")
        starts = range(0, len(data), HASH_BYTES)
        return cls(size=size, peaks=tuple(data[start : start + HASH_BYTES] for start in starts))


EMPTY = Frontier(size=0, peaks=())


def root(leaf_hashes: Iterable[bytes]) -> bytes:
    """The root over these leaf hashes; of none, the hash of the empty string. Source: RFC 6962, section 2.1."""
    return EMPTY.extended(leaf_hashes).root


def inclusion_proof(leaf_hashes: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """The hashes that lead from the leaf at ``index`` to the root, lowest first.

    Raises:
        InputError: there is no leaf at ``index``.

    Source: RFC 6962, section 2.1.1.
    """
    if not 0 <= index < len(leaf_hashes):
        raise InputError(f"inclusion proof: expected an index below {len(leaf_hashes)}, got {index}")
    path: list[bytes] = []
    start, stop = 0, len(leaf_hashes)
    while stop - start > 1:
        middle = start + _left_size(stop - start)
        if index < middle:
            path.append(root(leaf_hashes[middle:stop]))
            stop = middle
        else:
            path.append(root(leaf_hashes[start:middle]))
            start = middle
    return tuple(reversed(path))


def verify_inclusion(leaf: bytes, *, index: int, size: int, proof: Sequence[bytes], expected_root: bytes) -> None:
    """Return if ``leaf`` (a leaf hash) stands at ``index`` in the tree of ``size`` leaves with this root.

    Raises:
        IntegrityError: the proof does not lead from that leaf to that root.

    Source: RFC 9162, section 2.1.3.2.
    """
    if not 0 <= index < size <= MAX_SIZE:
        raise IntegrityError("inclusion proof: the index lies outside the tree")
    node, last, running = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise IntegrityError("inclusion proof: too long")
        if node & 1 or node == last:
            running = node_hash(sibling, running)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            running = node_hash(running, sibling)
        node, last = node >> 1, last >> 1
    if last != 0:
        raise IntegrityError("inclusion proof: too short")
    if running != expected_root:
        raise IntegrityError("inclusion proof: it does not lead to the root")


def consistency_proof(leaf_hashes: Sequence[bytes], old_size: int) -> tuple[bytes, ...]:
    """The hashes that show that the first ``old_size`` leaves of this tree are the whole of an older one.

    Raises:
        InputError: the older size exceeds this tree.

    Source: RFC 6962, section 2.1.2.
    """
    if not 0 <= old_size <= len(leaf_hashes):
        raise InputError(f"consistency proof: expected an older size up to {len(leaf_hashes)}, got {old_size}")
    if old_size in (0, len(leaf_hashes)):
        return ()
    path: list[bytes] = []
    start, stop = 0, len(leaf_hashes)
    while stop != old_size:
        middle = start + _left_size(stop - start)
        if old_size <= middle:
            path.append(root(leaf_hashes[middle:stop]))
            stop = middle
        else:
            path.append(root(leaf_hashes[start:middle]))
            start = middle
    if start:
        path.append(root(leaf_hashes[start:stop]))
    return tuple(reversed(path))


def verify_consistency(
    *, old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Return if the tree of ``old_size`` leaves is the beginning of the tree of ``new_size`` leaves.

    Raises:
        IntegrityError: the older tree is larger, or the proof does not lead to both roots.

    Source: RFC 9162, section 2.1.4.2.
    """
    if not 0 <= old_size <= new_size <= MAX_SIZE:
        raise IntegrityError("consistency proof: the older tree is larger than the newer")
    if old_size in (0, new_size):
        expected = EMPTY_ROOT if old_size == 0 else new_root
        if proof or old_root != expected:
            raise IntegrityError("consistency proof: the older root is not the beginning of the newer tree")
        return
    older, newer = _roots_from_consistency(old_size, old_root, new_size, proof)
    if older != old_root:
        raise IntegrityError("consistency proof: it does not lead to the older root")
    if newer != new_root:
        raise IntegrityError("consistency proof: it does not lead to the newer root")


def _roots_from_consistency(
    old_size: int, old_root: bytes, new_size: int, proof: Sequence[bytes]
) -> tuple[bytes, bytes]:
    node, last = old_size - 1, new_size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    # The proof leaves out the older root where that is itself a node of the newer tree.
    path = list(proof) if old_size & (old_size - 1) else [old_root, *proof]
    if not path:
        raise IntegrityError("consistency proof: too short")
    older = newer = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise IntegrityError("consistency proof: too long")
        if node & 1 or node == last:
            older, newer = node_hash(sibling, older), node_hash(sibling, newer)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            newer = node_hash(newer, sibling)
        node, last = node >> 1, last >> 1
    if last != 0:
        raise IntegrityError("consistency proof: too short")
    return older, newer


def _left_size(size: int) -> int:
    """The largest power of two below ``size``, for sizes from 2."""
    return 1 << (size - 1).bit_length() - 1
