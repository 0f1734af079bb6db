import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

import mibao.errors
from ledger_samples import ORIGIN, hybrid_signer, signer
from mibao.crypto.keys import SignerPublicKey, SignerSuite, generate_signer
from mibao.errors import InputError, MibaoError
from mibao.ledger import checkpoint as checkpoints
from mibao.ledger import merkle
from mibao.ledger.checkpoint import Checkpoint
from vectors_io import vectors

VECTORS = vectors("ledger", "checkpoint")
REFUSED = {case["name"]: case for case in VECTORS["refused"]}


@given(size=st.integers(0, merkle.MAX_SIZE), root=st.binary(min_size=32, max_size=32))
def test_every_checkpoint_is_read_back_from_its_note(size: int, root: bytes) -> None:
    checkpoint = Checkpoint(origin=ORIGIN, size=size, root=root)
    assert checkpoints.verify(checkpoints.sign(checkpoint, signer()), signer().public) == checkpoint


@given(at=st.integers(0, 1 << 30), change=st.integers(1, 0x7F))
def test_a_note_with_any_character_changed_is_refused(at: int, change: int) -> None:
    note = checkpoints.sign(Checkpoint(origin=ORIGIN, size=1000, root=bytes(range(32))), signer())
    place = at % len(note)
    changed = note[:place] + chr(ord(note[place]) ^ change) + note[place + 1 :]
    with pytest.raises(MibaoError):
        checkpoints.verify(changed, signer().public)


def test_the_example_note_of_go_is_signed_and_verified_byte_for_byte() -> None:
    case = VECTORS["note"]
    public = SignerPublicKey(SignerSuite.ED25519, bytes.fromhex(case["public"]))
    note = case["text"] + "\n" + case["signature_line"] + "\n"
    assert checkpoints.key_id(case["name"], public).hex() == case["key_id"]
    assert checkpoints.open_note(note, name=case["name"], public=public) == case["text"]
    key = generate_signer(SignerSuite.ED25519, bytes.fromhex(case["seed"]))
    assert checkpoints.sign_note(case["text"], name=case["name"], key=key) == note


def test_the_frozen_checkpoint_is_what_independent_code_makes_of_it() -> None:
    case = VECTORS["checkpoint"]
    a, b, c = (hashlib.sha256(b"\x00" + bytes.fromhex(leaf)).digest() for leaf in case["leaves"])
    root = hashlib.sha256(b"\x01" + hashlib.sha256(b"\x01" + a + b).digest() + c).digest()
    text = f"{case['origin']}\n3\n{base64.b64encode(root).decode()}\n"
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(case["seed"]))
    public = key.public_key().public_bytes_raw()
    key_id = hashlib.sha256(case["origin"].encode() + b"\n\x01" + public).digest()[:4]
    signature = base64.b64encode(key_id + key.sign(text.encode())).decode()
    assert case["note"] == f"{text}\n\u2014 {case['origin']} {signature}\n"
    checkpoint = checkpoints.verify(case["note"], SignerPublicKey(SignerSuite.ED25519, public))
    assert (checkpoint.origin, checkpoint.size, checkpoint.root) == (case["origin"], 3, root)
    assert (
        checkpoints.sign(checkpoint, generate_signer(SignerSuite.ED25519, bytes.fromhex(case["seed"]))) == case["note"]
    )


@pytest.mark.parametrize("name", REFUSED)
def test_a_checkpoint_with_one_fault_is_refused(name: str) -> None:
    case = REFUSED[name]
    public = generate_signer(SignerSuite.ED25519, bytes.fromhex(VECTORS["checkpoint"]["seed"])).public
    with pytest.raises(MibaoError) as caught:
        checkpoints.verify(case["note"], public)
    assert type(caught.value) is getattr(mibao.errors, case["kind"])
    assert str(caught.value) == case["error"]


def test_signatures_of_unknown_keys_are_ignored_wherever_they_stand() -> None:
    checkpoint = Checkpoint(origin=ORIGIN, size=7, root=bytes(32))
    ours, witness = checkpoints.sign(checkpoint, signer(1)), checkpoints.sign(checkpoint, signer(2))
    witness_line = witness.rpartition("\n\n")[2]
    text, _, our_line = ours.rpartition("\n\n")
    for note in (ours + witness_line, f"{text}\n\n{witness_line}{our_line}"):
        assert checkpoints.verify(note, signer(1).public) == checkpoint


def test_a_second_line_under_our_key_that_does_not_verify_spoils_the_note() -> None:
    checkpoint = Checkpoint(origin=ORIGIN, size=7, root=bytes(32))
    other = checkpoints.sign(Checkpoint(origin=ORIGIN, size=8, root=bytes(32)), signer())
    note = checkpoints.sign(checkpoint, signer()) + other.rpartition("\n\n")[2]
    with pytest.raises(mibao.errors.IntegrityError, match="the signature does not verify"):
        checkpoints.verify(note, signer().public)


def test_a_signature_made_for_another_purpose_is_no_checkpoint() -> None:
    from mibao.crypto.sign import sign

    checkpoint = Checkpoint(origin=ORIGIN, size=7, root=bytes(32))
    made_elsewhere = sign(signer(), checkpoint.text().encode(), purpose="sealed/manifest")
    encoded = base64.b64encode(checkpoints.key_id(ORIGIN, signer().public) + made_elsewhere).decode()
    note = f"{checkpoint.text()}\n\u2014 {ORIGIN} {encoded}\n"
    with pytest.raises(mibao.errors.IntegrityError, match="the signature does not verify"):
        checkpoints.verify(note, signer().public)


def test_a_hybrid_key_neither_signs_nor_verifies_a_checkpoint() -> None:
    checkpoint = Checkpoint(origin=ORIGIN, size=7, root=bytes(32))
    expected = "a ledger is signed by an ed25519 key, got one of type ed25519-mldsa65"
    with pytest.raises(InputError, match=expected):
        checkpoints.sign(checkpoint, hybrid_signer())
    with pytest.raises(InputError, match=expected):
        checkpoints.verify(checkpoints.sign(checkpoint, signer()), hybrid_signer().public)


@pytest.mark.parametrize("origin", ["", "a b", "a+b", "a\nb", "A", "医院", "-a", "a/", "a" * 129, "a\x00b"])
def test_an_origin_outside_the_grammar_is_refused(origin: str) -> None:
    with pytest.raises(InputError, match="ledger origin: expected 1 to 128 characters"):
        checkpoints.sign(Checkpoint(origin=origin, size=0, root=bytes(32)), signer())


def test_a_text_that_does_not_end_in_a_newline_is_not_signed() -> None:
    with pytest.raises(InputError, match="ends in a newline"):
        checkpoints.sign_note("text", name="name", key=signer())
