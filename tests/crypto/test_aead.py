import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mibao.crypto.aead import AesGcm
from mibao.errors import InputError, IntegrityError
from vectors_io import vectors

NIST = vectors("crypto", "aes256gcm_nist")
KEY, NONCE = bytes(range(32)), bytes(12)


@given(plaintext=st.binary(max_size=300), associated=st.binary(max_size=60))
def test_what_was_sealed_opens_whole_and_in_place(plaintext: bytes, associated: bytes) -> None:
    aead = AesGcm(KEY)
    sealed = aead.seal(NONCE, plaintext, associated)
    assert aead.open(NONCE, sealed, associated) == plaintext
    sealed_in_place, opened_in_place = bytearray(len(plaintext) + 16), bytearray(len(plaintext))
    aead.seal_into(NONCE, plaintext, associated, sealed_in_place)
    assert sealed_in_place == sealed
    aead.open_into(NONCE, sealed_in_place, associated, opened_in_place)
    assert opened_in_place == plaintext


@given(plaintext=st.binary(min_size=1, max_size=40), position=st.integers(0), bit=st.integers(0, 7))
def test_no_single_flipped_bit_is_accepted(plaintext: bytes, position: int, bit: int) -> None:
    sealed = bytearray(AesGcm(KEY).seal(NONCE, plaintext, b"label"))
    sealed[position % len(sealed)] ^= 1 << bit
    with pytest.raises(IntegrityError, match="tag does not match"):
        AesGcm(KEY).open(NONCE, bytes(sealed), b"label")


@pytest.mark.parametrize("case", NIST["encrypt"])
def test_nist_encryption_vectors(case: dict[str, str]) -> None:
    key, iv, pt, aad, ct, tag = (bytes.fromhex(case[name]) for name in ("key", "iv", "pt", "aad", "ct", "tag"))
    assert AesGcm(key).seal(iv, pt, aad) == ct + tag


@pytest.mark.parametrize("case", NIST["must_fail"])
def test_nist_vectors_that_must_fail(case: dict[str, str]) -> None:
    key, iv, aad, ct, tag = (bytes.fromhex(case[name]) for name in ("key", "iv", "aad", "ct", "tag"))
    with pytest.raises(IntegrityError):
        AesGcm(key).open(iv, ct + tag, aad)


def test_a_failed_open_into_leaves_nothing_of_the_plaintext() -> None:
    sealed = bytearray(AesGcm(KEY).seal(NONCE, b"secret weights, a long run of them" * 50, b""))
    sealed[-1] ^= 1
    out = bytearray(b"\xaa" * (len(sealed) - 16))
    with pytest.raises(IntegrityError):
        AesGcm(KEY).open_into(NONCE, sealed, b"", out)
    assert out == bytes(len(out))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"key": bytes(16)}, "expected a key of 32 bytes, got 16"),
        ({"nonce": bytes(8)}, "expected a nonce of 12 bytes, got 8"),
        ({"out": bytearray(3)}, "expected a destination of 17 bytes, got 3"),
    ],
)
def test_sizes_are_checked(change: dict[str, bytes], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        AesGcm(change.get("key", KEY)).seal_into(
            change.get("nonce", NONCE), b"x", b"", change.get("out", bytearray(17))
        )


def test_a_key_is_neither_printed_nor_pickled_nor_copied() -> None:
    aead = AesGcm(KEY)
    assert repr(aead) == "<AesGcm key>"
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            leak(aead)
