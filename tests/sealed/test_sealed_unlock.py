"""Recipients beyond public keys: a passphrase, the environment, and what is refused for each of them."""

import copy
import os
import pickle
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sealed_kit as kit
from mibao import sealed
from mibao.crypto import key_text
from mibao.crypto.keys import RecipientSuite, encode_public
from mibao.errors import InputError, IntegrityError, KeyMismatch
from mibao.sealed import recipients
from mibao.sealed.file_keys import FileKeys
from mibao.sealed.unlock import Binding, Stanza
from mibao.sealed.unlock_environment import identity_from_environment, recipient_from_environment
from mibao.sealed.unlock_passphrase import Passphrase
from mibao.types import RandomId

FILE_KEY = b"K" * 32
KEYS = FileKeys(FILE_KEY, RandomId(b"I" * 16))
BINDING = Binding(file_id=KEYS.file_id, commitment=KEYS.commitment, signer=kit.VENDOR.key_id)
SECRET = Passphrase("correct horse", log_n=14)
HYBRID = kit.recipient(9, RecipientSuite.MLKEM768_X25519)
OPEN = {"signer": kit.VENDOR.public}


@pytest.fixture
def path(tmp_path):
    (tmp_path / "w.bin").write_bytes(b"weights")
    path = tmp_path / "w.mibao"
    recipients_ = [SECRET, HYBRID.public]
    sealed.seal(tmp_path / "w.bin", path, recipients=recipients_, signer=kit.VENDOR, model_id="m")
    return path


def test_a_passphrase_opens_what_was_sealed_to_it(path):
    assert sealed.open_bytes(path, identity=Passphrase("correct horse"), **OPEN) == b"weights"
    assert sealed.open_bytes(path, identity=HYBRID, **OPEN) == b"weights"
    report = sealed.open_sealed(path, None, identity=SECRET, **OPEN)
    assert (("scrypt", report.recipient)) in sealed.inspect(path).recipients


@settings(max_examples=5, deadline=None)
@given(passphrase=st.text(min_size=1, max_size=20), key=st.binary(min_size=32, max_size=32))
def test_every_passphrase_gives_back_the_key_that_was_wrapped(passphrase, key):
    secret = Passphrase(passphrase, log_n=14)
    assert secret.unwrap(secret.wrap(key, BINDING), BINDING) == key


def test_a_wrong_passphrase_is_refused(path):
    with pytest.raises(KeyMismatch, match=r"^recipients: the passphrase does not open this model$"):
        sealed.open_bytes(path, identity=Passphrase("correct horse "), **OPEN)


def test_a_passphrase_is_refused_where_no_stanza_is_for_one(tmp_path):
    (tmp_path / "m.mibao").write_bytes(kit.sealed_bytes())
    with pytest.raises(KeyMismatch, match="not sealed to this key"):
        sealed.open_sealed(tmp_path / "m.mibao", None, identity=SECRET, **OPEN)


def test_keyboards_that_compose_differently_agree():
    assert Passphrase("\u00e9", log_n=14).unwrap(Passphrase("e\u0301", log_n=14).wrap(FILE_KEY, BINDING), BINDING)


def test_the_second_of_two_passphrases_opens(path):
    other = Passphrase("battery staple", log_n=14)
    sealed.rewrap(path, identity=SECRET, add=[other])
    assert sealed.open_bytes(path, identity=other, **OPEN) == b"weights"


def test_a_passphrase_removed_by_its_id_no_longer_opens(path):
    (key_id,) = [key_id for kind, key_id in sealed.inspect(path).recipients if kind == "scrypt"]
    sealed.rewrap(path, identity=HYBRID, remove=[key_id])
    with pytest.raises(KeyMismatch):
        sealed.open_bytes(path, identity=SECRET, **OPEN)


def body_of(stanza: Stanza, *, at: int, value: int) -> Stanza:
    return replace(stanza, body=stanza.body[:at] + bytes([value]) + stanza.body[at + 1 :])


@pytest.mark.parametrize(("at", "value"), [(0, 13), (0, 19), (0, 63), (0, 255), (1, 9), (1, 255), (2, 0), (2, 2)])
def test_a_cost_over_its_cap_is_refused_before_it_is_spent(at, value, monkeypatch):
    made = SECRET.wrap(FILE_KEY, BINDING)
    monkeypatch.setattr("mibao.sealed.unlock_passphrase.stretch", lambda *_: pytest.fail("scrypt ran"))
    with pytest.raises(InputError, match=r"^passphrase: the file asks for scrypt of N .*, beyond the limits$"):
        SECRET.unwrap(body_of(made, at=at, value=value), BINDING)


def test_more_passphrases_than_the_limit_are_refused_before_any_is_tried():
    stanza = SECRET.wrap(FILE_KEY, BINDING)
    many = [replace(stanza, key_id=RandomId(bytes([number]) * 16)) for number in range(9)]
    for refuse in (lambda: recipients.check_recipients(many), lambda: recipients.unwrap(many, SECRET, BINDING)):
        with pytest.raises(InputError, match=r"^recipients: expected at most 8 of type scrypt, got 9$"):
            refuse()


@pytest.mark.parametrize(
    "change",
    [
        lambda s: replace(s, key_id=RandomId(b"z" * 16)),
        lambda s: body_of(s, at=3, value=s.body[3] ^ 1),
        lambda s: body_of(s, at=len(s.body) - 1, value=s.body[-1] ^ 1),
    ],
    ids=["another id", "salt", "tag"],
)
def test_an_altered_stanza_does_not_open(change):
    with pytest.raises(KeyMismatch):
        SECRET.unwrap(change(SECRET.wrap(FILE_KEY, BINDING)), BINDING)


@pytest.mark.parametrize("length", [0, 2, 3, 82, 84])
def test_a_stanza_of_another_length_is_refused(length):
    stanza = replace(SECRET.wrap(FILE_KEY, BINDING), body=bytes([14, 8, 1]).ljust(length, b"\0")[:length])
    with pytest.raises(IntegrityError, match="the passphrase's stanza has another length"):
        SECRET.unwrap(stanza, BINDING)


@pytest.mark.parametrize(
    "other",
    [
        replace(BINDING, file_id=RandomId(b"J" * 16)),
        replace(BINDING, commitment=b"c" * 32),
        replace(BINDING, signer=RandomId(b"s" * 16)),
    ],
    ids=["file", "commitment", "signer"],
)
def test_a_stanza_of_another_file_does_not_open(other):
    with pytest.raises(KeyMismatch):
        SECRET.unwrap(SECRET.wrap(FILE_KEY, BINDING), other)


def test_a_passphrase_that_opens_to_another_key_than_the_signed_one_is_refused(path):
    """Whoever can change the list can wrap any key; the signed commitment has room for one."""
    data = path.read_bytes()
    opened = SECRET.wrap(b"L" * 32, binding_of(path))
    slot_at, stanzas, slot_bytes = slot_of(data)
    forged = [opened if each.kind == "scrypt" else each for each in stanzas]
    path.write_bytes(
        data[:slot_at] + recipients.encode_slot(forged, slot_bytes=slot_bytes) + data[slot_at + slot_bytes :]
    )
    with pytest.raises(IntegrityError, match=r"^key commitment: the recipient's stanza holds another key"):
        sealed.open_bytes(path, identity=SECRET, **OPEN)


def slot_of(data: bytes):
    from mibao.sealed import layout

    preamble = layout.parse_preamble(data[:64], file_bytes=len(data))
    at = preamble.slot_at(0)
    return at, recipients.decode_slot(data[at : at + preamble.slot_bytes]), preamble.slot_bytes


def binding_of(path) -> Binding:
    from mibao.sealed import opening
    from mibao.sealed.source import MemorySource

    manifest = opening.read_unverified(MemorySource(path.read_bytes())).manifest
    return Binding(file_id=manifest.file_id, commitment=manifest.commitment, signer=manifest.signer)


@pytest.mark.parametrize("kind", ["pkcs11", "aws-kms", "x25519", "mlkem768-x25519", "x-other"])
def test_a_stanza_moved_to_another_type_does_not_open(path, kind):
    data = path.read_bytes()
    at, stanzas, slot_bytes = slot_of(data)
    forged = [replace(each, kind=kind) if each.kind == "scrypt" else each for each in stanzas]
    path.write_bytes(data[:at] + recipients.encode_slot(forged, slot_bytes=slot_bytes) + data[at + slot_bytes :])
    with pytest.raises(KeyMismatch, match="not sealed to this key"):
        sealed.open_bytes(path, identity=SECRET, **OPEN)


def test_another_types_body_under_scrypt_is_refused(path):
    data = path.read_bytes()
    at, stanzas, slot_bytes = slot_of(data)
    forged = [replace(each, kind="scrypt") for each in stanzas if each.kind != "scrypt"]
    path.write_bytes(data[:at] + recipients.encode_slot(forged, slot_bytes=slot_bytes) + data[at + slot_bytes :])
    with pytest.raises(IntegrityError, match="the passphrase's stanza has another length"):
        sealed.open_bytes(path, identity=SECRET, **OPEN)


def test_a_file_is_post_quantum_only_if_all_its_stanzas_are(path):
    assert sealed.inspect(path).post_quantum
    sealed.rewrap(path, identity=SECRET, add=[kit.ALICE.public])
    assert not sealed.inspect(path).post_quantum


def test_an_empty_passphrase_is_refused():
    with pytest.raises(InputError, match="at least one character"):
        Passphrase("")


def test_a_passphrase_cannot_be_printed_pickled_or_copied():
    assert "horse" not in repr(SECRET)
    for take in (pickle.dumps, copy.copy):
        with pytest.raises(TypeError):
            take(SECRET)


class Vault:
    """A wrapper as others write one, which locks nothing away; it must not pass for a type of this format."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def wrap(self, file_key: bytes, binding: Binding) -> Stanza:
        return Stanza(kind=self.kind, key_id=RandomId(b"v" * 16), body=bytes(each ^ 255 for each in file_key))

    def unwrap(self, stanza: Stanza, binding: Binding) -> bytes:
        return bytes(each ^ 255 for each in stanza.body)


def test_others_wrap_under_types_of_their_own(path):
    sealed.rewrap(path, identity=SECRET, add=[Vault("x-vault")])
    assert sealed.open_bytes(path, identity=Vault("x-vault"), **OPEN) == b"weights"
    assert not sealed.inspect(path).post_quantum
    for kind in ("x25519", "mlkem768-x25519", "vault"):
        with pytest.raises(InputError, match="expected a type that begins with x-"):
            sealed.rewrap(path, identity=SECRET, add=[Vault(kind)])


def test_a_faulty_unwrapper_opens_nothing(path):
    sealed.rewrap(path, identity=SECRET, add=[Vault("x-vault")])
    for result, message in (
        (b"L" * 32, "key commitment: "),
        (b"short", "recipients: the stanza for this key holds no"),
    ):
        faulty = Vault("x-vault")
        faulty.unwrap = lambda stanza, binding, result=result: result
        with pytest.raises(IntegrityError, match=f"^{message}"):
            sealed.open_bytes(path, identity=faulty, **OPEN)


def test_keys_and_passphrases_come_from_the_environment(path, monkeypatch):
    monkeypatch.setenv("MODEL_KEY", key_text.encode_plain(HYBRID) + "\n")
    monkeypatch.setenv("MODEL_PASSPHRASE", "correct horse")
    monkeypatch.setenv("MODEL_PUBLIC", encode_public(HYBRID.public))
    for name in ("MODEL_KEY", "MODEL_PASSPHRASE"):
        assert sealed.open_bytes(path, identity=identity_from_environment(name), **OPEN) == b"weights"
    assert recipient_from_environment("MODEL_PUBLIC").key_id == HYBRID.key_id
    assert isinstance(recipient_from_environment("MODEL_PASSPHRASE"), Passphrase)


@pytest.mark.parametrize(
    ("text", "make", "message"),
    [
        (None, identity_from_environment, r"\$MODEL_KEY: expected a key or a passphrase, and it is not set"),
        ("", recipient_from_environment, r"\$MODEL_KEY: expected a key or a passphrase, and it is not set"),
        (key_text.encode_plain(kit.VENDOR), identity_from_environment, "recipient's private key, got a signer's"),
        (key_text.encode_plain(kit.ALICE), recipient_from_environment, "got a private key"),
        (key_text.encode_plain(kit.ALICE)[:-9], identity_from_environment, "damaged or cut short"),
        (encode_public(kit.ALICE.public), identity_from_environment, "expected a private key"),
    ],
)
def test_what_is_no_key_in_the_environment_is_refused(text, make, message, monkeypatch):
    monkeypatch.delenv("MODEL_KEY", raising=False)
    if text is not None:
        monkeypatch.setitem(os.environ, "MODEL_KEY", text)
    with pytest.raises(InputError, match=message) as caught:
        make("MODEL_KEY")
    assert text is None or not text or text not in str(caught.value)
