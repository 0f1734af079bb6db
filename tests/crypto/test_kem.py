import copy
import dataclasses
import pickle
from typing import Any

import pytest
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from mibao.crypto import kem, keys
from mibao.crypto.kem import HpkeAead
from mibao.crypto.keys import RecipientSuite
from mibao.errors import InputError, IntegrityError, KeyMismatch
from vectors_io import vectors

RFC = vectors("crypto", "hpke_rfc9180")["vectors"]
RECIPIENTS = {suite: keys.generate_recipient(suite, bytes(range(32))) for suite in RecipientSuite}
AEADS = {aead.value[0]: aead for aead in HpkeAead}


def the_librarys(suite: RecipientSuite) -> tuple[hpke.Suite, Any]:
    seed = keys.reveal_secret_bytes(RECIPIENTS[suite])
    if suite is RecipientSuite.X25519:
        chosen, private = hpke.KEM.X25519, X25519PrivateKey.from_private_bytes(seed)
    else:
        mlkem, x25519 = keys.recipient_halves(seed)
        chosen = hpke.KEM.MLKEM768_X25519
        private = hpke.MLKEM768X25519PrivateKey(
            MLKEM768PrivateKey.from_seed_bytes(mlkem), X25519PrivateKey.from_private_bytes(x25519)
        )
    return hpke.Suite(chosen, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM), private


@settings(max_examples=30)
@given(
    suite=st.sampled_from(RecipientSuite),
    messages=st.lists(st.tuples(st.binary(max_size=40), st.binary(max_size=9)), max_size=4),
    info=st.binary(max_size=20),
)
def test_messages_open_in_order_and_exports_agree(
    suite: RecipientSuite, messages: list[tuple[bytes, bytes]], info: bytes
) -> None:
    private = RECIPIENTS[suite]
    encapsulated, sender = kem.setup_sender(private.public, info=info)
    recipient = kem.setup_recipient(private, encapsulated, info=info)
    for plaintext, associated in messages:
        assert recipient.open(sender.seal(plaintext, associated), associated) == plaintext
    assert sender.export(b"context", 40) == recipient.export(b"context", 40)


@pytest.mark.parametrize("suite", RecipientSuite)
def test_it_speaks_with_the_librarys_own_hpke_both_ways(suite: RecipientSuite) -> None:
    library, private = the_librarys(suite)
    ours = kem.seal_once(RECIPIENTS[suite].public, b"ours", info=b"info", associated_data=b"")
    assert library.decrypt(ours, private, info=b"info") == b"ours"
    theirs = library.encrypt(b"theirs", private.public_key(), info=b"info")
    assert kem.open_once(RECIPIENTS[suite], theirs, info=b"info", associated_data=b"") == b"theirs"


@pytest.mark.parametrize("case", RFC)
def test_rfc_9180_base_vectors_with_sequence_and_export(case: dict[str, Any]) -> None:
    private = keys.generate_recipient(RecipientSuite.X25519, bytes.fromhex(case["skRm"]))
    assert private.public.raw.hex() == case["pkRm"]
    info, aead = bytes.fromhex(case["info"]), AEADS[case["aead"]]
    encapsulated, sender = kem.setup_sender_derandomised(
        private.public, info=info, ephemeral=bytes.fromhex(case["skEm"]), aead=aead
    )
    assert encapsulated.hex() == case["enc"]
    recipient = kem.setup_recipient(private, encapsulated, info=info, aead=aead)
    known = {entry["sequence"]: entry for entry in case["encryptions"]}
    for sequence in range(max(known) + 1):
        entry = known.get(sequence, {"pt": "00", "aad": ""})
        plaintext, associated = bytes.fromhex(entry["pt"]), bytes.fromhex(entry["aad"])
        sealed = sender.seal(plaintext, associated)
        assert recipient.open(sealed, associated) == plaintext
        if sequence in known:
            assert sealed.hex() == entry["ct"]
    for export in case["exports"]:
        context, length = bytes.fromhex(export["exporter_context"]), export["L"]
        assert sender.export(context, length).hex() == export["exported_value"]


@pytest.mark.parametrize("case", vectors("crypto", "hpke_mlkem768_x25519")["vectors"])
def test_the_drafts_hybrid_vectors(case: dict[str, str]) -> None:
    private = keys.generate_recipient(RecipientSuite.MLKEM768_X25519, bytes.fromhex(case["skRm"]))
    assert kem._hybrid_decapsulate(private, bytes.fromhex(case["enc"])).hex() == case["shared_secret"]


@pytest.mark.parametrize("case", vectors("crypto", "mlkem768")["vectors"])
def test_fips_203_decapsulation_of_the_installed_library(case: dict[str, str]) -> None:
    private = MLKEM768PrivateKey.from_seed_bytes(bytes.fromhex(case["d"] + case["z"]))
    assert private.public_key().public_bytes_raw().hex() == case["pk"]
    assert private.decapsulate(bytes.fromhex(case["ct"])).hex() == case["ss"]
    assert private.decapsulate(bytes.fromhex(case["ct_n"])).hex() == case["ss_n"]  # implicit rejection


@pytest.mark.parametrize("suite", RecipientSuite)
@pytest.mark.parametrize("change", ["key", "info", "associated", "encapsulated", "ciphertext"])
def test_another_key_info_or_byte_opens_nothing(suite: RecipientSuite, change: str) -> None:
    private = RECIPIENTS[suite]
    sealed = bytearray(kem.seal_once(private.public, b"file key", info=b"i", associated_data=b"a"))
    if change == "encapsulated":
        sealed[5] ^= 1
    if change == "ciphertext":
        sealed[-1] ^= 1
    opener = keys.generate_recipient(suite, bytes(32)) if change == "key" else private
    info, associated = (b"I" if change == "info" else b"i"), (b"A" if change == "associated" else b"a")
    with pytest.raises(KeyMismatch, match="not sealed to this key, or altered"):
        kem.open_once(opener, bytes(sealed), info=info, associated_data=associated)


def test_messages_do_not_open_out_of_order_and_a_failure_keeps_its_place() -> None:
    private = RECIPIENTS[RecipientSuite.X25519]
    encapsulated, sender = kem.setup_sender(private.public, info=b"")
    first, second = sender.seal(b"one", b""), sender.seal(b"two", b"")
    recipient = kem.setup_recipient(private, encapsulated, info=b"")
    with pytest.raises(IntegrityError, match="tag does not match"):
        recipient.open(second, b"")
    assert [recipient.open(first, b""), recipient.open(second, b"")] == [b"one", b"two"]


def test_two_seals_of_one_message_share_nothing() -> None:
    public = RECIPIENTS[RecipientSuite.MLKEM768_X25519].public
    first, second = (kem.seal_once(public, b"m", info=b"", associated_data=b"") for _ in range(2))
    assert first[:32] != second[:32]
    assert first[1088:1120] != second[1088:1120]


@pytest.mark.parametrize("suite", RecipientSuite)
def test_lengths_and_low_order_points_are_refused(suite: RecipientSuite) -> None:
    private = RECIPIENTS[suite]
    length = kem.ENCAPSULATED_BYTES[suite]
    with pytest.raises(IntegrityError, match=f"encapsulated key of {length} bytes, got 7"):
        kem.setup_recipient(private, bytes(7), info=b"")
    with pytest.raises(IntegrityError, match="not a valid one"):
        kem.setup_recipient(private, bytes(length), info=b"")
    with pytest.raises(IntegrityError, match=f"at least {length + 16} bytes, got {length}"):
        kem.open_once(private, bytes(length), info=b"", associated_data=b"")
    low_order = keys.RecipientPublicKey(suite, private.public.raw[:-32] + bytes(32))
    with pytest.raises(InputError, match="recipient's public key is not a valid one"):
        kem.setup_sender(low_order, info=b"")


def test_a_context_is_neither_printed_nor_pickled() -> None:
    _, sender = kem.setup_sender(RECIPIENTS[RecipientSuite.X25519].public, info=b"")
    assert repr(sender) == "<SenderContext>"
    for leak in (pickle.dumps, copy.copy, copy.deepcopy, dataclasses.asdict, vars, type(sender).__getstate__):
        with pytest.raises(TypeError):
            leak(sender)
