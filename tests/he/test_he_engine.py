import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counts import counts
from mibao.errors import IntegrityError
from mibao.he.engine import Engine
from mibao.he.engine_seal import _PREFIX_BYTES, engine_for
from mibao.he.levels import LADDER
from mibao.he.parameters import Parameters

ENGINES = [
    engine_for(Parameters(ring_degree=degree, modulus_bits=bits, scale_bits=scale))
    for (degree, bits), scale in zip(LADDER, (24, 30, 40), strict=True)
]


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: str(engine.parameters.ring_degree))
@settings(max_examples=counts(short=10, long=200), deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_stored_residues_come_back_and_decrypt_to_what_was_encrypted(engine, seed):
    rng = np.random.default_rng(seed)
    values = rng.uniform(-8, 8, size=engine.parameters.slots)
    secret, scale = engine.generate_secret_key(), 2.0**engine.parameters.scale_bits
    fresh = engine.encrypt(secret, engine.encode(values, scale=scale))
    stored = engine.store_ciphertext(fresh)
    loaded = engine.load_ciphertext(stored, level=0, scale=scale)
    assert engine.store_ciphertext(loaded) == stored
    assert len(stored) == engine.ciphertext_bytes(level=0)
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
        scale = engine.product_scale(scale=scale * scale, rescalings=1)
        assert engine._prefix(1, scale, len(written) - _PREFIX_BYTES) == written[:_PREFIX_BYTES]


def test_the_engine_meets_its_interface():
    assert isinstance(ENGINES[0], Engine)


@pytest.mark.parametrize("cut", [b"", b"\x00" * 8, b"\x00" * (2 * 2048 * 8 - 1), b"\x00" * (2 * 2048 * 8 + 8)])
def test_residues_of_another_length_are_refused(cut):
    with pytest.raises(IntegrityError, match="ciphertext: expected 32768 bytes"):
        ENGINES[0].load_ciphertext(cut, level=0, scale=2.0**20)


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
