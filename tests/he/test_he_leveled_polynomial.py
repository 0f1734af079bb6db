"""Polynomials on ciphertexts: their values, at the least depth."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial import chebyshev

from counts import counts
from mibao.errors import InputError
from mibao.he.engine_seal import SealEngine
from mibao.he.leveled import Arithmetic, Leveled
from mibao.he.leveled_polynomial import chebyshev_value, depth_of
from mibao.he.parameters import Parameters

ENGINE = SealEngine(Parameters(ring_degree=16384, modulus_bits=(50, 40, 40, 40, 40, 40, 40, 50), scale_bits=40))
SECRET = ENGINE.generate_secret_key()
ARITHMETIC = Arithmetic(ENGINE, relinearization=ENGINE.generate_relinearization_key(SECRET))
POINTS = np.cos(np.linspace(0, math.pi, 8192))
FRESH = Leveled(ciphertext=ENGINE.encrypt(SECRET, ENGINE.encode(POINTS, scale=ARITHMETIC.scales[0])), level=0)


@settings(max_examples=counts(short=8, long=300), deadline=None)
@given(degree=st.integers(1, 63), odd=st.booleans(), sparse=st.booleans(), seed=st.integers(0, 2**32 - 1))
def test_the_value_is_right_and_the_depth_the_least(degree, odd, sparse, seed):
    rng = np.random.default_rng(seed)
    coefficients = rng.uniform(-1, 1, degree + 1)
    if odd:
        coefficients[0::2] = 0.0
    if sparse:
        coefficients[rng.random(degree + 1) < 0.5] = 0.0
    coefficients[degree if not odd or degree % 2 else degree - 1] = 1.0
    value = chebyshev_value(ARITHMETIC, FRESH, coefficients)
    assert value.level == depth_of(coefficients) == math.ceil(math.log2(np.flatnonzero(coefficients)[-1] + 1))
    right = chebyshev.chebval(POINTS, coefficients)
    assert np.max(np.abs(ENGINE.decrypt(SECRET, value.ciphertext) - right)) < 1e-4


def test_odd_polynomials_take_few_products(monkeypatch):
    counted = []
    for name in ("product", "square"):
        original = getattr(Arithmetic, name)
        monkeypatch.setattr(
            Arithmetic, name, lambda self, *given, original=original: counted.append(1) or original(self, *given)
        )
    found = {}
    for degree in (3, 7, 15, 31):
        counted.clear()
        coefficients = np.where(np.arange(degree + 1) % 2, 1.0 / np.arange(2, degree + 3), 0.0)
        chebyshev_value(ARITHMETIC, FRESH, coefficients)
        found[degree] = len(counted)
    assert found == {3: 2, 7: 5, 15: 8, 31: 12}


def test_a_constant_is_refused():
    with pytest.raises(InputError, match="polynomial: expected a degree of at least 1"):
        chebyshev_value(ARITHMETIC, FRESH, np.array([1.0, 0.0]))
