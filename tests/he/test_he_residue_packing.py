"""Residues at the exact width of their primes: back as they were, and nothing else is taken."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counts import counts
from mibao.errors import InputError, IntegrityError
from mibao.he.residue_packing import pack, packed_bytes, unpack

NEAR = [(1 << bits) - 1 for bits in range(8, 61)]  # the largest modulus of each width: all its residues' bits vary


@settings(max_examples=counts(short=100, long=3000), deadline=None)
@given(
    components=st.integers(1, 3),
    eights=st.integers(1, 20),
    primes=st.lists(st.sampled_from([*NEAR, 12289, 1073692673, 1125899904679937]), min_size=1, max_size=4),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_is_unpacked_is_what_was_packed(components, eights, primes, seed):
    rng = np.random.default_rng(seed)
    shape = (components, 8 * eights)
    residues = np.stack([rng.integers(0, prime, shape, dtype=np.uint64) for prime in primes], axis=1)
    packed = pack(residues, primes=primes)
    assert len(packed) == packed_bytes(primes, components=components, degree=8 * eights)
    assert len(packed) * 8 == components * 8 * eights * sum(prime.bit_length() for prime in primes)
    assert np.array_equal(unpack(memoryview(packed), primes=primes, components=components, degree=8 * eights), residues)


@settings(max_examples=counts(short=30, long=500), deadline=None)
@given(prime=st.sampled_from([12289, 1073692673, 1125899904679937]), seed=st.integers(0, 2**32 - 1))
def test_whatever_is_unpacked_packs_to_the_same_bytes(prime, seed):
    """One form for each value: nobody can change the bytes and keep the meaning."""
    data = np.random.default_rng(seed).bytes(packed_bytes([prime], components=1, degree=8))
    try:
        residues = unpack(data, primes=[prime], components=1, degree=8)
    except IntegrityError:
        return
    assert pack(residues, primes=[prime]) == data


@given(prime=st.sampled_from(NEAR), seed=st.integers(0, 2**32 - 1))
def test_bits_follow_one_another_lowest_first(prime, seed):
    residues = np.random.default_rng(seed).integers(0, prime, (1, 1, 16), dtype=np.uint64)
    joined = sum(int(value) << (prime.bit_length() * index) for index, value in enumerate(residues[0, 0]))
    assert pack(residues, primes=[prime]) == joined.to_bytes(2 * prime.bit_length(), "little")


def test_a_known_answer():
    residues = np.array([[[1, 2, 3, 4, 5, 6, 7, 0x3FF]]], dtype=np.uint64)
    assert pack(residues, primes=[0x7FF]).hex() == "0110c000085000031ce07f"


def test_a_request_and_an_answer_of_one_sample_are_as_small_as_promised():
    assert packed_bytes([(1 << 50) - 1, (1 << 48) - 1, (1 << 48) - 1], components=2, degree=8192) < 300_000
    assert packed_bytes([(1 << 46) - 1], components=2, degree=8192) < 95_000


@pytest.mark.parametrize("prime", [12289, 1125899904679937, (1 << 60) - 93])
def test_a_residue_that_is_its_prime_or_more_is_refused_both_ways(prime):
    residues = np.zeros((2, 1, 16), dtype=np.uint64)
    residues[1, 0, 13] = prime
    with pytest.raises(InputError, match="residues: one is not under its prime"):
        pack(residues, primes=[prime])
    widest = (1 << prime.bit_length()) - 1
    full = np.zeros((2, 1, 16), dtype=np.uint64)
    full[1, 0, 13] = widest - 1
    data = pack(full, primes=[widest])
    with pytest.raises(IntegrityError, match="residues: one is not under its prime"):
        unpack(data, primes=[prime], components=2, degree=16)


@pytest.mark.parametrize("size", [0, 27, 29, 64])
def test_another_length_is_refused(size):
    with pytest.raises(IntegrityError, match=f"residues: expected 28 bytes, got {size}"):
        unpack(bytes(size), primes=[12289], components=1, degree=16)


@pytest.mark.parametrize(("components", "degree"), [(1, 12), (1, 0), (0, 8), (1, -8)])
def test_a_shape_that_fills_no_whole_bytes_is_refused(components, degree):
    with pytest.raises(InputError, match="residues: expected components of a degree that 8 divides"):
        packed_bytes([12289], components=components, degree=degree)


@pytest.mark.parametrize("primes", [[], [127], [1 << 60], [12289, 0]])
def test_primes_out_of_range_are_refused(primes):
    with pytest.raises(InputError, match="residues: expected primes of 8 to 60 bits"):
        packed_bytes(primes, components=1, degree=8)


def test_another_number_of_primes_is_refused():
    with pytest.raises(InputError, match="residues: expected those of 1 primes, got 2"):
        pack(np.zeros((1, 2, 8), dtype=np.uint64), primes=[12289])
