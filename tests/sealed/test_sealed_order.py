"""The order of opening, and what is bound to what: of two faults in one file the earlier check speaks."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations

import pytest
from safetensors.numpy import save

import sealed_kit as kit
from mibao.errors import IntegrityError, MibaoError
from mibao.sealed import layout, recipients
from mibao.sealed.file_keys import FileKeys
from mibao.sealed.layout import INDEX_ENTRY_BYTES, PAGE_BYTES, PREAMBLE_BYTES, SELECTOR_BYTES
from mibao.sealed.sealing import signed_selector
from mibao.sealed.unlock import Binding
from mibao.types import RandomId
from sealed_faults import GOOD, KEYS, PREAMBLE, by_a_recipient, flipped, replaced

BINDING = Binding(file_id=KEYS.file_id, commitment=KEYS.commitment, signer=kit.VENDOR.key_id)


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a file or with who reads it, and how its check begins."""

    name: str
    message: str
    alter: Callable[[bytes], bytes] = bytes
    reader: tuple[tuple[str, object], ...] = ()


def another_key(data: bytes) -> bytes:
    """Alice's stanza opens to another file key, the MAC made under the true one."""
    second = FileKeys(b"L" * 32, KEYS.file_id)
    slot = data[PREAMBLE.slot_at(0) : PREAMBLE.slot_at(1)]
    mine, other = recipients.decode_slot(slot)
    mine = kit.wrap_with_info(second, kit.ALICE.public, BINDING.info)
    encoded = recipients.encode_slot([mine, other], slot_bytes=PREAMBLE.slot_bytes)
    return replaced(PREAMBLE.slot_at(0), encoded, data)


# As in docs/spec/sealed-model.md, section 5.
FAULTS = (
    Fault("parse", "preamble: reserved bytes are not zero", lambda data: flipped(40, data)),
    Fault("signature", "manifest: the signature does", lambda data: flipped(PREAMBLE.signature_at, data)),
    Fault("length", "file: 1 bytes too long", lambda data: data + b"\0"),
    Fault("version", "version: this model is older", reader=(("min_version", 4),)),
    Fault("unwrap", "recipients: this model is not sealed to this key", reader=(("identity", kit.MALLORY),)),
    Fault("commitment", "key commitment: ", another_key),
    Fault("header MAC", "header: its MAC does not match", lambda data: flipped(PREAMBLE_BYTES + 40, data)),
    Fault("table", "table: was altered", lambda data: flipped(PREAMBLE.table_at, data)),
    Fault("index", "index: its root is not the signed one", lambda data: flipped(PREAMBLE.index_at + 8, data)),
    Fault("data", "data: chunk 0 of tensor", lambda data: flipped(PREAMBLE.data_at, data)),
)


@pytest.mark.parametrize(("first", "second"), list(combinations(FAULTS, 2)), ids=lambda fault: fault.name)
def test_of_two_faults_the_one_that_is_checked_first_is_named(first, second):
    data = first.alter(second.alter(GOOD))
    with pytest.raises(MibaoError) as caught:
        kit.opened_parts(data, **dict(first.reader + second.reader))
    assert str(caught.value).startswith(first.message)


@pytest.mark.parametrize(
    "other",
    [
        replace(BINDING, file_id=RandomId(b"J" * 16)),
        replace(BINDING, commitment=b"c" * 32),
        replace(BINDING, signer=kit.RIVAL.key_id),
    ],
    ids=["file", "commitment", "signer"],
)
def test_a_public_keys_stanza_is_bound_to_file_commitment_and_signer(other):
    """The right key in a stanza that was made for another file, commitment or signer."""
    stanza = kit.wrap_with_info(KEYS, kit.ALICE.public, other.info)
    slot = recipients.encode_slot([stanza], slot_bytes=PREAMBLE.slot_bytes)
    data = by_a_recipient(replaced(PREAMBLE.slot_at(0), slot))
    with pytest.raises(IntegrityError, match=r"^recipients: the stanza for this key was altered$"):
        kit.opened_parts(data)
    genuine = recipients.encode_slot(
        [kit.wrap_with_info(KEYS, kit.ALICE.public, BINDING.info)], slot_bytes=PREAMBLE.slot_bytes
    )
    assert kit.opened_parts(by_a_recipient(replaced(PREAMBLE.slot_at(0), genuine))) == [save(kit.tensors())]


def test_any_recipient_can_let_others_in_and_an_outsider_cannot():
    """A stanza made with the file key and a MAC under another key is an outsider's best try."""
    stanza = kit.wrap_with_info(KEYS, kit.MALLORY.public, BINDING.info)
    present = list(recipients.decode_slot(GOOD[PREAMBLE.slot_at(0) : PREAMBLE.slot_at(1)]))
    slot = recipients.encode_slot([*present, stanza], slot_bytes=PREAMBLE.slot_bytes)
    by_alice = by_a_recipient(replaced(PREAMBLE.slot_at(0), slot))
    assert kit.opened_parts(by_alice, identity=kit.MALLORY) == [save(kit.tensors())]
    outsider = FileKeys(b"O" * 32, KEYS.file_id)
    mac = signed_selector(outsider, PREAMBLE, slot, active=0, rewrapping=False).pack()
    with pytest.raises(IntegrityError, match=r"^header: its MAC does not match$"):
        kit.opened_parts(replaced(PREAMBLE_BYTES, mac, by_alice), identity=kit.ALICE)


def test_regions_follow_one_another_and_only_the_data_is_aligned_to_pages():
    at = PREAMBLE_BYTES + SELECTOR_BYTES
    assert PREAMBLE.manifest_at == at
    assert PREAMBLE.signature_at == at + PREAMBLE.manifest_bytes
    assert PREAMBLE.slot_at(0) == PREAMBLE.signature_at + PREAMBLE.signature_bytes
    assert PREAMBLE.slot_at(1) == PREAMBLE.slot_at(0) + PREAMBLE.slot_bytes
    assert PREAMBLE.table_at == PREAMBLE.slot_at(1) + PREAMBLE.slot_bytes
    assert PREAMBLE.index_at == PREAMBLE.table_at + PREAMBLE.table_bytes
    assert PREAMBLE.padding_at == PREAMBLE.index_at + PREAMBLE.index_bytes
    assert PREAMBLE.index_bytes == 8 * INDEX_ENTRY_BYTES
    assert 0 <= PREAMBLE.data_at - PREAMBLE.padding_at < PAGE_BYTES
    assert PREAMBLE.data_at % PAGE_BYTES == 0
    assert PREAMBLE.slot_at(0) % PAGE_BYTES != 0
    assert PREAMBLE.table_at % PAGE_BYTES != 0


def test_a_plain_loader_fails_loudly_on_a_sealed_file(tmp_path):
    from safetensors import SafetensorError
    from safetensors.numpy import load

    with pytest.raises(SafetensorError):
        load(GOOD)
    assert not GOOD.startswith(b"GGUF")
    assert int.from_bytes(GOOD[:8], "little") > 1 << 56
    assert GOOD.startswith(layout.MAGIC)
