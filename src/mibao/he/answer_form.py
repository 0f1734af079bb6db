"""Answers on the wire in fewer bits: the first component by its coefficients, without the lowest of them.

What is added to a ciphertext's first component is added to the plaintext, so the lowest bits of its coefficients say
nothing beside the circuit's own error. The second component is multiplied by the secret and stays whole.
"""

from __future__ import annotations

import math

import numpy as np

from mibao.he import residue_packing
from mibao.he.ntt import inverse_ntt, ntt

LEAST_DEGREE = 8192  # in smaller rings an answer is small, and two transforms would cost more than they spare
MAX_DROPPED_BITS = 24
_LEAST_WIDTH_BITS = 16
_SHARE = 32.0  # of the predicted error that six standard deviations of the rounding may take


def dropped_bits(*, predicted_error: float, answer_scale: float, degree: int, prime_bits: int) -> int:
    """How many bits of each coefficient may go: their rounding adds at most a thirty-second of the predicted error.

    A coefficient that is off by up to ``2**t / 2`` moves a slot with a standard deviation of ``2**t * sqrt(N / 12)``.
    """
    room = predicted_error * answer_scale / (_SHARE * 6.0 * math.sqrt(degree / 12))
    if degree < LEAST_DEGREE or not 2.0 <= room < math.inf:
        return 0
    return min(math.frexp(room)[1] - 1, MAX_DROPPED_BITS, prime_bits - _LEAST_WIDTH_BITS)


def shortened(ciphertexts: bytes, *, prime: int, degree: int, dropped: int) -> bytes:
    """Ciphertexts of two components modulo ``prime``, as :func:`lengthened` takes them.

    Raises:
        IntegrityError: another length, or a residue that is not under the prime.
    """
    each = residue_packing.packed_bytes([prime], components=1, degree=degree)
    count = len(ciphertexts) // (2 * each)
    residues = residue_packing.unpack(ciphertexts, primes=[prime], components=2 * count, degree=degree)
    parts = []
    for first, second in residues.reshape(count, 2, degree):
        coefficients = inverse_ntt(first, prime=prime) % prime
        kept = np.minimum((coefficients + (1 << (dropped - 1))) >> dropped, _limit(prime, dropped) - 1)
        parts.append(residue_packing.pack(kept.astype(np.uint64)[None, None], primes=[_limit(prime, dropped)]))
        parts.append(residue_packing.pack(second[None, None], primes=[prime]))
    return b"".join(parts)


def lengthened(answer: bytes | memoryview, *, prime: int, degree: int, dropped: int) -> bytes:
    """The reverse of :func:`shortened`, but for the bits that went.

    Raises:
        IntegrityError: another length, or a number that is none of a coefficient or not under the prime.
    """
    short = residue_packing.packed_bytes([_limit(prime, dropped)], components=1, degree=degree)
    each = short + residue_packing.packed_bytes([prime], components=1, degree=degree)
    parts = []
    for start in range(0, len(answer), each):
        kept = residue_packing.unpack(
            answer[start : start + short], primes=[_limit(prime, dropped)], components=1, degree=degree
        )
        residues = ntt((kept[0, 0] << np.uint64(dropped)).astype(np.int64), prime=prime)
        parts += [
            residue_packing.pack(residues[None, None], primes=[prime]),
            bytes(answer[start + short : start + each]),
        ]
    return b"".join(parts)


def _limit(prime: int, dropped: int) -> int:
    """Above what is left of a coefficient: the one that would round up to the prime itself is rounded down."""
    return (prime - 1) >> dropped
