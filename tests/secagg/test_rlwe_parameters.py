import math

import pytest

from mibao.errors import InputError
from mibao.secagg.rlwe_parameters import (
    ParameterSet,
    check_room,
    delta_bits,
    message_bits,
    parameter_set,
    smallest_set,
)


@pytest.mark.parametrize("parameters", list(ParameterSet))
def test_the_table_finds_its_own_sets(parameters: ParameterSet) -> None:
    assert parameter_set(ring_degree=2048, modulus_bits=parameters.modulus_bits) is parameters


@pytest.mark.parametrize(("degree", "bits"), [(1024, 32), (1024, 27), (2048, 64), (2048, 40), (4096, 48)])
def test_a_ring_or_modulus_outside_the_table_is_refused(degree: int, bits: int) -> None:
    with pytest.raises(InputError, match=rf"got degree {degree} and {bits} bits"):
        parameter_set(ring_degree=degree, modulus_bits=bits)


def test_sixteen_bits_fit_the_short_modulus_for_100_clients_and_not_for_200() -> None:
    assert smallest_set(clients=100, length=10**6, input_bits=16) is ParameterSet.RLWE_2048_32
    assert smallest_set(clients=200, length=10**6, input_bits=16) is ParameterSet.RLWE_2048_48
    assert smallest_set(clients=10_000, length=10**6, input_bits=16) is ParameterSet.RLWE_2048_48
    with pytest.raises(InputError, match="200 inputs of 16 bits need 24 bits for their sum, there is room for 22"):
        check_room(ParameterSet.RLWE_2048_32, clients=200, length=10**6, input_bits=16)


@pytest.mark.parametrize("parameters", list(ParameterSet))
@pytest.mark.parametrize("clients", [2, 5])
def test_delta_keeps_the_exact_chance_of_a_wrong_rounding_under_its_bound(
    parameters: ParameterSet, clients: int
) -> None:
    coins, length = clients * parameters.coins, 1 << 12
    half = 1 << (delta_bits(parameters, clients=clients, length=length) - 1)
    beyond = sum(math.comb(coins, heads) for heads in range(coins + 1) if not -half <= heads - coins // 2 < half)
    assert length * beyond * 2**40 <= 2**coins
    assert message_bits(parameters, clients=clients, length=length) == parameters.modulus_bits - half.bit_length()
