"""Linear layers as matrix products over residues: exact for every width, and what SEAL decrypts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counts import counts
from mibao.errors import InputError
from mibao.he.engine_seal import engine_for
from mibao.he.parameters import Parameters
from mibao.he.residue_packing import pack, unpack
from mibao.he.residue_product import ResidueMatrix, _weight_limbs, choose_split, integer_weights

PRIMES = [2, 3, 12289, 1073692673, (1 << 38) - 45, 1125899904679937, (1 << 56) - 5, (1 << 60) - 93]


def exact(weights, residues, prime):
    """The product in Python's integers."""
    return (weights.astype(object) @ residues.astype(object) % prime).astype(np.uint64)


@settings(max_examples=counts(short=60, long=2000), deadline=None)
@given(
    shape=st.tuples(st.integers(1, 6), st.integers(1, 40), st.integers(1, 2), st.integers(1, 300)),
    weight_bits=st.integers(0, 59),
    primes=st.lists(st.sampled_from(PRIMES), min_size=1, max_size=3),
    extreme=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_product_is_the_one_of_whole_numbers(shape, weight_bits, primes, extreme, seed):
    outputs, features, components, degree = shape
    rng = np.random.default_rng(seed)
    edge = (1 << weight_bits) - 1 + (weight_bits == 0)
    weights = (
        rng.choice([-edge, edge], (outputs, features))
        if extreme
        else rng.integers(-edge, edge + 1, (outputs, features))
    )
    residues = np.stack(
        [
            np.full((features, components, degree), prime - 1, dtype=np.uint64)
            if extreme
            else rng.integers(0, prime, (features, components, degree), dtype=np.uint64)
            for prime in primes
        ],
        axis=2,
    )
    product = ResidueMatrix(weights, primes=primes).product(residues)
    for index, prime in enumerate(primes):
        for component in range(components):
            expected = exact(weights, residues[:, component, index], prime)
            assert np.array_equal(product[:, component, index], expected)


@given(weight_bits=st.integers(0, 59), features=st.integers(1, 4096), prime=st.sampled_from(PRIMES))
def test_every_split_stays_exact(weight_bits, features, prime):
    weights = np.full((1, features), (1 << weight_bits) - (weight_bits > 0), dtype=np.int64)
    split = choose_split(weights, prime=prime)
    assert split.residue_limbs * split.residue_bits >= prime.bit_length()
    limbs = [int(limb[0, 0]) for limb in _weight_limbs(weights, split.weight_limbs, split.weight_bits)]
    assert sum(limb << (split.weight_bits * index) for index, limb in enumerate(limbs)) == weights[0, 0]
    assert all(abs(limb) * features << (split.residue_bits - 1) <= 1 << 53 for limb in limbs)
    assert split.products <= 12


def test_blocks_join_without_a_seam():
    rng = np.random.default_rng(0)
    weights, prime = rng.integers(-9, 9, (3, 600)), PRIMES[-1]
    residues = rng.integers(0, prime, (600, 1, 1, 1111), dtype=np.uint64)
    product = ResidueMatrix(weights, primes=[prime]).product(residues)
    assert np.array_equal(product[:, 0, 0], exact(weights, residues[:, 0, 0], prime))


def test_what_the_library_decrypts_is_the_layer_of_whole_numbers():
    engine = engine_for(Parameters(ring_degree=4096, modulus_bits=(38, 30, 38), scale_bits=24))
    rng = np.random.default_rng(1)
    records, weights = rng.uniform(-8, 8, (5, 2048)), rng.normal(size=(3, 5))
    secret = engine.generate_secret_key()
    stored = engine.store_ciphertexts([engine.encrypt(secret, engine.encode(row, scale=2.0**24)) for row in records])
    residues = unpack(stored, primes=engine.primes, components=10, degree=4096).reshape(5, 2, 2, 4096)
    whole = integer_weights(weights, scale_bits=20)
    product = ResidueMatrix(whole, primes=engine.primes).product(residues)
    for row, expected in zip(product, whole / 2.0**20 @ records, strict=True):
        packed = pack(row, primes=engine.primes)
        (loaded,) = engine.load_ciphertexts(packed, count=1, level=0, scale=2.0**44)
        assert np.max(np.abs(engine.decrypt(secret, loaded) - expected)) < 1e-3
    assert np.max(np.abs(whole / 2.0**20 - weights)) <= 2.0**-21


def test_thirty_bit_primes_take_one_product_of_floats_each():
    weights = np.full((64, 64), (1 << 14) - 1)
    assert ResidueMatrix(weights, primes=[PRIMES[3]] * 3).products == 3
    assert ResidueMatrix(weights, primes=[PRIMES[6]]).products == 2


@pytest.mark.parametrize("shape", [(3, 2, 1, 8), (4, 2, 2, 8), (4, 2, 3, 8)])
def test_residues_of_another_shape_are_refused(shape):
    with pytest.raises(InputError, match=r"residue product: expected residues of shape \(4, components, 1, degree\)"):
        ResidueMatrix(np.ones((2, 4), dtype=np.int64), primes=[12289]).product(np.zeros(shape, dtype=np.uint64))


@pytest.mark.parametrize("residue", [12289, (1 << 64) - 1])
def test_a_residue_that_is_not_under_its_prime_is_refused(residue):
    residues = np.zeros((4, 2, 1, 8), dtype=np.uint64)
    residues[3, 1, 0, 7] = residue
    with pytest.raises(InputError, match="residue product: a residue is not under its prime"):
        ResidueMatrix(np.ones((2, 4), dtype=np.int64), primes=[12289]).product(residues)


@pytest.mark.parametrize("primes", [[], [1], [1 << 60], [0], [-3]])
def test_primes_out_of_range_are_refused(primes):
    with pytest.raises(InputError, match="residue product: expected primes under 60 bits"):
        ResidueMatrix(np.ones((2, 4), dtype=np.int64), primes=primes)


@pytest.mark.parametrize("weight", [1 << 60, -(1 << 60), -(1 << 63)])
def test_weights_over_sixty_bits_are_refused(weight):
    with pytest.raises(InputError, match="residue product: expected weights under 60 bits"):
        ResidueMatrix(np.array([[weight]]), primes=[12289])


@pytest.mark.parametrize("weights", [np.zeros((3, 0), dtype=np.int64), np.ones((0, 3), dtype=np.int64)])
def test_a_matrix_without_outputs_or_features_is_refused(weights):
    with pytest.raises(InputError, match=r"residue product: expected outputs and features, got a matrix of shape"):
        ResidueMatrix(weights, primes=[12289])


def test_more_features_than_a_sum_can_hold_are_refused():
    with pytest.raises(InputError, match=r"residue product: 2097152 features are more than a sum in float64 can hold"):
        choose_split(np.full((1, 1 << 21), (1 << 59) - 1), prime=PRIMES[-1])


@pytest.mark.parametrize("weight", [np.nan, np.inf, 2.0**41])
def test_weights_that_no_scale_carries_are_refused(weight):
    with pytest.raises(InputError, match="residue product: expected finite weights under 60 bits"):
        integer_weights(np.array([[1.0, weight]]), scale_bits=20)
