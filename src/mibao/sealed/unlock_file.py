"""Keys out of the files that ``mibao keygen`` writes."""

from __future__ import annotations

from pathlib import Path

from mibao.crypto import key_text
from mibao.crypto.keys import (
    RecipientPrivateKey,
    RecipientPublicKey,
    SignerPublicKey,
    decode_recipient,
    decode_signer,
)
from mibao.errors import InputError, KeyMismatch
from mibao.sealed.files import StrPath


def identity_from_file(path: StrPath, *, passphrase: str | None = None) -> RecipientPrivateKey:
    """The recipient's private key in a file.

    Args:
        passphrase: What the file is protected by, if it is.

    Raises:
        InputError: no such file, a damaged or truncated key, a signer's key, or a passphrase missing or not called for.
        KeyMismatch: a wrong passphrase.
    """
    line = _line(path)
    try:
        key = key_text.decode_private(line, passphrase=passphrase)
    except (InputError, KeyMismatch) as error:
        raise type(error)(f"{path}: {error}") from error
    if not isinstance(key, RecipientPrivateKey):
        raise InputError(f"{path}: expected a recipient's private key, got a signer's")
    return key


def recipient_from_file(path: StrPath) -> RecipientPublicKey:
    """The recipient's public key in a ``.pub`` file. Raises ``InputError`` if there is none."""
    line = _line(path)
    try:
        return decode_recipient(line)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def signer_from_file(path: StrPath) -> SignerPublicKey:
    """The signer's public key in a ``.pub`` file. Raises ``InputError`` if there is none."""
    line = _line(path)
    try:
        return decode_signer(line)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _line(path: StrPath) -> str:
    if str(path).startswith(f"{key_text.PREFIX}."):
        # Never repeated: whoever took a private key for the name of its file must not find it in a log as well.
        raise InputError("expected the name of a key file, got the text of a private key")
    try:
        with Path(path).open("rb") as file:
            content = file.read(key_text.MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    try:
        return key_text.line_of(content)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
