"""An append-only Merkle log of events: RFC 6962 hashing, C2SP signed-note checkpoints, one SQLite file.

    >>> log = ledger.Log.create(path, signer=private_key, origin="example.com/hospital-a")
    >>> log.append(events)
    >>> ledger.verify(path, signer=public_key, saved_checkpoint=note_kept_elsewhere)

The format and what it promises: ``docs/spec/ledger.md``.
"""

from mibao.ledger.checkpoint import Checkpoint
from mibao.ledger.entry import Entry
from mibao.ledger.log import Log, export, prove, prove_consistency, stored_entries, stored_note
from mibao.ledger.proof import ProvenEntry
from mibao.ledger.proof import verify as verify_proof
from mibao.ledger.verification import Verification, verify

__all__ = [
    "Checkpoint",
    "Entry",
    "Log",
    "ProvenEntry",
    "Verification",
    "export",
    "prove",
    "prove_consistency",
    "stored_entries",
    "stored_note",
    "verify",
    "verify_proof",
]
