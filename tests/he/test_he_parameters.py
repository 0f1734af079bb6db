import pytest

from mibao.errors import InputError
from mibao.he.engine_seal import engine_for
from mibao.he.parameters import MAX_MODULUS_BITS, Parameters


def test_the_table_is_the_published_one():
    assert dict(MAX_MODULUS_BITS) == {2048: 53, 4096: 106, 8192: 214, 16384: 430, 32768: 868}


@pytest.mark.parametrize("ring_degree", list(MAX_MODULUS_BITS))
def test_one_bit_over_the_table_is_refused_and_the_table_itself_is_not(ring_degree):
    allowed = MAX_MODULUS_BITS[ring_degree]
    primes = _primes_of(allowed)
    Parameters(ring_degree=ring_degree, modulus_bits=primes, scale_bits=20)
    with pytest.raises(InputError, match=f"a modulus of {allowed + 1} bits is below 128-bit security"):
        Parameters(ring_degree=ring_degree, modulus_bits=_primes_of(allowed + 1), scale_bits=20)


def test_the_special_prime_counts():
    with pytest.raises(InputError, match="below 128-bit security at ring degree 4096, which allows 106"):
        Parameters(ring_degree=4096, modulus_bits=(40, 30, 37), scale_bits=20)


@pytest.mark.parametrize(
    ("ring_degree", "modulus_bits", "scale_bits", "message"),
    [
        (1024, (26,), 10, "expected a ring degree of"),
        (2047, (53,), 20, "expected a ring degree of"),
        (2048, (), 20, "expected primes of 20 to 60 bits"),
        (4096, (61, 30), 20, "expected primes of 20 to 60 bits"),
        (4096, (19, 30), 10, "expected primes of 20 to 60 bits"),
        (2048, (53,), 53, "expected a scale of 1 to 52 bits"),
        (4096, (38, 30, 38), 68, "expected a scale of 1 to 67 bits"),
        (4096, (38, 30, 38), 0, "expected a scale of 1 to 67 bits"),
    ],
)
def test_parameters_outside_their_ranges_are_refused(ring_degree, modulus_bits, scale_bits, message):
    with pytest.raises(InputError, match=message):
        Parameters(ring_degree=ring_degree, modulus_bits=modulus_bits, scale_bits=scale_bits)


CHOSEN = [
    (2048, (53,)),
    (4096, (38, 30, 38)),
    (8192, (44, 59, 25, 60)),
    (8192, (40, 40, 40, 40, 50)),
    (16384, (60,) * 7),
]


@pytest.mark.parametrize(("ring_degree", "modulus_bits"), CHOSEN)
def test_the_primes_are_those_that_the_library_takes_at_its_own_128_bits(ring_degree, modulus_bits):
    parameters = Parameters(ring_degree=ring_degree, modulus_bits=modulus_bits, scale_bits=20)
    engine = engine_for(parameters)
    assert engine.primes == parameters.primes()
    assert all(prime % (2 * ring_degree) == 1 for prime in engine.primes)
    assert engine._context.parameters_set()
    total = engine._context.key_context_data().total_coeff_modulus_bit_count()
    assert total <= sum(modulus_bits) <= MAX_MODULUS_BITS[ring_degree]


def _primes_of(total):
    count = -(-total // 60)
    return tuple(total // count + (1 if index < total % count else 0) for index in range(count))
