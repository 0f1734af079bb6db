"""Change who can open a sealed file, without touching table or data: in place, step by step, safe against crashes.

Dropping a recipient recalls nothing: who had the file key, or a copy of the file, still has it.

Source: docs/spec/sealed-model.md, section 6.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mibao.errors import InputError
from mibao.sealed import opening, recipients
from mibao.sealed.file_keys import FileKeys
from mibao.sealed.layout import PREAMBLE_BYTES, Preamble
from mibao.sealed.opening import Envelope
from mibao.sealed.recipients import Identity, Recipient
from mibao.sealed.sealing import signed_selector
from mibao.sealed.source import ByteSource
from mibao.sealed.unlock import Stanza
from mibao.types import RandomId


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrap:
    """A new list of recipients for a file, and what is needed to put it there."""

    envelope: Envelope
    keys: FileKeys
    active: int
    old_slot: bytes
    stanzas: tuple[Stanza, ...]

    @property
    def fits(self) -> bool:
        """Whether the new list fits the file's slots as they are."""
        return recipients.slot_size(self.stanzas) <= self.envelope.preamble.slot_bytes


def plan(
    source: ByteSource,
    identity: Identity,
    *,
    add: Sequence[Recipient],
    remove: Sequence[RandomId],
) -> Rewrap:
    """The new list: the old one without ``remove`` and with ``add`` behind.

    Raises:
        InputError: nobody would be left, a key stands twice, or one to remove is not on the list.
        IntegrityError: the file was altered where its recipients stand.
        KeyMismatch: not sealed to ``identity``.
    """
    envelope = opening.read_unverified(source)
    header, keys, _ = opening.unlock(source, envelope, identity)
    missing = set(remove) - {each.key_id for each in header.stanzas}
    if missing:
        raise InputError(f"recipients: not on this file's list: {', '.join(sorted(map(str, missing)))}")
    kept = [each for each in header.stanzas if each.key_id not in remove]
    added = [recipients.wrap(keys, each, signer=envelope.manifest.signer) for each in add]
    recipients.check_recipients(kept + added)
    return Rewrap(
        envelope=envelope,
        keys=keys,
        active=header.selector.active,
        old_slot=header.slot,
        stanzas=(*kept, *added),
    )


def steps(change: Rewrap) -> Iterator[tuple[int, bytes]]:
    """What to write where, each made durable before the next: after any of them the file opens to its recipients."""
    preamble, old, new = change.envelope.preamble, change.active, 1 - change.active
    slot = recipients.encode_slot(change.stanzas, slot_bytes=preamble.slot_bytes)

    def selector(content: bytes, active: int, *, rewrapping: bool) -> tuple[int, bytes]:
        made = signed_selector(change.keys, preamble, content, active=active, rewrapping=rewrapping)
        return PREAMBLE_BYTES, made.pack()

    yield selector(change.old_slot, old, rewrapping=True)
    yield preamble.slot_at(new), slot
    yield selector(slot, new, rewrapping=True)
    yield preamble.slot_at(old), bytes(preamble.slot_bytes)
    yield selector(slot, new, rewrapping=False)


def larger_header(change: Rewrap, signed: bytes) -> tuple[Preamble, bytes]:
    """For a list that does not fit: the preamble with larger slots, and all bytes up to the table.

    Args:
        signed: Manifest and signature as they stand in the file.
    """
    old = change.envelope.preamble
    preamble = Preamble(
        slot_bytes=recipients.slot_bytes_for(change.stanzas),
        manifest_bytes=old.manifest_bytes,
        signature_bytes=old.signature_bytes,
        table_bytes=old.table_bytes,
        index_bytes=old.index_bytes,
    )
    slot = recipients.encode_slot(change.stanzas, slot_bytes=preamble.slot_bytes)
    selector = signed_selector(change.keys, preamble, slot, active=0, rewrapping=False)
    return preamble, preamble.pack() + selector.pack() + signed + slot + bytes(preamble.slot_bytes)
