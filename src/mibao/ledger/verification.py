"""Whether a stored ledger is what its signer signed, recomputed from the bytes of its entries.

Nothing stored is believed: every leaf hash, the frontier and the root are computed again, and the root must be the
one under the signer's signature. What the stored hashes add is the place: an entry that differs from its own
stored hash is named by its index.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mibao.crypto.keys import SignerPublicKey
from mibao.errors import InputError, IntegrityError, KeyMismatch
from mibao.ledger import checkpoint as checkpoints
from mibao.ledger import merkle
from mibao.ledger import snapshot as snapshots
from mibao.ledger.checkpoint import Checkpoint
from mibao.ledger.log import decode_row, note_text
from mibao.ledger.merkle import Frontier
from mibao.ledger.snapshot import Row, Snapshot

ROLLBACK_CAVEAT = (
    "No saved checkpoint was given: a rollback to an earlier state, or a history rewritten by the holder of the "
    "signer's key, would not be seen."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """A ledger that verified: what it was checked against, and what that leaves open.

    ``saved`` is the older checkpoint that this ledger was shown to continue, or None.
    """

    checkpoint: Checkpoint
    note: str
    saved: Checkpoint | None

    @property
    def caveat(self) -> str | None:
        """The sentence to show when there was no saved checkpoint, else None."""
        return None if self.saved else ROLLBACK_CAVEAT


def verify(
    path: Path, *, signer: SignerPublicKey, saved_checkpoint: str | None = None, origin: str | None = None
) -> Verification:
    """What was verified about the ledger at ``path``; every fault is an exception.

    Args:
        path: The ledger's file; it is not changed and nothing is created beside it.
        signer: The key that must have signed it. Never take it from the ledger's own surroundings.
        saved_checkpoint: A note that this ledger's holder signed earlier, kept elsewhere.
        origin: The name that the ledger must bear, where one signer keeps several.

    Raises:
        InputError: no file, not a ledger, a key of another type, or a saved checkpoint that is none.
        KeyMismatch: the ledger, or the saved checkpoint, is signed by another key.
        IntegrityError: something was altered, dropped, reordered, cut off, added or rewritten; the message names
            it, and ``index`` is the first entry concerned where that can be told.
    """
    checkpoints.check_signer(signer.suite)
    saved = None if saved_checkpoint is None else _read_saved(saved_checkpoint, signer)
    return snapshots.read(path, lambda snapshot: _check(snapshot, signer=signer, saved=saved, origin=origin))


def _check(
    snapshot: Snapshot, *, signer: SignerPublicKey, saved: Checkpoint | None, origin: str | None
) -> Verification:
    head = snapshot.head()
    note = note_text(head)
    checkpoint = checkpoints.verify(note, signer)
    if len(checkpoints.split_note(note)[1]) != 1:
        raise IntegrityError("checkpoint: expected one signature in the ledger's own note")
    if origin is not None and origin != checkpoint.origin:
        raise IntegrityError(f"checkpoint: expected the ledger '{origin}', got '{checkpoint.origin}'")
    stored = Frontier.decode(head.frontier, size=checkpoint.size)
    computed = _check_entries(snapshot, checkpoint=checkpoint, stored=stored, saved=saved)
    if computed != stored:
        raise IntegrityError("frontier: not the one that the entries lead to")
    snapshot.check_write_ahead()
    snapshot.check_pages()
    return Verification(checkpoint=checkpoint, note=note, saved=saved)


def _check_entries(
    snapshot: Snapshot, *, checkpoint: Checkpoint, stored: Frontier, saved: Checkpoint | None
) -> Frontier:
    if saved and saved.origin != checkpoint.origin:
        raise IntegrityError(f"saved checkpoint: of the ledger '{saved.origin}', not '{checkpoint.origin}'")
    if saved and saved.size > checkpoint.size:
        raise IntegrityError(
            f"rolled back: the saved checkpoint covers {saved.size} entries, this ledger {checkpoint.size}"
        )
    leaves = []
    for row in snapshot.rows():
        if row.position >= checkpoint.size:
            raise IntegrityError(f"entry {row.position}: beyond what the checkpoint covers", index=row.position)
        leaves.append(_checked_leaf(row))
    if len(leaves) < checkpoint.size:
        raise IntegrityError(
            f"truncated: entries {len(leaves)} to {checkpoint.size - 1} are missing", index=len(leaves)
        )
    before_saved = merkle.EMPTY.extended(leaves[: saved.size if saved else 0])
    computed = before_saved.extended(leaves[before_saved.size :])
    if computed.root != checkpoint.root:
        raise _misled(computed, stored=stored, checkpoint=checkpoint)
    if saved and before_saved.root != saved.root:
        raise IntegrityError(
            f"rewritten: the first {saved.size} entries are not those that the saved checkpoint covers"
        )
    return computed


def _checked_leaf(row: Row) -> bytes:
    leaf = merkle.leaf_hash(row.entry)
    if leaf != row.leaf_hash:
        raise IntegrityError(f"entry {row.position}: altered, it does not match its stored hash", index=row.position)
    decode_row(row)
    return leaf


def _misled(computed: Frontier, *, stored: Frontier, checkpoint: Checkpoint) -> IntegrityError:
    """Every entry matches its stored hash and the root is another: both were changed, or entries changed places."""
    if stored.root == checkpoint.root:
        for span, found, signed in zip(computed.spans(), computed.peaks, stored.peaks, strict=True):
            if found != signed:
                return IntegrityError(
                    f"entries {span.start} to {span.stop - 1}: altered or reordered together with their stored hashes",
                    index=span.start,
                )
    return IntegrityError("entries: altered or reordered together with their stored hashes")


def _read_saved(note: str, signer: SignerPublicKey) -> Checkpoint:
    try:
        checkpoints.read_unverified(note)
    except IntegrityError as error:
        raise InputError(f"saved checkpoint: {error}") from error
    try:
        return checkpoints.verify(note, signer)
    except (IntegrityError, KeyMismatch) as error:
        raise type(error)(f"saved {error}") from error
