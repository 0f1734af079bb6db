import pytest
from hypothesis import given
from hypothesis import strategies as st

from mibao.crypto import kdf
from mibao.errors import InputError
from vectors_io import vectors

PURPOSES = st.from_regex(r"[a-z0-9][a-z0-9/_-]{0,20}", fullmatch=True)
SECRET = bytes(range(32))


@given(first=st.tuples(PURPOSES, st.lists(st.binary(max_size=9))), second=st.tuples(PURPOSES, st.lists(st.binary())))
def test_two_different_purposes_or_contexts_never_share_a_tag(
    first: tuple[str, list[bytes]], second: tuple[str, list[bytes]]
) -> None:
    same = first == second
    assert (kdf.domain_tag(first[0], *first[1]) == kdf.domain_tag(second[0], *second[1])) is same


@pytest.mark.parametrize("case", vectors("crypto", "hkdf_rfc5869")["vectors"])
def test_rfc_5869_vectors(case: dict[str, str | int]) -> None:
    ikm, salt, info = (bytes.fromhex(str(case[name])) for name in ("ikm", "salt", "info"))
    assert kdf.hkdf(ikm, salt=salt, info=info, length=int(case["length"])).hex() == case["okm"]


def test_every_argument_changes_the_key() -> None:
    base = kdf.derive(SECRET, purpose="a", context=b"c", salt=b"s")
    assert base != kdf.derive(SECRET[::-1], purpose="a", context=b"c", salt=b"s")
    assert base != kdf.derive(SECRET, purpose="b", context=b"c", salt=b"s")
    assert base != kdf.derive(SECRET, purpose="a", context=b"d", salt=b"s")
    assert base != kdf.derive(SECRET, purpose="a", context=b"c", salt=b"t")


def test_a_keyed_hash_needs_its_key_and_its_purpose() -> None:
    base = kdf.keyed_hash(SECRET, purpose="a", message=b"Lin Xiaoyu")
    assert base == kdf.keyed_hash(SECRET, purpose="a", message=b"Lin Xiaoyu")
    assert base != kdf.keyed_hash(SECRET, purpose="b", message=b"Lin Xiaoyu")
    assert base != kdf.keyed_hash(bytes(32), purpose="a", message=b"Lin Xiaoyu")


def test_rfc_4231_hmac_vector() -> None:
    expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert kdf.hmac_sha256(b"Jefe", b"what do ya want for nothing?").hex() == expected


@pytest.mark.parametrize("purpose", ["", "Upper", "white space", "x" * 65, "nul\0", "/leading"])
def test_a_purpose_outside_the_alphabet_is_refused(purpose: str) -> None:
    with pytest.raises(InputError, match="expected a purpose"):
        kdf.domain_tag(purpose)


def test_short_secrets_and_long_outputs_are_refused() -> None:
    with pytest.raises(InputError, match="at least 16 bytes, got 15"):
        kdf.derive(bytes(15), purpose="a")
    with pytest.raises(InputError, match="at least 16 bytes, got 3"):
        kdf.keyed_hash(b"key", purpose="a", message=b"")
    with pytest.raises(InputError, match="1 to 8160 bytes, got 8161"):
        kdf.derive(SECRET, purpose="a", length=8161)
