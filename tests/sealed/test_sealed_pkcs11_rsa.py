"""RSA-3072-OAEP-SHA-256 by the mechanism of a real token, NSS's."""

from dataclasses import replace

import pytest

import sealed_kit as kit
from mibao import sealed
from mibao.crypto.oaep import encrypt_oaep
from mibao.errors import InputError, IntegrityError, KeyMismatch
from mibao.sealed import token_stanza
from mibao.sealed.token_stanza import TokenMechanism
from mibao.sealed.unlock import Binding
from mibao.sealed.unlock_pkcs11 import TokenKey, parse
from mibao.types import RandomId
from sealed_faults import KEYS
from tokens import LABEL, PIN, nss

FILE_KEY = b"K" * 32
BINDING = Binding(file_id=KEYS.file_id, commitment=KEYS.commitment, signer=kit.VENDOR.key_id)
OPEN = {"signer": kit.VENDOR.public}


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    with nss(tmp_path_factory.mktemp("nss")) as library:
        yield library


def key(library: str, label: str = "pair") -> TokenKey:
    return TokenKey(module=library, pin=PIN, token=LABEL, label=label)


def test_a_model_is_sealed_to_a_tokens_rsa_key_and_opened_by_it(library, tmp_path, monkeypatch):
    monkeypatch.setenv("MODEL_PIN", PIN)
    (tmp_path / "w.bin").write_bytes(b"weights")
    path = tmp_path / "w.mibao"
    sealed.seal(tmp_path / "w.bin", path, recipients=[key(library)], signer=kit.VENDOR, model_id="m")
    named = parse(f"pkcs11:token={LABEL};object=pair?module-path={library}&pin-source=env:MODEL_PIN")
    for identity in (key(library), named):
        assert sealed.open_bytes(path, identity=identity, **OPEN) == b"weights"
    assert not sealed.inspect(path).post_quantum
    with pytest.raises(KeyMismatch, match=r"^recipients: the token's key does not open this model$"):
        sealed.open_bytes(path, identity=key(library, "second"), **OPEN)
    sealed.rewrap(path, identity=key(library), add=[key(library, "second"), key(library, "models")])
    for label in ("second", "models"):
        assert sealed.open_bytes(path, identity=key(library, label), **OPEN) == b"weights"


def test_the_stanza_is_the_one_of_the_specification(library):
    body = token_stanza.decode(key(library).wrap(FILE_KEY, BINDING).body)
    assert (body.mechanism, body.key, len(body.wrapped)) == (TokenMechanism.RSA_OAEP_SHA256, b"\x01", 384)


def test_the_wrong_key_under_the_right_id_does_not_open(library):
    stanza = key(library).wrap(FILE_KEY, BINDING)
    renamed = replace(token_stanza.decode(stanza.body), key=b"\x02")
    with pytest.raises(KeyMismatch, match=r"^recipients: the token's key does not open this model"):
        key(library, "second").unwrap(replace(stanza, body=renamed.encode()), BINDING)


def test_an_altered_stanza_and_one_of_another_file_do_not_open(library):
    stanza = key(library).wrap(FILE_KEY, BINDING)
    body = token_stanza.decode(stanza.body)
    altered = replace(body, wrapped=bytes([body.wrapped[0] ^ 1]) + body.wrapped[1:])
    with pytest.raises(KeyMismatch):
        key(library).unwrap(replace(stanza, body=altered.encode()), BINDING)
    with pytest.raises(IntegrityError, match=r"^recipients: the token's stanza was altered$"):
        key(library).unwrap(stanza, replace(BINDING, file_id=RandomId(b"J" * 16)))


def test_what_was_wrapped_for_a_larger_modulus_does_not_open(library):
    """NSS calls it a bad argument, as others call a mechanism that they lack."""
    stanza = key(library).wrap(FILE_KEY, BINDING)
    largest = replace(token_stanza.decode(stanza.body), wrapped=b"\xff" * 384)
    with pytest.raises(KeyMismatch, match=r"^recipients: the token's key does not open this model"):
        key(library).unwrap(replace(stanza, body=largest.encode()), BINDING)


def test_a_stanza_that_names_another_mechanism_does_not_choose_it(library):
    stanza = key(library).wrap(FILE_KEY, BINDING)
    body = replace(token_stanza.decode(stanza.body), mechanism=TokenMechanism.AES_KEY_WRAP)
    with pytest.raises(KeyMismatch):
        key(library).unwrap(replace(stanza, body=body.encode()), BINDING)


@pytest.mark.parametrize(("bits", "exponent"), [(2048, 65537), (3071, 65537), (3072, 3), (3072, 65538), (8193, 65537)])
def test_weak_and_absurd_rsa_keys_are_refused(bits, exponent):
    with pytest.raises(InputError, match=r"^RSA: expected a key of 3072 to 8192 bits"):
        encrypt_oaep(b"w" * 32, modulus=(1 << bits) - 1, public_exponent=exponent)
