"""Pseudo-random streams from short seeds: AES-256 in counter mode, counter from zero.

A seed is used for one stream only, so the fixed counter start repeats nothing.

Source: NIST SP 800-38A, section 6.5; AES-CTR as the PRG of Bonawitz et al., CCS 2017, section 3.
"""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from jaxtyping import UInt64
from numpy import ndarray

from mibao.errors import InputError

SEED_BYTES = 32


def keystream(seed: bytes, length: int) -> bytes:
    """``length`` pseudo-random bytes; a longer stream begins with every shorter one.

    Raises:
        InputError: the seed is not 32 bytes, or the length is negative.
    """
    if len(seed) != SEED_BYTES:
        raise InputError(f"pseudo-random stream: expected a seed of {SEED_BYTES} bytes, got {len(seed)}")
    if length < 0:
        raise InputError(f"pseudo-random stream: expected a length of at least 0, got {length}")
    return Cipher(algorithms.AES256(seed), modes.CTR(bytes(16))).encryptor().update(bytes(length))


def ring_elements(seed: bytes, count: int, *, modulus_bits: int) -> UInt64[ndarray, " count"]:
    """``count`` numbers uniform in ``[0, 2**modulus_bits)``, read little endian from the stream.

    Raises:
        InputError: the modulus is neither 32 nor 64 bits, or as :func:`keystream`.
    """
    if modulus_bits not in (32, 64):
        raise InputError(f"pseudo-random stream: expected a modulus of 32 or 64 bits, got {modulus_bits}")
    stream = keystream(seed, count * modulus_bits // 8)
    return np.frombuffer(stream, dtype=f"<u{modulus_bits // 8}").astype(np.uint64)
