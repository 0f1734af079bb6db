import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mibao.crypto import prg
from mibao.errors import InputError


@given(seed=st.binary(min_size=32, max_size=32), short=st.integers(0, 200), long=st.integers(200, 400))
def test_a_longer_stream_begins_with_the_shorter_one(seed: bytes, short: int, long: int) -> None:
    assert prg.keystream(seed, long)[:short] == prg.keystream(seed, short)


def test_fips_197_block_under_a_zero_counter() -> None:
    # AES-256 of the all-zero block under the all-zero key: NIST AESAVS, GFSbox/KeySbox base value.
    assert prg.keystream(bytes(32), 16).hex() == "dc95c078a2408989ad48a21492842087"


@pytest.mark.parametrize("modulus_bits", [32, 64])
def test_ring_elements_fill_their_ring_evenly(modulus_bits: int) -> None:
    elements = prg.ring_elements(bytes(range(32)), 1 << 16, modulus_bits=modulus_bits)
    assert elements.max() < 1 << modulus_bits
    counts = np.bincount((elements >> np.uint64(modulus_bits - 6)).astype(np.int64), minlength=64)
    assert np.sum((counts - 1024.0) ** 2 / 1024.0) < 120  # chi-square, 63 degrees of freedom


def test_elements_are_read_little_endian() -> None:
    stream = prg.keystream(bytes(32), 8)
    assert prg.ring_elements(bytes(32), 2, modulus_bits=32).tolist() == [
        int.from_bytes(stream[:4], "little"),
        int.from_bytes(stream[4:], "little"),
    ]


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(InputError, match="seed of 32 bytes, got 16"):
        prg.keystream(bytes(16), 1)
    with pytest.raises(InputError, match="at least 0, got -1"):
        prg.keystream(bytes(32), -1)
    with pytest.raises(InputError, match="32 or 64 bits, got 48"):
        prg.ring_elements(bytes(32), 1, modulus_bits=48)
