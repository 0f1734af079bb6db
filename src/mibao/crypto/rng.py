"""The one place where entropy enters. Only the edges call it; everything else takes randomness as an argument.

Two libraries draw their own randomness and offer no argument for it: ML-KEM encapsulation and ML-DSA's hedged
signing in ``cryptography``, and SEAL's key generation and encryption. Both draw from the operating system.
"""

from __future__ import annotations

import secrets

from mibao.types import RandomId


def random_bytes(count: int) -> bytes:
    """``count`` bytes from the operating system's generator."""
    return secrets.token_bytes(count)


def random_id() -> RandomId:
    """A fresh identifier: 128 random bits."""
    return RandomId(random_bytes(RandomId.size))
