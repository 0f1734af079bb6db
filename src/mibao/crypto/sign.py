"""Signatures: Ed25519, or Ed25519 and ML-DSA-65 together.

What gets signed is ``domain_tag("sign/" + purpose, suite, message)``: a signature made for one purpose or suite
never verifies for another. Of a hybrid both halves cover that same message and both must verify; because the
suite is inside it, a half cut out of a hybrid signature is no signature of anything.

Sources: RFC 8032 (Ed25519), FIPS 204 (ML-DSA-65).
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey

from mibao.crypto.kdf import domain_tag
from mibao.crypto.keys import SignerPrivateKey, SignerPublicKey, SignerSuite, reveal_secret_bytes
from mibao.errors import InputError, IntegrityError

ED25519_BYTES = 64
MLDSA65_BYTES = 3309
SIGNATURE_BYTES = {
    SignerSuite.ED25519: ED25519_BYTES,
    SignerSuite.ED25519_MLDSA65: ED25519_BYTES + MLDSA65_BYTES,
}


def sign(key: SignerPrivateKey, message: bytes, *, purpose: str) -> bytes:
    """The signature of ``message`` for one purpose: 64 bytes, or 3373 for the hybrid.

    Raises:
        InputError: the purpose is not a valid one; see :func:`mibao.crypto.kdf.domain_tag`.
    """
    framed = _framed(key.suite, message, purpose)
    seed = reveal_secret_bytes(key)
    signature = Ed25519PrivateKey.from_private_bytes(seed[:32]).sign(framed)
    if key.suite is SignerSuite.ED25519_MLDSA65:
        signature += MLDSA65PrivateKey.from_seed_bytes(seed[32:]).sign(framed)
    return signature


def verify(key: SignerPublicKey, message: bytes, signature: bytes, *, purpose: str) -> None:
    """Return if ``signature`` is this signer's for this message and purpose.

    Raises:
        IntegrityError: it is not; for a hybrid key, if either half is not.
    """
    if len(signature) != SIGNATURE_BYTES[key.suite]:
        raise IntegrityError(
            f"signature: expected {SIGNATURE_BYTES[key.suite]} bytes for {key.suite.value}, got {len(signature)}"
        )
    framed = _framed(key.suite, message, purpose)
    try:
        Ed25519PublicKey.from_public_bytes(key.raw[:32]).verify(signature[:ED25519_BYTES], framed)
        if key.suite is SignerSuite.ED25519_MLDSA65:
            MLDSA65PublicKey.from_public_bytes(key.raw[32:]).verify(signature[ED25519_BYTES:], framed)
    except (InvalidSignature, ValueError) as error:
        raise IntegrityError("signature: not this signer's for these bytes") from error


def sign_bare(key: SignerPrivateKey, message: bytes) -> bytes:
    """An Ed25519 signature of exactly ``message``, for formats that fix the signed bytes (C2SP signed notes).

    Raises:
        InputError: the key is a hybrid, whose halves never sign alone.
    """
    _check_bare(key.suite)
    return Ed25519PrivateKey.from_private_bytes(reveal_secret_bytes(key)).sign(message)


def verify_bare(key: SignerPublicKey, message: bytes, signature: bytes) -> None:
    """Return if ``signature`` is this Ed25519 signer's of exactly ``message``.

    Raises:
        InputError: the key is a hybrid.
        IntegrityError: the signature is not this signer's for these bytes.
    """
    _check_bare(key.suite)
    try:
        Ed25519PublicKey.from_public_bytes(key.raw).verify(signature, message)
    except (InvalidSignature, ValueError) as error:
        raise IntegrityError("signature: not this signer's for these bytes") from error


def _framed(suite: SignerSuite, message: bytes, purpose: str) -> bytes:
    return domain_tag(f"sign/{purpose}", suite.value.encode(), message)


def _check_bare(suite: SignerSuite) -> None:
    if suite is not SignerSuite.ED25519:
        raise InputError(f"expected an ed25519 signer, got {suite.value}: half of a hybrid key never signs alone")
