"""Inclusion proofs as text: one entry, its index, the hashes up to the root, and the signed checkpoint.

The text holds everything but the signer's public key, so that whoever has that key can check it without the
ledger. It is a C2SP tlog-proof (https://c2sp.org/tlog-proof) whose ``extra`` line holds the bytes of the entry.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

from mibao.crypto.keys import SignerPublicKey
from mibao.errors import IntegrityError
from mibao.ledger import checkpoint as checkpoints
from mibao.ledger import entry as entries
from mibao.ledger import merkle
from mibao.ledger.checkpoint import Checkpoint
from mibao.ledger.entry import Entry

HEADER = "c2sp.org/tlog-proof@v1"
MAX_PROOF_BYTES = 128 * 1024
MAX_HASHES = 64
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,18})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a proof's text holds: ``data`` are the entry's bytes, ``hashes`` lead from its leaf to the root."""

    index: int
    data: bytes
    hashes: tuple[bytes, ...]
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenEntry:
    """An entry that stands at ``index`` in the ledger that signed ``checkpoint``."""

    index: int
    entry: Entry
    checkpoint: Checkpoint


def encode(proof: Proof) -> str:
    """The text of a proof, ending in a newline. Source: C2SP tlog-proof, section Format."""
    hashes = "".join(f"{_base64(node)}\n" for node in proof.hashes)
    return f"{HEADER}\nextra {_base64(proof.data)}\nindex {proof.index}\n{hashes}\n{proof.note}"


def decode(text: str) -> Proof:
    """The proof in ``text``, not yet verified.

    Raises:
        IntegrityError: ``text`` is not a proof in the exact form that :func:`encode` gives it.
    """
    if len(text.encode(errors="replace")) > MAX_PROOF_BYTES:
        raise IntegrityError(f"inclusion proof: expected at most {MAX_PROOF_BYTES} bytes")
    head, _, note = text.partition("\n\n")
    header, *lines = head.split("\n")
    if header != HEADER or len(lines) < 2 or not lines[0].startswith("extra "):
        raise IntegrityError(f"inclusion proof: expected the lines '{HEADER}', 'extra ...' and 'index ...'")
    index = _INDEX.fullmatch(lines[1])
    if not index or len(lines) > 2 + MAX_HASHES:
        raise IntegrityError("inclusion proof: expected an index and at most 64 hashes")
    hashes = tuple(_unbase64(line) for line in lines[2:])
    if any(len(node) != merkle.HASH_BYTES for node in hashes):
        raise IntegrityError(f"inclusion proof: expected hashes of {merkle.HASH_BYTES} bytes")
    return Proof(index=int(index[1]), data=_unbase64(lines[0].removeprefix("extra ")), hashes=hashes, note=note)


def verify(text: str, *, signer: SignerPublicKey) -> ProvenEntry:
    """The entry that a proof shows to be in ``signer``'s ledger.

    Raises:
        InputError: the key is not Ed25519.
        KeyMismatch: the checkpoint in the proof is signed by another key.
        IntegrityError: not a proof, the checkpoint does not verify, the entry is malformed or does not lead to
            the signed root.
    """
    proof = decode(text)
    checkpoint = checkpoints.verify(proof.note, signer)
    merkle.verify_inclusion(
        merkle.leaf_hash(proof.data),
        index=proof.index,
        size=checkpoint.size,
        proof=proof.hashes,
        expected_root=checkpoint.root,
    )
    return ProvenEntry(index=proof.index, entry=entries.decode(proof.data), checkpoint=checkpoint)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _unbase64(text: str) -> bytes:
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise IntegrityError("inclusion proof: not base64") from error
    if _base64(data) != text:
        raise IntegrityError("inclusion proof: not base64 in its one canonical form")
    return data
