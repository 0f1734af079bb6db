"""Keys on a real SoftHSM2 token."""

import os
from dataclasses import replace

import pytest

import sealed_kit as kit
from mibao import sealed
from mibao.errors import InputError, IntegrityError, KeyMismatch, MissingExtra
from mibao.sealed import token_stanza, unlock_pkcs11
from mibao.sealed.file_keys import FileKeys
from mibao.sealed.token_stanza import TokenBody, TokenMechanism
from mibao.sealed.unlock import Binding
from mibao.sealed.unlock_pkcs11 import TokenKey, parse
from mibao.types import RandomId
from tokens import LABEL, PIN, softhsm

FILE_KEY = b"K" * 32
KEYS = FileKeys(FILE_KEY, RandomId(b"I" * 16))
BINDING = Binding(file_id=KEYS.file_id, commitment=KEYS.commitment, signer=kit.VENDOR.key_id)
OPEN = {"signer": kit.VENDOR.public}


@pytest.fixture(scope="module")
def token(tmp_path_factory):
    with softhsm(tmp_path_factory.mktemp("token")) as library:
        yield library


def key(library: str, label: str = "models", **more) -> TokenKey:
    return TokenKey(**{"module": library, "pin": PIN, "token": LABEL, "label": label} | more)


def test_a_model_is_sealed_to_a_tokens_aes_key_and_opened_by_it(token, tmp_path):
    (tmp_path / "w.bin").write_bytes(b"weights")
    path, named = tmp_path / "w.mibao", parse(f"pkcs11:token=mibao;id=%01?module-path={token}&pin-source=env:MODEL_PIN")
    sealed.seal(tmp_path / "w.bin", path, recipients=[key(token)], signer=kit.VENDOR, model_id="m")
    for identity in (key(token), named):
        assert sealed.open_bytes(path, identity=identity, **OPEN) == b"weights"
    assert sealed.inspect(path).post_quantum
    with pytest.raises(KeyMismatch, match=r"^recipients: the token's key does not open this model"):
        sealed.open_bytes(path, identity=key(token, "others"), **OPEN)
    sealed.rewrap(path, identity=key(token), add=[key(token, "others")])
    assert sealed.open_bytes(path, identity=key(token, "others"), **OPEN) == b"weights"


def test_the_wrong_key_under_the_right_id_does_not_open(token):
    stanza = key(token).wrap(FILE_KEY, BINDING)
    renamed = replace(token_stanza.decode(stanza.body), key=b"\x02")
    with pytest.raises(KeyMismatch, match=r"^recipients: the token's key does not open this model"):
        key(token, "others").unwrap(replace(stanza, body=renamed.encode()), BINDING)


@pytest.mark.parametrize(
    "other",
    [
        replace(BINDING, file_id=RandomId(b"J" * 16)),
        replace(BINDING, commitment=b"c" * 32),
        replace(BINDING, signer=RandomId(b"s" * 16)),
    ],
    ids=["file", "commitment", "signer"],
)
def test_a_stanza_of_another_file_does_not_open(token, other):
    stanza = key(token).wrap(FILE_KEY, BINDING)
    assert key(token).unwrap(stanza, BINDING) == FILE_KEY
    with pytest.raises(IntegrityError, match=r"^recipients: the token's stanza was altered$"):
        key(token).unwrap(stanza, other)
    with pytest.raises(IntegrityError, match=r"^recipients: the token's stanza was altered$"):
        key(token).unwrap(replace(stanza, key_id=RandomId(b"z" * 16)), BINDING)


def test_altered_fields_of_a_stanza_are_refused(token):
    stanza = key(token).wrap(FILE_KEY, BINDING)
    body = token_stanza.decode(stanza.body)
    flipped = {"wrapped": bytes([body.wrapped[0] ^ 1]) + body.wrapped[1:], "sealed": bytes(48)}
    for name, error in (("wrapped", KeyMismatch), ("sealed", IntegrityError)):
        altered = replace(body, **{name: flipped[name]}).encode()
        with pytest.raises(error):
            key(token).unwrap(replace(stanza, body=altered), BINDING)
    for moved in (b"", b"\xa0", body.encode() + b"\0", b"x" * 5000, bytes([14, 8, 1]) + bytes(80)):
        with pytest.raises(IntegrityError, match=r"^recipients: the token's stanza"):
            key(token).unwrap(replace(stanza, body=moved), BINDING)


def test_rsa_is_sealed_to_with_sha256_and_a_token_without_it_says_so(token):
    """SoftHSM 2.6 knows OAEP with SHA-1 alone: the public half wraps, its private half cannot answer."""
    stanza = key(token, "pair").wrap(FILE_KEY, BINDING)
    assert not token_stanza.is_symmetric(stanza.body)
    assert len(token_stanza.decode(stanza.body).wrapped) == 384
    with pytest.raises(InputError, match="does not do RSA-OAEP with SHA-256"):
        key(token, "pair").unwrap(stanza, BINDING)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pin": "9999"}, "token mibao: the PIN is wrong"),
        ({"token": "none"}, "no token none"),
        ({"label": "none"}, "expected one AES or RSA key of that name on the token, found 0"),
        ({"label": "short"}, "expected an AES key of 256 bits, got 128"),
        ({"module": "/none.so"}, "expected the token's module, and there is none"),
        ({"module": os.devnull}, "expected the token's module, and there is none"),
    ],
)
def test_what_is_not_there_is_named(token, change, message):
    with pytest.raises(InputError, match=message):
        key(token, **change).wrap(FILE_KEY, BINDING)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("pkcs11:token=a?module-path=/x.so", "expected a token .* and a key"),
        ("pkcs11:object=a?module-path=/x.so", "expected a token .* and a key"),
        ("pkcs11:token=a;object=b", "expected module-path="),
        ("pkcs11:token=a;object=b?module-path=/x.so&pin-value=1234", "shows in the list of processes"),
        ("pkcs11:token=a;object=b;color=red?module-path=/x.so", "expected each of"),
        ("pkcs11:token=a;token=b;object=b?module-path=/x.so", "expected each of"),
        ("pkcs11:token=a;object=b?module-path=/x.so&pin-source=env:NOT_SET_AT_ALL", "expected pin-source="),
        ("pkcs11:token=a;object=b?module-path=/x.so&pin-source=ask", "expected pin-source="),
    ],
)
def test_an_address_that_names_no_key_is_refused(address, message, monkeypatch):
    monkeypatch.delenv(unlock_pkcs11.MODULE_VARIABLE, raising=False)
    with pytest.raises(InputError, match=message) as caught:
        parse(address)
    assert "1234" not in str(caught.value)


def test_an_address_is_read_as_rfc_7512_writes_it(tmp_path):
    (tmp_path / "pin").write_text("12 34\n")
    found = parse(f"pkcs11:token=my%20token;object=k%3B;id=%00%ff?module-path=/x.so&pin-source=file:{tmp_path}/pin")
    assert found == TokenKey(module="/x.so", pin="12 34", token="my token", label="k;", id=b"\0\xff")
    assert "12 34" not in repr(found)


def test_a_token_stanzas_body_has_one_encoding():
    body = TokenBody(mechanism=TokenMechanism.AES_KEY_WRAP, key=b"k", wrapped=b"w" * 40, sealed=b"s" * 48)
    assert token_stanza.decode(body.encode()) == body
    with pytest.raises(IntegrityError, match="names a mechanism that is not known"):
        token_stanza.decode(body.encode().replace(b"aes-key-wrap", b"aes-key-wrxp"))


def test_without_the_library_the_extra_is_named(monkeypatch, token):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(unlock_pkcs11.importlib, "import_module", missing)
    with pytest.raises(MissingExtra, match=r"pip install '\.\[pkcs11\]'"):
        key(token).wrap(FILE_KEY, BINDING)
