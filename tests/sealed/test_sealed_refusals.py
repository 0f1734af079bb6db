"""Every way to alter a sealed file is refused, each by its own error."""

import re
import threading
import tracemalloc
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cbor2
import numpy as np
import pytest
from safetensors.numpy import save

import sealed_kit as kit
from counts import counts
from mibao import sealed
from mibao.crypto.aead import TAG_BYTES
from mibao.errors import InputError, IntegrityError, KeyMismatch, MibaoError
from mibao.events import ModelRefused
from mibao.sealed import layout, manifest, merkle, model_table, opening, reading, recipients, source_places
from mibao.sealed.file_keys import FileKeys
from mibao.sealed.layout import INDEX_ENTRY_BYTES, PREAMBLE_BYTES, SELECTOR_BYTES
from mibao.sealed.sealing import signed_selector
from mibao.sealed.source import MemorySource
from mibao.sealed.source_https import LoopbackHttpSource
from mibao.sealed.unlock import Binding
from mibao.types import RandomId, Refusal

GOOD = kit.sealed_bytes()
PREAMBLE = layout.parse_preamble(GOOD[:PREAMBLE_BYTES], file_bytes=len(GOOD))
CHUNK = kit.CHUNK_BYTES + TAG_BYTES
KEYS = FileKeys(b"K" * 32, RandomId(b"I" * 16))  # what any licensed recipient can unwrap


def refused(data: bytes, error: type[MibaoError], message: str, **more) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}") as caught:
        kit.opened_parts(data, **more)
    assert type(caught.value) is error


def replaced(at: int, new: bytes, data: bytes = GOOD) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def flipped(at: int, data: bytes = GOOD) -> bytes:
    return replaced(at, bytes([data[at] ^ 0x40]), data)


def by_a_recipient(data: bytes) -> bytes:
    """The header MAC made right again, as whoever holds the file key can."""
    preamble = layout.parse_preamble(data[:PREAMBLE_BYTES], file_bytes=len(data))
    slot = data[preamble.slot_at(0) :][: preamble.slot_bytes]
    return replaced(PREAMBLE_BYTES, signed_selector(KEYS, preamble, slot, active=0, rewrapping=False).pack(), data)


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


def swapped(first: int, second: int, count: int, data: bytes = GOOD) -> bytes:
    one, two = data[first : first + count], data[second : second + count]
    return replaced(second, one, replaced(first, two, data))


def chunk_at(number: int) -> int:
    """Where a chunk of ``GOOD`` lies: bias and scalar, then three chunks each of two tensors."""
    index = GOOD[PREAMBLE.index_at : PREAMBLE.padding_at]
    lengths = [int.from_bytes(index[at : at + 4], "big") for at in range(0, len(index), INDEX_ENTRY_BYTES)]
    return PREAMBLE.data_at + sum(lengths[:number])


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


def test_an_older_file_is_refused_by_who_asks_for_a_version():
    assert kit.opened_parts(GOOD, min_version=3)
    refused(GOOD, IntegrityError, "version: this model is older than the lowest version accepted", min_version=4)
    with pytest.raises(IntegrityError, match="older than the lowest"):
        kit.verify(GOOD, min_version=4)


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


def test_stripped_metadata_is_refused():
    refused(GOOD[PREAMBLE.data_at :], InputError, "expected a sealed model")
    unsigned = replaced(PREAMBLE.signature_at, bytes(PREAMBLE.signature_bytes))
    refused(unsigned, IntegrityError, "manifest: the signature does not match")


def test_a_plaintext_file_in_its_place_is_refused():
    refused(save(kit.tensors()), InputError, "expected a sealed model")


def test_another_valid_signer_is_refused():
    refused(kit.sealed_bytes(by=kit.RIVAL), KeyMismatch, manifest.OTHER_SIGNER)


def signed_by_rival(data: bytes) -> bytes:
    raw = data[PREAMBLE.manifest_at : PREAMBLE.signature_at]
    return replaced(PREAMBLE.signature_at, manifest.sign(raw, kit.RIVAL), data)


def test_a_rival_who_writes_the_vendors_id_is_refused():
    refused(signed_by_rival(GOOD), IntegrityError, "manifest: the signature does not match")


def test_the_file_cannot_name_the_key_that_checks_it():
    """Even signed by the vendor, a manifest with a field for a key is none of this format."""
    fields = cbor2.loads(GOOD[PREAMBLE.manifest_at : PREAMBLE.signature_at]) | {"jku": "https://keys.example"}
    raw = cbor2.dumps(fields, canonical=True)
    with pytest.raises(IntegrityError, match=r"^manifest: expected exactly its fields"):
        manifest.verify(raw, manifest.sign(raw, kit.VENDOR), kit.VENDOR.public)


def test_half_a_hybrid_signature_is_refused():
    hybrid = kit.signer(13, kit.SignerSuite.ED25519_MLDSA65)
    data = kit.sealed_bytes(by=hybrid)
    preamble = layout.parse_preamble(data[:PREAMBLE_BYTES], file_bytes=len(data))
    for at in (preamble.signature_at, preamble.signature_at + 64):
        with pytest.raises(IntegrityError, match=r"^manifest: the signature does not match"):
            kit.opened_parts(flipped(at, data), pinned=hybrid.public)


def test_a_tensor_left_unencrypted_is_refused():
    plain = kit.tensors()["layer.other"].tobytes()[: kit.CHUNK_BYTES]
    left = replaced(chunk_at(2), plain + bytes(TAG_BYTES))
    refused(left, IntegrityError, "data: chunk 0 of tensor 'layer.other' was altered")


LOADERS = {
    "load_numpy": lambda model: model.load_numpy(),
    "lazy tensor": lambda model: model["layer.other"].numpy(),
    "raw": lambda model: model["layer.other"].raw(),
    "rows": lambda model: model.rows("layer.other", 0, 1),
}


@pytest.fixture
def forged(tmp_path):
    """A file in which a licensed recipient altered one chunk under its own, unchanged GCM tag."""
    part_key = kit.derive(b"K" * 32, purpose="sealed/part-key", context=b"I" * 16 + bytes(4))
    chunk = kit.forged_chunk(GOOD, chunk_at(2), CHUNK, part_key)
    assert chunk != GOOD[chunk_at(2) :][:CHUNK]
    assert chunk[-TAG_BYTES:] == GOOD[chunk_at(2) :][:CHUNK][-TAG_BYTES:]
    opened = opening.open_file(
        MemorySource(GOOD), opening.read_verified(MemorySource(GOOD), signer=kit.VENDOR.public), kit.ALICE
    )
    part = opened.parts[0]
    accepted = part.cipher.open(part.chunks[2].nonce, chunk, part.chunks[2].associated_data(KEYS.file_id))
    assert accepted != kit.tensors()["layer.other"].tobytes()[: kit.CHUNK_BYTES], "GCM alone lets the forgery through"
    path = tmp_path / "forged.mibao"
    path.write_bytes(replaced(chunk_at(2), chunk))
    return path


@pytest.mark.parametrize("loader", LOADERS.values(), ids=LOADERS)
def test_forged_weights_of_a_licensed_recipient_are_refused_by_every_loader(forged, loader):
    with (
        sealed.open_model(forged, identity=kit.ALICE, signer=kit.VENDOR.public) as model,
        pytest.raises(IntegrityError, match=r"^data: chunk 0 of tensor 'layer.other' was altered"),
    ):
        loader(model)


def test_forged_weights_of_a_licensed_recipient_are_refused_on_the_way_to_a_file(forged, tmp_path):
    arguments = {"identity": kit.ALICE, "signer": kit.VENDOR.public}
    for output in (None, tmp_path / "out"):
        with pytest.raises(IntegrityError, match=r"^data: chunk 0 of tensor 'layer.other' was altered"):
            sealed.open_sealed(forged, output, **arguments)
    with pytest.raises(IntegrityError, match=r"^data: chunk 0 of tensor 'layer.other' was altered"):
        sealed.open_bytes(forged, **arguments)
    with pytest.raises(IntegrityError, match=r"^data: chunk 2 was altered"):
        sealed.verify(forged, signer=kit.VENDOR.public)
    assert [each.name for each in tmp_path.iterdir()] == ["forged.mibao"]


def test_a_recipient_who_signs_the_forgery_with_a_key_of_its_own_is_refused():
    other = kit.sealed_bytes(("model.safetensors", save(kit.tensors(fill=99))), by=kit.RIVAL)
    refused(other, KeyMismatch, manifest.OTHER_SIGNER)
    renamed = other.replace(kit.RIVAL.key_id.value, kit.VENDOR.key_id.value)
    refused(renamed, IntegrityError, "manifest: the signature does not match")


def with_stanzas(change, *, data: bytes = GOOD) -> bytes:
    slot = data[PREAMBLE.slot_at(0) : PREAMBLE.slot_at(1)]
    stanzas = change(list(recipients.decode_slot(slot)))
    return replaced(PREAMBLE.slot_at(0), recipients.encode_slot(stanzas, slot_bytes=PREAMBLE.slot_bytes), data)


def test_swapped_stanzas_are_refused():
    refused(with_stanzas(lambda stanzas: stanzas[::-1]), IntegrityError, "header: its MAC does not match")


def test_a_duplicated_stanza_is_refused():
    refused(with_stanzas(lambda stanzas: [*stanzas, stanzas[0]]), IntegrityError, "recipients: a stanza stands twice")


def test_a_dropped_stanza_is_refused():
    refused(with_stanzas(lambda stanzas: stanzas[:1]), IntegrityError, "header: its MAC does not match")


def test_a_stanza_of_another_file_is_refused():
    other = kit.sealed_bytes(file_id=b"J" * 16)
    slot = other[PREAMBLE.slot_at(0) : PREAMBLE.slot_at(1)]
    refused(replaced(PREAMBLE.slot_at(0), slot), IntegrityError, "recipients: the stanza for this key was altered")


def test_a_stanza_under_another_recipients_id_is_refused():
    def exchange(stanzas):
        one, two = stanzas
        return [recipients.Stanza(kind=one.kind, key_id=a.key_id, body=b.body) for a, b in ((one, two), (two, one))]

    refused(with_stanzas(exchange), IntegrityError, "recipients: the stanza for this key was altered")


def test_one_file_never_opens_to_two_plaintexts():
    """A malicious sealer hands Bob another file key; the signed commitment has room for one."""
    second = FileKeys(b"L" * 32, KEYS.file_id)
    info_as_signed = Binding(file_id=KEYS.file_id, commitment=KEYS.commitment, signer=kit.VENDOR.key_id).info
    stanza = kit.wrap_with_info(second, kit.BOB.public, info_as_signed)
    data = by_a_recipient(with_stanzas(lambda stanzas: [stanzas[0], stanza]))
    assert kit.opened_parts(data, identity=kit.ALICE)
    refused(
        data,
        IntegrityError,
        "key commitment: the recipient's stanza holds another key than the signed one",
        identity=kit.BOB,
    )


def test_a_stranger_is_told_that_the_model_is_not_for_them():
    refused(GOOD, KeyMismatch, recipients.NO_STANZA, identity=kit.MALLORY)


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


@pytest.mark.parametrize(
    ("at", "size", "message"),
    [
        (12, 4, "recipients' slot: expected 4096 to 1048576 bytes"),
        (16, 4, "manifest: expected 1 to 1048576 bytes"),
        (20, 4, "signature: expected 1 to 8192 bytes"),
        (24, 8, "table: expected 1 to 268435456 bytes"),
        (32, 8, "index: expected 0 to"),
    ],
)
def test_absurd_lengths_are_refused_before_memory_is_reserved(at, size, message):
    tracemalloc.start()
    try:
        refused(replaced(at, b"\xff" * size), InputError, message)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_a_table_longer_than_the_file_is_refused_before_memory_is_reserved():
    refused(replaced(24, (1 << 28).to_bytes(8, "big")), IntegrityError, "file: shorter than its header says")


@pytest.mark.parametrize(
    "bomb",
    [
        b"\x9b\x00\x00\x00\xff\xff\xff\xff\xff",  # a list of 2**40 items
        b"\x5b\x00\x00\x00\xff\xff\xff\xff\xff",  # a string of 2**40 bytes
        b"\xbb\x7f\xff\xff\xff\xff\xff\xff\xff",  # a map of 2**63 entries
        b"\x81" * 4000,  # lists 4000 deep
        b"\x9f" * 4000,
        b"\xd8\x1c" * 2000,  # shared values
    ],
)
@pytest.mark.parametrize("place", ["manifest", "slot"])
def test_absurd_counts_and_depths_are_refused_within_bounded_memory(bomb, place):
    tracemalloc.start()
    try:
        with pytest.raises(IntegrityError):
            if place == "slot":
                recipients.decode_slot((len(bomb).to_bytes(4, "big") + bomb).ljust(4096, b"\0"))
            else:
                manifest.decode(bomb)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", 0), ("version", 1 << 63), ("model_id", ""), ("model_id", "a\nb"), ("model_id", "x" * 257),
        ("chunk_bytes", 1 << 23), ("chunk_bytes", 5000), ("chunk_bytes", 0), ("shards", []), ("file_id", b"short"),
        ("commitment", b"short"), ("table", b"short"), ("table_bytes", 0), ("format", 2), ("suite", 2),
        ("version", True), ("shards", [{"bytes": 1 << 49, "chunks": 1, "root": bytes(32)}]),
        ("shards", [{"bytes": 1, "chunks": 2, "root": bytes(32)}]),
        ("shards", [{"bytes": 1, "chunks": 1, "root": bytes(31)}]), ("shards", [{"bytes": 1, "chunks": 1}]),
        ("side_files", [{"bytes": 0, "chunks": 0, "root": bytes(32)}] * 4096),
    ],
)  # fmt: skip
def test_a_signed_manifest_out_of_its_limits_is_refused(field, value):
    fields = cbor2.loads(GOOD[PREAMBLE.manifest_at : PREAMBLE.signature_at]) | {field: value}
    raw = cbor2.dumps(fields, canonical=True)
    with pytest.raises(IntegrityError, match=r"^manifest: "):
        manifest.verify(raw, manifest.sign(raw, kit.VENDOR), kit.VENDOR.public)


def test_bytes_that_are_not_canonical_are_refused():
    fields = cbor2.loads(GOOD[PREAMBLE.manifest_at : PREAMBLE.signature_at])
    raw = cbor2.dumps(dict(reversed(fields.items())))
    with pytest.raises(IntegrityError, match=r"^manifest: not well formed"):
        manifest.verify(raw, manifest.sign(raw, kit.VENDOR), kit.VENDOR.public)


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/../b", "a//b", "a\\b", ".", "a\x00b", "", "x" * 1025])
def test_a_signed_table_whose_names_lead_out_of_the_folder_is_refused(name):
    table = {"layout": "folder", "parts": [{"name": name, "format": "opaque", "header": b""}]}
    with pytest.raises(IntegrityError, match=r"^table: not one that a writer makes"):
        model_table.decode(cbor2.dumps(table, canonical=True), data_bytes=[3])


def test_a_signed_table_of_other_parts_than_the_manifests_is_refused():
    table = {"layout": "folder", "parts": [{"name": "a", "format": "opaque", "header": b""}]}
    with pytest.raises(IntegrityError, match=r"^table: another number of parts"):
        model_table.decode(cbor2.dumps(table, canonical=True), data_bytes=[3, 4])


def test_a_signed_index_of_other_lengths_than_the_tables_is_refused():
    """A signer's fault, not an attacker's: index and roots agree, and the table says otherwise."""
    index = bytearray(GOOD[PREAMBLE.index_at : PREAMBLE.padding_at])
    index[3], index[INDEX_ENTRY_BYTES + 3] = index[INDEX_ENTRY_BYTES + 3], index[3]
    fields = cbor2.loads(GOOD[PREAMBLE.manifest_at : PREAMBLE.signature_at])
    fields["shards"][0]["root"] = merkle.root(bytes(index))
    raw = cbor2.dumps(fields, canonical=True)
    data = replaced(PREAMBLE.index_at, bytes(index), replaced(PREAMBLE.manifest_at, raw))
    data = replaced(PREAMBLE.signature_at, manifest.sign(raw, kit.VENDOR), data)
    refused(data, IntegrityError, "index: its lengths are not those that follow from the table")


def test_refusals_become_records_for_a_ledger():
    def reason(**more) -> Refusal:
        with pytest.raises(MibaoError) as caught:
            kit.opened_parts(**({"data": GOOD} | more))
        event = sealed.refusal(caught.value)
        assert isinstance(event, ModelRefused)
        return event.reason

    assert reason(data=flipped(len(GOOD) - 1)) is Refusal.ALTERED
    assert reason(identity=kit.MALLORY) is Refusal.WRONG_KEY
    assert reason(pinned=kit.RIVAL.public) is Refusal.WRONG_SIGNER
    assert reason(min_version=4) is Refusal.OLDER_VERSION
    assert reason(data=b"GGUF") is Refusal.NOT_SEALED


def test_the_selector_lies_within_one_sector():
    assert PREAMBLE_BYTES + SELECTOR_BYTES <= 512


class _Ranges(BaseHTTPRequestHandler):
    data = b""

    def do_GET(self):
        first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        body = type(self).data[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(type(self).data)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_forged_weights_of_a_licensed_recipient_are_refused_over_ranges_of_a_server(forged, monkeypatch):
    handler = type("Handler", (_Ranges,), {"data": forged.read_bytes()})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{served.server_port}/m"
        monkeypatch.setattr(source_places, "FileSource", lambda _: LoopbackHttpSource(url))
        with sealed.open_model("m", identity=kit.ALICE, signer=kit.VENDOR.public) as model:
            for load in LOADERS.values():
                with pytest.raises(IntegrityError, match=r"^data: chunk 0 of tensor 'layer.other' was altered"):
                    load(model)
        served.shutdown()
        thread.join()
