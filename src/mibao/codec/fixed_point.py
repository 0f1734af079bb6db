"""Real numbers as elements of the ring of integers modulo ``2**modulus_bits``.

A value ``v`` becomes ``round(v * 2**scale_bits)``, negative ones in two's complement. Sums are exact as long as
no true sum leaves ``[-2**(modulus_bits - 1), 2**(modulus_bits - 1))`` in units of ``2**-scale_bits``.
Error bound, stated here once: ``2**-(scale_bits + 1)`` a value, hence ``n * 2**-(scale_bits + 1)`` a sum of ``n``.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64, UInt64
from numpy import ndarray

from mibao.errors import InputError

MODULUS_BITS = (32, 64)
MAX_SCALE_BITS = 52


def to_integers(values: Float64[ndarray, "d"], *, scale_bits: int, bound: float) -> Int64[ndarray, "d"]:
    """``values`` in units of ``2**-scale_bits``, rounded to nearest.

    Raises:
        InputError: a value is not finite or exceeds ``bound`` in magnitude, or ``bound * 2**scale_bits`` reaches
            ``2**62``.
    """
    if not 0 <= scale_bits <= MAX_SCALE_BITS or not bound * 2.0**scale_bits < 2.0**62:
        raise InputError(
            f"fixed point: expected 0..{MAX_SCALE_BITS} scale bits and bound * 2**scale_bits under 2**62, "
            f"got {scale_bits} bits and bound {bound:g}"
        )
    if not np.all(np.isfinite(values)):
        raise InputError("fixed point: expected finite values, got a NaN or an infinity")
    if np.any(np.abs(values) > bound):  # the value itself may be private
        raise InputError(f"fixed point: expected values within ±{bound:g}, got one outside")
    integers: Int64[ndarray, "d"] = np.rint(np.ldexp(values, scale_bits)).astype(np.int64)
    return integers


def from_integers(integers: Int64[ndarray, "d"], *, scale_bits: int) -> Float64[ndarray, "d"]:
    """Integers in units of ``2**-scale_bits`` as floats."""
    return np.ldexp(integers.astype(np.float64), -scale_bits)


def to_ring(integers: Int64[ndarray, "d"], *, modulus_bits: int) -> UInt64[ndarray, "d"]:
    """Signed integers as ring elements in ``[0, 2**modulus_bits)``.

    Raises:
        InputError: the modulus is not one of :data:`MODULUS_BITS`, or an integer does not fit it.
    """
    _check_modulus(modulus_bits)
    if modulus_bits < 64 and np.any(np.abs(integers) >= 1 << (modulus_bits - 1)):
        raise InputError(f"fixed point: an integer does not fit {modulus_bits} bits")
    return integers.astype(np.uint64) & np.uint64((1 << modulus_bits) - 1)


def from_ring(elements: UInt64[ndarray, "d"], *, modulus_bits: int) -> Int64[ndarray, "d"]:
    """Ring elements as the signed integers nearest to zero. Raises ``InputError`` for another modulus."""
    _check_modulus(modulus_bits)
    spare = np.uint64(64 - modulus_bits)
    return (elements << spare).astype(np.int64) >> np.int64(spare)


def _check_modulus(modulus_bits: int) -> None:
    if modulus_bits not in MODULUS_BITS:
        raise InputError(f"fixed point: expected a modulus of {MODULUS_BITS} bits, got {modulus_bits}")
