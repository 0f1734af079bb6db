import base64
import copy
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mibao.crypto import key_text, keys
from mibao.crypto.keys import RecipientSuite, SignerSuite
from mibao.errors import InputError, KeyMismatch
from vectors_io import vectors

SUITES = [*RecipientSuite, *SignerSuite]


def key_of(suite: RecipientSuite | SignerSuite, fill: int = 7) -> keys.RecipientPrivateKey | keys.SignerPrivateKey:
    seed = bytes([fill]) * keys.SEED_BYTES[suite]
    if isinstance(suite, RecipientSuite):
        return keys.generate_recipient(suite, seed)
    return keys.generate_signer(suite, seed)


def decode_public(key: keys.RecipientPrivateKey | keys.SignerPrivateKey, text: str) -> object:
    return keys.decode_recipient(text) if key.public.kind == "recipient" else keys.decode_signer(text)


@pytest.mark.parametrize("suite", SUITES)
def test_public_text_comes_back_as_the_same_key(suite: RecipientSuite | SignerSuite) -> None:
    key = key_of(suite)
    text = keys.encode_public(key.public)
    assert text.startswith(f"mibao1.{key.public.kind}.{suite.value}.")
    decoded = decode_public(key, f" {text}\n")
    assert decoded == key.public
    assert decoded.raw == key.public.raw


@pytest.mark.parametrize("suite", SUITES)
def test_private_text_comes_back_as_the_same_key(suite: RecipientSuite | SignerSuite) -> None:
    key = key_of(suite)
    again = key_text.decode_private(key_text.encode_plain(key))
    assert keys.reveal_secret_bytes(again) == keys.reveal_secret_bytes(key)
    assert again.public == key.public


@settings(max_examples=60)
@given(suite=st.sampled_from(SUITES), at=st.integers(0), to=st.sampled_from("ABCabc019-_."))
def test_one_changed_character_never_gives_another_key(suite: RecipientSuite | SignerSuite, at: int, to: str) -> None:
    key = key_of(suite)
    text = keys.encode_public(key.public)
    changed = text[: at % len(text)] + to + text[at % len(text) + 1 :]
    if changed == text:
        return
    with pytest.raises(InputError):
        decode_public(key, changed)


@pytest.mark.parametrize("suite", SUITES)
def test_a_truncated_key_is_refused_at_every_length(suite: RecipientSuite | SignerSuite) -> None:
    key = key_of(suite)
    for text, decode in (
        (keys.encode_public(key.public), lambda t: decode_public(key, t)),
        (key_text.encode_plain(key), key_text.decode_private),
    ):
        for length in {*range(0, len(text), max(1, len(text) // 40)), len(text) - 1}:
            with pytest.raises(InputError):
                decode(text[:length])


def test_a_signer_is_no_recipient_and_a_recipient_no_signer() -> None:
    signer, recipient = key_of(SignerSuite.ED25519), key_of(RecipientSuite.X25519)
    with pytest.raises(InputError, match="expected a recipient's public key, got a key of type 'signer'"):
        keys.decode_recipient(keys.encode_public(signer.public))
    with pytest.raises(InputError, match="expected a signer's public key, got a key of type 'recipient'"):
        keys.decode_signer(keys.encode_public(recipient.public))


def test_a_relabelled_key_is_refused_although_its_bytes_would_fit() -> None:
    text = keys.encode_public(key_of(SignerSuite.ED25519).public)
    with pytest.raises(InputError, match="checksum"):
        keys.decode_recipient(text.replace("signer.ed25519", "recipient.x25519"))


def test_a_private_key_given_as_a_public_one_is_called_what_it_is() -> None:
    with pytest.raises(InputError, match="got a private key"):
        keys.decode_recipient(key_text.encode_plain(key_of(RecipientSuite.X25519)))


@pytest.mark.parametrize("suite", SUITES)
def test_a_private_key_leaks_through_no_side_door(suite: RecipientSuite | SignerSuite) -> None:
    key = key_of(suite, fill=0x41)
    secret = keys.reveal_secret_bytes(key)
    for shown in (repr(key), str(key), f"{key}"):
        assert "AAAA" not in shown
        assert secret.hex() not in shown
        assert base64.b64encode(secret).decode() not in shown
    for leak in (pickle.dumps, copy.copy, copy.deepcopy, type(key).__getstate__):
        with pytest.raises(TypeError, match="cannot be pickled or copied"):
            leak(key)
    assert not hasattr(key, "__dict__")


@pytest.mark.parametrize("case", vectors("crypto", "ed25519_rfc8032")["vectors"])
def test_rfc_8032_public_keys(case: dict[str, str]) -> None:
    signer = keys.generate_signer(SignerSuite.ED25519, bytes.fromhex(case["seed"]))
    assert signer.public.raw.hex() == case["public"]


@pytest.mark.parametrize("case", vectors("crypto", "mldsa65")["vectors"])
def test_fips_204_key_generation_is_the_hybrids_second_half(case: dict[str, str]) -> None:
    signer = keys.generate_signer(SignerSuite.ED25519_MLDSA65, bytes(32) + bytes.fromhex(case["xi"]))
    assert signer.public.raw[32:].hex() == case["public"]


@pytest.mark.parametrize("case", vectors("crypto", "hpke_mlkem768_x25519")["vectors"])
def test_hybrid_recipient_keys_are_those_of_the_draft(case: dict[str, str]) -> None:
    recipient = keys.generate_recipient(RecipientSuite.MLKEM768_X25519, bytes.fromhex(case["skRm"]))
    assert recipient.public.raw.hex() == case["pkRm"]


def protected(passphrase: str = "correct horse", log_n: int = 14) -> str:
    return key_text.encode_protected(
        key_of(SignerSuite.ED25519), passphrase=passphrase, salt=bytes(16), nonce=bytes(12), log_n=log_n
    )


def test_a_passphrase_opens_what_it_closed_and_another_does_not() -> None:
    text = protected()
    assert key_text.needs_passphrase(text)
    assert key_text.decode_private(text, passphrase="correct horse").public == key_of(SignerSuite.ED25519).public
    with pytest.raises(KeyMismatch, match="passphrase does not open it"):
        key_text.decode_private(text, passphrase="Correct horse")
    with pytest.raises(InputError, match="give its passphrase"):
        key_text.decode_private(text)


def test_a_passphrase_for_an_open_key_is_a_mistake_worth_telling() -> None:
    with pytest.raises(InputError, match="not protected by a passphrase"):
        key_text.decode_private(key_text.encode_plain(key_of(SignerSuite.ED25519)), passphrase="x")


@pytest.mark.parametrize("log_n", [0, 13, 19, 63, 255])
def test_a_cost_beyond_the_cap_is_refused_before_it_is_spent(log_n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix, encoded = protected().rsplit(".", 1)
    payload = keys.decode_text(prefix + ".", encoded)
    costly = keys.encode_text(prefix + ".", bytes([log_n]) + payload[1:])

    def spend(*_: object, **__: object) -> None:
        raise AssertionError("scrypt ran")

    monkeypatch.setattr(key_text, "Scrypt", spend)
    with pytest.raises(InputError, match=rf"2\*\*14 to 2\*\*18, got 2\*\*{log_n}"):
        key_text.decode_private(costly, passphrase="correct horse")


@pytest.mark.parametrize("suite", SUITES)
def test_a_seed_of_another_length_is_refused(suite: RecipientSuite | SignerSuite) -> None:
    make = keys.generate_recipient if isinstance(suite, RecipientSuite) else keys.generate_signer
    with pytest.raises(InputError, match=f"seed of {keys.SEED_BYTES[suite]} bytes, got 5"):
        make(suite, bytes(5))


SMALL_ORDER = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",  # 0, not reduced
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",  # 1, not reduced
]


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_a_signer_of_small_order_is_refused(point: str) -> None:
    with pytest.raises(InputError, match="small order"):
        keys.SignerPublicKey(SignerSuite.ED25519, bytes.fromhex(point))
    with pytest.raises(InputError, match="small order"):
        keys.SignerPublicKey(SignerSuite.ED25519_MLDSA65, bytes.fromhex(point) + bytes(1952))


def test_a_passphrase_that_is_no_text_is_refused_without_showing_it() -> None:
    with pytest.raises(InputError, match="expected text in UTF-8") as caught:
        key_text.decode_private(protected(), passphrase="geheim\udcff")
    assert caught.value.__cause__ is None
    assert "geheim" not in str(caught.value)
