"""A key or a passphrase out of a named variable of the environment: where services get theirs from."""

from __future__ import annotations

import os

from mibao.crypto import key_text
from mibao.crypto.keys import RecipientPrivateKey, RecipientPublicKey, decode_recipient
from mibao.errors import InputError
from mibao.sealed.unlock_passphrase import Passphrase

_KEY = "mibao1"


def recipient_from_environment(variable: str) -> RecipientPublicKey | Passphrase:
    """Whom to seal to: the recipient's public key in ``variable``, or the passphrase in it.

    Text that begins with ``mibao1`` is a key and never taken for a passphrase.

    Raises:
        InputError: the variable is not set or empty, or holds another kind of key.
    """
    text = _value(variable)
    if text.startswith(f"{key_text.PREFIX}."):
        raise InputError(f"${variable}: expected a recipient's public key or a passphrase, got a private key")
    if text.startswith(_KEY):
        return decode_recipient(text)
    return Passphrase(text)


def identity_from_environment(variable: str) -> RecipientPrivateKey | Passphrase:
    """Who opens: the recipient's private key in ``variable``, not itself under a passphrase, or the passphrase in it.

    Text that begins with ``mibao1`` is a key and never taken for a passphrase.

    Raises:
        InputError: the variable is not set or empty, or holds another kind of key.
    """
    text = _value(variable)
    if not text.startswith(_KEY):
        return Passphrase(text)
    key = key_text.decode_private(text)
    if not isinstance(key, RecipientPrivateKey):
        raise InputError(f"${variable}: expected a recipient's private key, got a signer's")
    return key


def _value(variable: str) -> str:
    text = os.environ.get(variable, "").strip()
    if not text:
        raise InputError(f"${variable}: expected a key or a passphrase, and it is not set")
    return text
