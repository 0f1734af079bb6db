"""The two parameter sets of the one-shot scheme, and how far a set stretches. There is no third.

Source: ``docs/spec/secagg.md``, section 8.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from mibao.errors import InputError

RING_DEGREE = 2048
ROWS_PER_SECRET = 512
FAILURE_BITS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class _Numbers:
    name: str
    modulus_bits: int
    coins: int


class ParameterSet(Enum):
    """Ring degree 2048 with one of two moduli; secrets and errors are centred binomials of this many coins."""

    RLWE_2048_32 = _Numbers(name="rlwe-2048-32", modulus_bits=32, coins=30)
    RLWE_2048_48 = _Numbers(name="rlwe-2048-48", modulus_bits=48, coins=64)

    @property
    def id(self) -> str:
        """The name of the set on the wire."""
        return self.value.name

    @property
    def modulus_bits(self) -> int:
        """Sums are modulo ``2**modulus_bits`` before rounding."""
        return self.value.modulus_bits

    @property
    def coins(self) -> int:
        """Fair coins behind one coefficient of a secret or an error: their sum less the half of them."""
        return self.value.coins

    @property
    def variance(self) -> float:
        """Of one coefficient."""
        return self.value.coins / 4

    @property
    def element_bytes(self) -> int:
        """Bytes of one masked number on the wire."""
        return self.value.modulus_bits // 8


def parameter_set(*, ring_degree: int, modulus_bits: int) -> ParameterSet:
    """The set with this ring and modulus.

    Raises:
        InputError: it is not in the table; 1024 in particular is too small a degree.
    """
    for candidate in ParameterSet:
        if (ring_degree, modulus_bits) == (RING_DEGREE, candidate.modulus_bits):
            return candidate
    known = ", ".join(one.id for one in ParameterSet)
    raise InputError(f"parameter set: expected one of {known}, got degree {ring_degree} and {modulus_bits} bits")


def delta_bits(parameters: ParameterSet, *, clients: int, length: int) -> int:
    """``log2`` of the factor in front of a message, so that a sum rounds wrongly with probability at most ``2**-40``.

    The error of a sum of ``n`` clients is a centred sum of ``n * coins`` fair coins; by Hoeffding's bound it leaves
    ``±Delta / 2`` with probability at most ``2 exp(-(Delta / 2)**2 / (2 n variance))`` in one coordinate.
    """
    exponent = math.log(2.0) * (FAILURE_BITS + 1) + math.log(length)
    half_delta = math.sqrt(2.0 * clients * parameters.variance * exponent)
    return math.ceil(math.log2(2.0 * half_delta))


def message_bits(parameters: ParameterSet, *, clients: int, length: int) -> int:
    """Sums of ``clients`` vectors of this length come out modulo ``2**message_bits``; may be 0 or less."""
    return parameters.modulus_bits - delta_bits(parameters, clients=clients, length=length)


def check_room(parameters: ParameterSet, *, clients: int, length: int, input_bits: int) -> int:
    """The message bits, once it is sure that no sum of inputs of ``input_bits`` overflows them.

    Raises:
        InputError: ``log2 q < b + ceil(log2 n) + log2 Delta``.
    """
    room = message_bits(parameters, clients=clients, length=length)
    needed = input_bits + (clients - 1).bit_length()
    if input_bits < 1 or needed > room:
        raise InputError(
            f"{parameters.id}: {clients} inputs of {input_bits} bits need {needed} bits for their sum, "
            f"there is room for {max(room, 0)} (length {length})"
        )
    return room


def smallest_set(*, clients: int, length: int, input_bits: int) -> ParameterSet:
    """The set with the shortest messages that has room. Raises ``InputError`` when none has."""
    for candidate in ParameterSet:
        if message_bits(candidate, clients=clients, length=length) >= input_bits + (clients - 1).bit_length():
            return candidate
    check_room(ParameterSet.RLWE_2048_48, clients=clients, length=length, input_bits=input_bits)
    raise AssertionError("unreachable")  # pragma: no cover
