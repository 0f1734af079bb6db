import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counts import counts
from mibao.errors import IntegrityError
from mibao.he.engine import Engine
from mibao.he.engine_seal import _PREFIX_BYTES, engine_for
from mibao.he.parameters import Parameters

RUNGS = [(2048, (53,), 24), (4096, (38, 30, 38), 30), (8192, (58, 40, 58), 40)]
ENGINES = [
    engine_for(Parameters(ring_degree=degree, modulus_bits=bits, scale_bits=scale)) for degree, bits, scale in RUNGS
]


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: str(engine.parameters.ring_degree))
@settings(max_examples=counts(short=10, long=200), deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_stored_residues_come_back_and_decrypt_to_what_was_encrypted(engine, seed):
    rng = np.random.default_rng(seed)
    values = rng.uniform(-8, 8, size=engine.parameters.slots)
    secret, scale = engine.generate_secret_key(), 2.0**engine.parameters.scale_bits
    fresh = engine.encrypt(secret, engine.encode(values, scale=scale))
    stored = engine.store_ciphertexts([fresh, fresh])
    again, loaded = engine.load_ciphertexts(stored, count=2, level=0, scale=scale)
    assert engine.store_ciphertexts([again, loaded]) == stored
    assert len(stored) == 2 * engine.ciphertext_bytes(level=0)
    assert np.max(np.abs(engine.decrypt(secret, loaded) - values)) < 1e-4


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: str(engine.parameters.ring_degree))
def test_the_header_put_before_residues_is_the_one_the_library_writes(engine):
    secret, scale = engine.generate_secret_key(), 2.0**20
    fresh = engine.encrypt(secret, engine.encode_constant(1.5, scale=scale))
    written = fresh.handle.to_string()
    assert engine._prefix(0, scale, len(written) - _PREFIX_BYTES) == written[:_PREFIX_BYTES]
    if engine.parameters.depth:
        lower = engine.rescale(engine.sum_of_products([fresh], [engine.encode_constant(2.0, scale=scale)]))
        written = lower.handle.to_string()
        scale = scale * scale / engine.primes[-1]
        assert engine._prefix(1, scale, len(written) - _PREFIX_BYTES) == written[:_PREFIX_BYTES]


def test_the_engine_meets_its_interface():
    assert isinstance(ENGINES[0], Engine)


@pytest.mark.parametrize("cut", [b"", bytes(8), bytes(2 * 2048 * 53 // 8 - 1), bytes(2 * 2048 * 53 // 8 + 8)])
def test_residues_of_another_length_are_refused(cut):
    with pytest.raises(IntegrityError, match="ciphertext: expected 27136 bytes"):
        ENGINES[0].load_ciphertexts(cut, count=1, level=0, scale=2.0**20)


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("steps", [1, 64, 2047])
def test_slots_rotate_to_the_left(level, steps):
    engine, scale = engine_for(Parameters(ring_degree=4096, modulus_bits=(31, 25, 50), scale_bits=28)), 2.0**28
    secret = engine.generate_secret_key()
    keys = engine.generate_galois_keys(secret, [steps])
    loaded = engine.load_galois_keys(engine.store_galois_keys(keys), steps=[steps])
    values = np.random.default_rng(0).uniform(-1, 1, size=2048)
    ciphertext = engine.lower(engine.encrypt(secret, engine.encode(values, scale=scale)), level)
    for held in (keys, loaded):
        turned = engine.decrypt(secret, engine.rotate(ciphertext, steps, held))
        assert np.max(np.abs(turned - np.roll(values, -steps))) < 1e-4


def test_a_rotation_without_its_key_and_keys_for_other_steps_are_refused():
    engine = ENGINES[1]
    secret = engine.generate_secret_key()
    keys = engine.generate_galois_keys(secret, [1, 2])
    ciphertext = engine.encrypt(secret, engine.encode_constant(1.0, scale=2.0**20))
    with pytest.raises(IntegrityError, match="rotation: refused by the library"):
        engine.rotate(ciphertext, 3, keys)
    stored = engine.store_galois_keys(keys)
    for steps in ([1], [1, 3], [1, 2, 3]):
        with pytest.raises(IntegrityError, match="Galois keys: expected those of the circuit's rotations"):
            engine.load_galois_keys(stored, steps=steps)
    with pytest.raises(IntegrityError, match="Galois keys: not written by this version"):
        engine.load_galois_keys(stored[:-8], steps=[1, 2])


@settings(max_examples=counts(short=5, long=100), deadline=None)
@given(seed=st.integers(0, 2**32 - 1), components=st.sampled_from([2, 3]))
def test_a_matrix_of_numbers_does_to_a_stack_what_it_does_to_vectors(seed, components):
    engine, scale = ENGINES[2], 2.0**30
    rng = np.random.default_rng(seed)
    secret = engine.generate_secret_key()
    vectors, weights = rng.uniform(-1, 1, size=(5, 4096)), rng.normal(size=(3, 5))
    stack = [engine.encrypt(secret, engine.encode(vector, scale=scale)) for vector in vectors]
    if components == 3:
        vectors, stack = vectors**2, [engine.square(ciphertext) for ciphertext in stack]
    matrix = engine.encode_matrix(weights, scale=2.0**25, level=0)
    found = np.stack([engine.decrypt(secret, product) for product in engine.multiply_matrix(matrix, stack)])
    assert np.max(np.abs(found - weights @ vectors)) < 1e-4


def test_keys_of_other_parameters_or_with_a_foreign_header_are_refused():
    small, middle = ENGINES[:2]
    secret = small.generate_secret_key()
    stored = small.store_secret_key(secret)
    with pytest.raises(IntegrityError, match="secret key: expected 98304 bytes, got 16384"):
        middle.load_secret_key(stored)
    with pytest.raises(IntegrityError, match="secret key: refused by the library"):
        small.load_secret_key(b"\xff" * 8 + stored[8:])
    relinearization = middle.store_relinearization_key(
        middle.generate_relinearization_key(middle.generate_secret_key())
    )
    with pytest.raises(IntegrityError, match="relinearization key: not written by this version"):
        middle.load_relinearization_key(relinearization[:-1])
    with pytest.raises(IntegrityError, match="relinearization key: refused by the library"):
        middle.load_relinearization_key(relinearization[:16] + bytes(len(relinearization) - 16))


def test_operands_whose_sum_would_be_in_clear_are_left_out_or_refused():
    engine, scale = ENGINES[0], 2.0**20
    secret = engine.generate_secret_key()
    ciphertext = engine.encrypt(secret, engine.encode_constant(1.0, scale=scale))
    zero = engine.encode_constant(0.0, scale=scale)
    assert engine.sum_of_products([ciphertext], [zero]) is None
    one, minus = engine.encode_constant(1.0, scale=scale), engine.encode_constant(-1.0, scale=scale)
    with pytest.raises(IntegrityError, match="sum of products: refused by the library"):
        engine.sum_of_products([ciphertext, ciphertext], [one, minus])
