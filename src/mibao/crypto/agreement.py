"""A key that two parties share after each saw the other's public key: X25519."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from mibao.crypto import kdf
from mibao.errors import InputError

SECRET_BYTES = 32
PUBLIC_BYTES = 32


def public_key(secret: bytes) -> bytes:
    """The 32-byte public key of a 32-byte secret. Raises ``InputError`` for another length."""
    return _private(secret).public_key().public_bytes_raw()


def shared_secret(secret: bytes, peer_public: bytes, *, purpose: str, context: bytes) -> bytes:
    """32 bytes that both parties derive, bound to the purpose, the context and both public keys.

    Raises:
        InputError: a key is not 32 bytes, or the peer's is a point of low order.

    Source: RFC 7748, section 6.1; both public keys enter the derivation in sorted order.
    """
    private = _private(secret)
    if len(peer_public) != PUBLIC_BYTES:
        raise InputError(f"X25519: expected a public key of {PUBLIC_BYTES} bytes, got {len(peer_public)}")
    try:
        exchanged = private.exchange(X25519PublicKey.from_public_bytes(peer_public))
    except ValueError as error:
        raise InputError("X25519: the peer's public key is a point of low order") from error
    pair = sorted((private.public_key().public_bytes_raw(), peer_public))
    return kdf.derive(exchanged, purpose=purpose, context=kdf.domain_tag("agreement", *pair, context))


def _private(secret: bytes) -> X25519PrivateKey:
    if len(secret) != SECRET_BYTES:
        raise InputError(f"X25519: expected a secret of {SECRET_BYTES} bytes, got {len(secret)}")
    return X25519PrivateKey.from_private_bytes(secret)
