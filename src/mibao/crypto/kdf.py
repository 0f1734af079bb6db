"""Keys from keys: HKDF-SHA-256, with one function that separates what they are for."""

from __future__ import annotations

import re

from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mibao.errors import InputError
from mibao.types import KeyedHash

MAX_OUTPUT_BYTES = 255 * 32
_PURPOSE = re.compile(r"[a-z0-9][a-z0-9/_-]{0,63}")


def domain_tag(purpose: str, *parts: bytes) -> bytes:
    """``b"mibao/v1/" || purpose || 0x00``, then every part behind its length as 8 bytes, big endian.

    Injective: two different lists of arguments never give the same tag, so a key, hash or signature made for one
    purpose is worthless for another.

    Raises:
        InputError: the purpose is not 1 to 64 lower-case letters, digits, ``/``, ``_`` or ``-``.
    """
    if not _PURPOSE.fullmatch(purpose):
        raise InputError("domain separation: expected a purpose of 1 to 64 characters out of a-z 0-9 / _ -")
    tail = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    return b"mibao/v1/" + purpose.encode() + b"\x00" + tail


def derive(secret: bytes, *, purpose: str, context: bytes = b"", salt: bytes = b"", length: int = 32) -> bytes:
    """``length`` bytes of key for one purpose and context.

    Args:
        secret: Input key material, at least 16 bytes of it secret.
        purpose: What the key is for; see :func:`domain_tag`.
        context: Public bytes that the key is bound to.
        salt: Optional public random bytes.
        length: 1 to 8160 bytes.

    Raises:
        InputError: the secret is shorter than 16 bytes, or the length out of range.

    Source: RFC 5869, with ``info = domain_tag(purpose, context)``.
    """
    if len(secret) < 16:
        raise InputError(f"key derivation: expected a secret of at least 16 bytes, got {len(secret)}")
    return hkdf(secret, salt=salt, info=domain_tag(purpose, context), length=length)


def hkdf(secret: bytes, *, salt: bytes, info: bytes, length: int) -> bytes:
    """HKDF-SHA-256 exactly as RFC 5869 has it. Call :func:`derive` unless a standard fixes ``info``.

    Raises:
        InputError: the length is not 1 to 8160 bytes.
    """
    if not 1 <= length <= MAX_OUTPUT_BYTES:
        raise InputError(f"key derivation: expected a length of 1 to {MAX_OUTPUT_BYTES} bytes, got {length}")
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=salt, info=info).derive(secret)


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """HMAC-SHA-256, 32 bytes. Source: RFC 2104."""
    mac = hmac.HMAC(key, hashes.SHA256())
    mac.update(message)
    return mac.finalize()


def keyed_hash(key: bytes, *, purpose: str, message: bytes) -> KeyedHash:
    """A fingerprint that only a holder of ``key`` can compute, compare or guess at.

    Raises:
        InputError: the key is shorter than 16 bytes.
    """
    if len(key) < 16:
        raise InputError(f"keyed hash: expected a key of at least 16 bytes, got {len(key)}")
    return KeyedHash(hmac_sha256(key, domain_tag(purpose, message)))
