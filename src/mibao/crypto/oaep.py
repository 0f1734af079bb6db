"""RSA-OAEP with SHA-256 to the public key of a token that holds the private one; mibao itself never holds one.

Source: RFC 8017, section 7.1, with MGF1 over SHA-256 and an empty label.
"""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers

from mibao.errors import InputError

MODULUS_BITS = range(3072, 8193)
_PUBLIC_EXPONENTS = range(65537, 1 << 32, 2)


def encrypt_oaep(plaintext: bytes, *, modulus: int, public_exponent: int) -> bytes:
    """``plaintext`` for the holder of the private key. Draws its own randomness.

    Raises:
        InputError: the modulus is not 3072 to 8192 bits long, or the exponent unusual.
    """
    if modulus.bit_length() not in MODULUS_BITS or public_exponent not in _PUBLIC_EXPONENTS:
        raise InputError(
            f"RSA: expected a key of {MODULUS_BITS[0]} to {MODULUS_BITS[-1]} bits and an odd exponent from 65537 on, "
            f"got {modulus.bit_length()} bits"
        )
    scheme = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)
    try:
        return RSAPublicNumbers(public_exponent, modulus).public_key().encrypt(plaintext, scheme)
    except ValueError as error:
        raise InputError("RSA: the public key is not a usable one") from error
