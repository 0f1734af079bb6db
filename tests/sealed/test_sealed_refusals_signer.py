"""Files that the pinned signer did not sign, or signed in another form than the format's."""

import cbor2
import pytest
from safetensors.numpy import save

import sealed_kit as kit
from mibao.errors import InputError, IntegrityError, KeyMismatch
from mibao.sealed import layout, manifest, merkle, model_table
from mibao.sealed.layout import INDEX_ENTRY_BYTES, PREAMBLE_BYTES
from sealed_faults import GOOD, PREAMBLE, flipped, refused, replaced


def test_an_older_file_is_refused_by_who_asks_for_a_version():
    assert kit.opened_parts(GOOD, min_version=3)
    refused(GOOD, IntegrityError, "version: this model is older than the lowest version accepted", min_version=4)
    with pytest.raises(IntegrityError, match="older than the lowest"):
        kit.verify(GOOD, min_version=4)


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


def test_a_recipient_who_signs_the_forgery_with_a_key_of_its_own_is_refused():
    other = kit.sealed_bytes(("model.safetensors", save(kit.tensors(fill=99))), by=kit.RIVAL)
    refused(other, KeyMismatch, manifest.OTHER_SIGNER)
    renamed = other.replace(kit.RIVAL.key_id.value, kit.VENDOR.key_id.value)
    refused(renamed, IntegrityError, "manifest: the signature does not match")


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
