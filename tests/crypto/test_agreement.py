import pytest
from hypothesis import given
from hypothesis import strategies as st

from mibao.crypto import agreement
from mibao.errors import InputError

SECRETS = st.binary(min_size=32, max_size=32)


@given(first=SECRETS, second=SECRETS, context=st.binary(max_size=20))
def test_both_sides_derive_the_same_key_and_nobody_elses(first: bytes, second: bytes, context: bytes) -> None:
    ours = agreement.shared_secret(first, agreement.public_key(second), purpose="p", context=context)
    theirs = agreement.shared_secret(second, agreement.public_key(first), purpose="p", context=context)
    assert ours == theirs
    assert ours != agreement.shared_secret(first, agreement.public_key(second), purpose="q", context=context)
    assert ours != agreement.shared_secret(first, agreement.public_key(second), purpose="p", context=context + b"x")


def test_rfc_7748_iterated_vector_after_one_step() -> None:
    nine = b"\x09" + bytes(31)  # section 5.2: the scalar 9 times the base point, whose u is 9
    assert agreement.public_key(nine).hex() == "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"


@pytest.mark.parametrize("point", [bytes(32), b"\x01" + bytes(31), bytes.fromhex("ec" + "ff" * 30 + "7f")])
def test_points_of_low_order_are_refused(point: bytes) -> None:
    with pytest.raises(InputError, match="low order"):
        agreement.shared_secret(bytes(range(32)), point, purpose="p", context=b"")


def test_lengths_are_checked() -> None:
    with pytest.raises(InputError, match="secret of 32 bytes, got 31"):
        agreement.public_key(bytes(31))
    with pytest.raises(InputError, match="public key of 32 bytes, got 33"):
        agreement.shared_secret(bytes(32), bytes(33), purpose="p", context=b"")
