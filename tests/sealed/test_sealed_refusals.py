"""Bytes altered, cut, added or moved, from the first region of a sealed file to the last: each its own error."""

import numpy as np
import pytest
from safetensors.numpy import save

import sealed_kit as kit
from counts import counts
from mibao.crypto.aead import TAG_BYTES
from mibao.errors import InputError, IntegrityError, KeyMismatch
from mibao.sealed import layout, model_table, opening, reading
from mibao.sealed.layout import INDEX_ENTRY_BYTES, PREAMBLE_BYTES
from mibao.sealed.source import MemorySource
from sealed_faults import CHUNK, GOOD, KEYS, PREAMBLE, by_a_recipient, chunk_at, flipped, refused, replaced, swapped


def test_the_file_is_accepted_as_it_is():
    assert kit.opened_parts(GOOD) == [save(kit.tensors())]
    assert by_a_recipient(GOOD) == GOOD


REGIONS = [
    ("magic", 0, InputError, "expected a sealed model"),
    ("format", 9, InputError, "sealed model: expected format 1 suite 1, got format 65"),
    ("suite", 11, InputError, "sealed model: expected format 1 suite 1, got format 1 suite 65"),
    ("slot length", 15, InputError, "preamble: a region's length is not a multiple of its unit"),
    ("slot length by pages", 14, IntegrityError, "file: shorter than its header says"),
    ("manifest length", 19, IntegrityError, "manifest: not well formed"),
    ("signature length", 23, InputError, "signature: expected 1 to 8192 bytes, got 0"),
    ("table length", 31, IntegrityError, "preamble: the table has another length than the signed one"),
    ("index length", 38, InputError, "preamble: a region's length is not a multiple of its unit"),
    ("reserved", 40, IntegrityError, "preamble: reserved bytes are not zero"),
    ("reserved end", 63, IntegrityError, "preamble: reserved bytes are not zero"),
    ("active slot", 64, IntegrityError, "selector: not one that a writer makes"),
    ("state", 65, IntegrityError, "selector: not one that a writer makes"),
    ("selector reserved", 95, IntegrityError, "selector: not one that a writer makes"),
    ("header MAC", 96, IntegrityError, "header: its MAC does not match"),
    ("header MAC end", 127, IntegrityError, "header: its MAC does not match"),
    ("signature", PREAMBLE.signature_at, IntegrityError, "manifest: the signature does not match"),
    ("signature end", PREAMBLE.slot_at(0) - 1, IntegrityError, "manifest: the signature does not match"),
    ("stanza id", GOOD.index(kit.ALICE.public.key_id.value), KeyMismatch, "recipients: this model is not sealed"),
    ("stanza body", GOOD.index(b"dbody") + 8, IntegrityError, "recipients: the stanza for this key was altered"),
    ("another's stanza", GOOD.index(kit.BOB.public.key_id.value), IntegrityError, "header: its MAC does not match"),
    ("slot padding", PREAMBLE.slot_at(1) - 1, IntegrityError, "recipients: bytes behind the list are not zero"),
    ("other slot", PREAMBLE.slot_at(1), IntegrityError, "recipients: the other slot is not zero"),
    ("other slot end", PREAMBLE.table_at - 1, IntegrityError, "recipients: the other slot is not zero"),
    ("table", PREAMBLE.table_at, IntegrityError, "table: was altered"),
    ("table tag", PREAMBLE.index_at - 1, IntegrityError, "table: was altered"),
    ("index length field", PREAMBLE.index_at + 3, IntegrityError, "index: its root is not the signed one"),
    ("index hash", PREAMBLE.padding_at - 1, IntegrityError, "index: its root is not the signed one"),
    ("padding", PREAMBLE.padding_at, IntegrityError, "padding: is not zero"),
    ("padding end", PREAMBLE.data_at - 1, IntegrityError, "padding: is not zero"),
    ("data", PREAMBLE.data_at, IntegrityError, "data: chunk 0 of tensor"),
    ("data tag", len(GOOD) - 1, IntegrityError, "data: chunk 2 of tensor 'layer.weight' was altered"),
]


@pytest.mark.parametrize(("at", "error", "message"), [region[1:] for region in REGIONS], ids=[r[0] for r in REGIONS])
def test_a_flipped_bit_is_refused_in_every_region(at, error, message):
    refused(flipped(at), error, message)


def test_a_flipped_bit_anywhere_in_the_manifest_is_refused():
    for at in range(PREAMBLE.manifest_at, PREAMBLE.signature_at):
        with pytest.raises((IntegrityError, KeyMismatch)):
            kit.verify(flipped(at))


def test_a_flipped_bit_anywhere_is_refused():
    positions = range(len(GOOD))
    drawn = np.random.default_rng(1).choice(len(GOOD), counts(short=200, long=len(GOOD)), replace=False)
    for at in drawn if len(drawn) < len(GOOD) else positions:
        with pytest.raises((InputError, IntegrityError, KeyMismatch)):
            kit.opened_parts(flipped(int(at)))


@pytest.mark.parametrize("cut", [1, TAG_BYTES, CHUNK, len(GOOD) - PREAMBLE.data_at])
def test_a_truncated_file_is_refused(cut):
    refused(GOOD[:-cut], IntegrityError, f"file: {cut} bytes too short")


@pytest.mark.parametrize(
    ("length", "error", "message"),
    [
        (0, InputError, "expected a sealed model"),
        (7, InputError, "expected a sealed model"),
        (8, IntegrityError, "preamble: the file is truncated"),
        (63, IntegrityError, "preamble: the file is truncated"),
        (64, IntegrityError, "file: shorter than its header says"),
        (PREAMBLE.data_at - 1, IntegrityError, "file: shorter than its header says"),
    ],
)
def test_a_file_cut_within_its_header_is_refused(length, error, message):
    refused(GOOD[:length], error, message)


@pytest.mark.parametrize("more", [b"\0", GOOD[-CHUNK:]])
def test_an_extended_file_is_refused(more):
    refused(GOOD + more, IntegrityError, f"file: {len(more)} bytes too long")


def test_swapped_chunks_are_refused():
    refused(swapped(chunk_at(2), chunk_at(3), CHUNK), IntegrityError, "data: chunk 0 of tensor 'layer.other' was")


def test_chunks_swapped_together_with_their_index_are_refused():
    entries = PREAMBLE.index_at + 2 * INDEX_ENTRY_BYTES
    both = swapped(entries, entries + INDEX_ENTRY_BYTES, INDEX_ENTRY_BYTES, swapped(chunk_at(2), chunk_at(3), CHUNK))
    refused(both, IntegrityError, "index: its root is not the signed one")


def test_swapped_tensors_are_refused():
    whole = chunk_at(5) - chunk_at(2)
    refused(swapped(chunk_at(2), chunk_at(5), whole), IntegrityError, "data: chunk 0 of tensor 'layer.other' was")


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"layer.other", b"layer.OTHER"), (b"[48,50]", b"[50,48]"), (b'"F32"', b'"I32"'), (b'"F64"', b'"I64"')],
    ids=["renamed", "reshaped", "retyped", "scalar retyped"],
)
def test_a_tensor_renamed_reshaped_or_retyped_by_a_recipient_is_refused(old, new):
    sealed_table = GOOD[PREAMBLE.table_at : PREAMBLE.index_at]
    changed = model_table.decrypt(sealed_table, KEYS).replace(old, new)
    forged = model_table.encrypt(changed, KEYS)
    assert len(forged) == len(sealed_table) and forged != sealed_table
    refused(by_a_recipient(replaced(PREAMBLE.table_at, forged)), IntegrityError, "table: was altered")


def test_a_tensor_spliced_from_an_older_file_under_the_same_key_is_refused():
    older = kit.sealed_bytes(("model.safetensors", save(kit.tensors(fill=8))), version=2)
    assert len(older) == len(GOOD)
    start, end = chunk_at(2), chunk_at(5)
    spliced = replaced(start, older[start:end])
    refused(spliced, IntegrityError, "data: chunk 0 of tensor 'layer.other' was altered")
    indexes = slice(PREAMBLE.index_at + 2 * INDEX_ENTRY_BYTES, PREAMBLE.index_at + 5 * INDEX_ENTRY_BYTES)
    with_index = replaced(indexes.start, older[indexes], spliced)
    refused(with_index, IntegrityError, "index: its root is not the signed one")


def test_shards_of_two_versions_never_mix():
    def release(fill: int, version: int) -> bytes:
        shards = [(f"{number}.safetensors", save(kit.tensors(fill + number))) for number in range(2)]
        return kit.sealed_bytes(*shards, version=version)

    new, old = release(20, 2), release(30, 1)
    assert len(new) == len(old)
    half = len(new) - (len(new) - PREAMBLE.data_at) // 2 + 2000
    refused(new[:half] + old[half:], IntegrityError, "data: chunk")
    preamble = layout.parse_preamble(new[:PREAMBLE_BYTES], file_bytes=len(new))
    entries = preamble.index_bytes // 2
    at = preamble.index_at + entries
    refused(replaced(at, old[at : at + entries], new), IntegrityError, "index: its root is not the signed one")


def test_swapped_shards_are_refused():
    shards = [(f"{number}.safetensors", save(kit.tensors(number))) for number in range(2)]
    data = kit.sealed_bytes(*shards)
    preamble = layout.parse_preamble(data[:PREAMBLE_BYTES], file_bytes=len(data))
    body, index = (len(data) - preamble.data_at) // 2, preamble.index_bytes // 2
    moved = swapped(preamble.data_at, preamble.data_at + body, body, data)
    refused(moved, IntegrityError, "data: chunk 0 of tensor 'bias' was altered")
    moved = swapped(preamble.index_at, preamble.index_at + index, index, moved)
    refused(moved, IntegrityError, "index: its root is not the signed one")


def test_a_tensor_left_unencrypted_is_refused():
    plain = kit.tensors()["layer.other"].tobytes()[: kit.CHUNK_BYTES]
    left = replaced(chunk_at(2), plain + bytes(TAG_BYTES))
    refused(left, IntegrityError, "data: chunk 0 of tensor 'layer.other' was altered")


class SwappingSource(MemorySource):
    """Gives the true bytes of the data region once, and altered ones at every later read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.seen: list[tuple[int, int]] = []

    def read_into(self, offset: int, out: memoryview) -> None:
        super().read_into(offset, out)
        if offset >= PREAMBLE.data_at:
            if any(start < offset + out.nbytes and offset < end for start, end in self.seen):
                out[0] ^= 1
            self.seen.append((offset, offset + out.nbytes))


def test_bytes_swapped_between_reads_gain_nothing_because_there_is_one_read():
    source = SwappingSource(GOOD)
    opened = opening.open_file(source, opening.read_verified(source, signer=kit.VENDOR.public), kit.ALICE)
    part = opened.parts[0]
    out = bytearray(part.chunks.data_bytes)
    reading.decrypt_into(opened, part, range(len(part.chunks)), memoryview(out))
    assert part.table.header + bytes(out) == save(kit.tensors())
    assert len(source.seen) == len(part.chunks)
    with pytest.raises(IntegrityError, match=r"^data: chunk 0 of tensor 'bias' was altered"):
        reading.decrypt_into(opened, part, range(len(part.chunks)), memoryview(out))


def test_a_failure_wipes_what_the_call_wrote():
    source = MemorySource(flipped(len(GOOD) - 1))
    opened = opening.open_file(source, opening.read_verified(source, signer=kit.VENDOR.public), kit.ALICE)
    part = opened.parts[0]
    out = bytearray(b"\xaa" * part.chunks.data_bytes)
    with pytest.raises(IntegrityError):
        reading.decrypt_into(opened, part, range(len(part.chunks)), memoryview(out))
    assert not any(out)
