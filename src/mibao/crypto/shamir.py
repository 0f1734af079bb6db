"""Threshold sharing of 32-byte secrets over the integers modulo the prime ``2**256 + 297``.

Any ``threshold`` shares give the secret, fewer say nothing about it.

Source: Shamir, "How to share a secret", CACM 22(11), 1979.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from mibao.errors import InputError, IntegrityError

PRIME = (1 << 256) + 297
SECRET_BYTES = 32
VALUE_BYTES = 33
MAX_INDEX = (1 << 16) - 1
# 48 bytes reduced modulo a 257-bit prime: within 2**-127 of uniform.
_COEFFICIENT_BYTES = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """The polynomial's value (33 bytes, big endian) at ``index``; never shown when printed."""

    index: int
    value: bytes = field(repr=False)


def randomness_bytes(threshold: int) -> int:
    """How many random bytes :func:`split` consumes for this threshold."""
    return (threshold - 1) * _COEFFICIENT_BYTES


def split(secret: bytes, *, threshold: int, indices: Sequence[int], randomness: bytes) -> list[Share]:
    """One share for each index; ``threshold`` of them recover ``secret``.

    Raises:
        InputError: the secret is not 32 bytes, an index is not 1 to 65535 or stands twice, the threshold is not
            between 1 and the number of indices, or the randomness is not ``randomness_bytes(threshold)`` long.
    """
    if len(secret) != SECRET_BYTES:
        raise InputError(f"secret sharing: expected a secret of {SECRET_BYTES} bytes, got {len(secret)}")
    _check_indices(indices)
    if not 1 <= threshold <= len(indices):
        raise InputError(f"secret sharing: expected a threshold of 1 to {len(indices)}, got {threshold}")
    if len(randomness) != randomness_bytes(threshold):
        raise InputError(f"secret sharing: expected {randomness_bytes(threshold)} random bytes, got {len(randomness)}")
    coefficients = [int.from_bytes(secret, "big")]
    for start in range(0, len(randomness), _COEFFICIENT_BYTES):
        coefficients.append(int.from_bytes(randomness[start : start + _COEFFICIENT_BYTES], "big") % PRIME)
    return [Share(index=i, value=_evaluate(coefficients, i).to_bytes(VALUE_BYTES, "big")) for i in indices]


def combine(shares: Sequence[Share], *, threshold: int) -> bytes:
    """The secret, from ``threshold`` or more shares; surplus ones must agree with the rest.

    Raises:
        InputError: fewer shares than the threshold, an index twice or out of range, or a value that is not a
            33-byte number below the prime.
        IntegrityError: the shares do not lie on one polynomial, or it does not hide a 32-byte secret.
    """
    _check_indices([share.index for share in shares])
    if len(shares) < threshold or threshold < 1:
        raise InputError(f"secret sharing: expected at least {max(threshold, 1)} shares, got {len(shares)}")
    values = []
    for share in shares:
        value = int.from_bytes(share.value, "big")
        if len(share.value) != VALUE_BYTES or value >= PRIME:
            raise InputError(f"secret sharing: share {share.index} is not a number below the prime")
        values.append(value)
    used = tuple(share.index for share in shares[:threshold])
    for share, value in zip(shares[threshold:], values[threshold:], strict=True):
        if _interpolate(used, values, share.index) != value:
            raise IntegrityError("secret sharing: the shares do not lie on one polynomial")
    secret = _interpolate(used, values, 0)
    if secret >> (8 * SECRET_BYTES):
        raise IntegrityError("secret sharing: the shares do not hide a 32-byte secret")
    return secret.to_bytes(SECRET_BYTES, "big")


def _check_indices(indices: Sequence[int]) -> None:
    if len(set(indices)) != len(indices):
        raise InputError("secret sharing: expected every index once")
    for index in indices:
        if not 1 <= index <= MAX_INDEX:
            raise InputError(f"secret sharing: expected an index of 1 to {MAX_INDEX}, got {index}")


def _evaluate(coefficients: Sequence[int], at: int) -> int:
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * at + coefficient) % PRIME
    return value


def _interpolate(indices: tuple[int, ...], values: Sequence[int], at: int) -> int:
    weights = _lagrange_weights(indices, at)
    return sum(weight * value for weight, value in zip(weights, values[: len(indices)], strict=True)) % PRIME


@lru_cache(maxsize=256)
def _lagrange_weights(indices: tuple[int, ...], at: int) -> tuple[int, ...]:
    weights = []
    for i in indices:
        over = under = 1
        for j in indices:
            if j != i:
                over = over * (at - j) % PRIME
                under = under * (i - j) % PRIME
        weights.append(over * pow(under, -1, PRIME) % PRIME)
    return tuple(weights)
