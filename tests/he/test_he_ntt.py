"""Coefficients and residues: back as they were, products become products, and SEAL keeps the same order."""

import numpy as np
import pytest
import seal
from hypothesis import given, settings
from hypothesis import strategies as st

from counts import counts
from mibao.errors import InputError
from mibao.he.ntt import embedding, inverse_ntt, modular_product, ntt

# 1 modulo 512, of 10 to 60 bits.
PRIMES = [7681, 12289, 1073692673, 1125899904679937, 1152921504606584833]


@settings(max_examples=counts(short=30, long=1000), deadline=None)
@given(st.sampled_from(PRIMES), st.sampled_from([2, 8, 64, 256]), st.integers(0, 2**32 - 1))
def test_products_of_residues_are_negacyclic_products_of_polynomials(prime, degree, seed):
    rng = np.random.default_rng(seed)
    left, right = rng.integers(-(prime // 2), prime // 2 + 1, (2, degree))
    assert np.array_equal(inverse_ntt(ntt(left, prime=prime), prime=prime), left)
    product = modular_product(
        ntt(left, prime=prime).astype(np.int64), ntt(right, prime=prime).astype(np.int64), prime=prime
    )
    full = np.convolve(left.astype(object), right.astype(object))
    folded = [int(full[i]) - (int(full[i + degree]) if i + degree < full.size else 0) for i in range(degree)]
    assert [value % prime for value in folded] == [
        int(value) % prime for value in inverse_ntt(product.astype(np.uint64), prime=prime)
    ]


@given(st.sampled_from(PRIMES), st.data())
def test_a_product_of_residues_is_the_one_of_whole_numbers(prime, data):
    left, right = (data.draw(st.sampled_from([0, 1, prime // 2, prime - 1]) | st.integers(0, prime - 1)) for _ in "lr")
    product = modular_product(np.array([left]), np.array([right]), prime=prime)
    assert int(product[0]) == left * right % prime


def test_residues_are_in_the_order_that_the_library_keeps():
    chosen = seal.EncryptionParameters(seal.scheme_type.ckks)
    chosen.set_poly_modulus_degree(1024)
    primes = seal.CoeffModulus.Create(1024, [27])
    chosen.set_coeff_modulus(primes)
    secret = seal.KeyGenerator(seal.SEALContext(chosen, True, seal.sec_level_type.tc128)).secret_key()
    residues = np.frombuffer(secret.to_string()[-8 * 1024 :], dtype="<u8")
    coefficients = inverse_ntt(residues, prime=primes[0].value())
    assert set(coefficients.tolist()) == {-1, 0, 1}  # a secret is ternary; in any other order it would not be
    assert np.array_equal(ntt(coefficients, prime=primes[0].value()), residues)


def test_the_embedding_evaluates_the_polynomial_at_odd_roots():
    coefficients = np.random.default_rng(0).normal(size=16)
    roots = np.exp(1j * np.pi * (2 * np.arange(16) + 1) / 16)
    assert np.allclose(embedding(coefficients), np.polynomial.polynomial.polyval(roots, coefficients))


@pytest.mark.parametrize(("degree", "prime"), [(3, 7681), (1, 7681), (1024, 7681), (8, (1 << 61) - 1)])
def test_a_ring_without_the_roots_is_refused(degree, prime):
    with pytest.raises(InputError, match="residues: expected a degree that is a power of two and a prime"):
        ntt(np.zeros(degree, dtype=np.int64), prime=prime)
