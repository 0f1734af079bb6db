"""Key files on disk: read within limits, written whole, private ones for their owner's eyes only."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mibao.cli.new_file import write_new
from mibao.errors import InputError, KeyMismatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from mibao.crypto.keys import RecipientPrivateKey, RecipientPublicKey, SignerPrivateKey, SignerPublicKey

Public = TypeVar("Public")
ENVIRONMENT_VARIABLE = "MIBAO_PASSPHRASE"


def read_recipient_public(text_or_path: str) -> RecipientPublicKey:
    """The recipient's public key given as a string or as the ``.pub`` file that holds it.

    Raises:
        InputError: no such file, no key in it, or a signer's key.
    """
    from mibao.crypto.keys import decode_recipient

    return _decoded(text_or_path, decode_recipient)


def read_signer_public(text_or_path: str) -> SignerPublicKey:
    """The signer's public key given as a string or as the ``.pub`` file that holds it.

    Raises:
        InputError: no such file, no key in it, or a recipient's key.
    """
    from mibao.crypto.keys import decode_signer

    return _decoded(text_or_path, decode_signer)


def read_recipient_private(path: Path, passphrase: str | None = None, *, ask: bool = False) -> RecipientPrivateKey:
    """The recipient's private key in ``path``; a protected one takes ``passphrase``, else $MIBAO_PASSPHRASE.

    Args:
        ask: The key is said to be protected: with neither, its passphrase is asked for at the terminal.

    Raises:
        InputError: no such file, a damaged or truncated key, a signer's key, or a passphrase missing or not called for.
        KeyMismatch: a wrong passphrase.
    """
    from mibao.crypto.keys import RecipientPrivateKey

    key = _read_private(path, passphrase, ask=ask)
    if not isinstance(key, RecipientPrivateKey):
        raise InputError(f"{path}: expected a recipient's private key, got a signer's")
    return key


def read_signer_private(path: Path, passphrase: str | None = None, *, ask: bool = False) -> SignerPrivateKey:
    """The signer's private key in ``path``; a protected one takes ``passphrase``, else $MIBAO_PASSPHRASE.

    Args:
        ask: The key is said to be protected: with neither, its passphrase is asked for at the terminal.

    Raises:
        InputError: no such file, a damaged or truncated key, a recipient's key, or a passphrase missing or not called
            for.
        KeyMismatch: a wrong passphrase.
    """
    from mibao.crypto.keys import SignerPrivateKey

    key = _read_private(path, passphrase, ask=ask)
    if not isinstance(key, SignerPrivateKey):
        raise InputError(f"{path}: expected a signer's private key, got a recipient's (make one: mibao keygen --sign)")
    return key


def is_protected(path: Path) -> bool:
    """Whether the private key in ``path`` asks for a passphrase. Raises ``InputError`` if there is none."""
    from mibao.crypto import key_text

    text = _key_line(path)
    return text.startswith(key_text.PREFIX) and key_text.needs_passphrase(text)


def write_pair(path: Path, key: RecipientPrivateKey | SignerPrivateKey, *, passphrase: str | None) -> Path:
    """Write the private key to ``path`` (mode 0600) and the public one beside it; returns the ``.pub`` path.

    Raises:
        InputError: either file exists already, or ``path`` ends in ``.pub``. Nothing is written then.
    """
    from mibao.crypto import key_text, rng
    from mibao.crypto.aead import NONCE_BYTES
    from mibao.crypto.keys import encode_public

    if path.name in ("", ".."):
        raise InputError(f"{path}: expected a name for the private key, such as alice.key")
    public_path = path.with_suffix(".pub")
    if public_path == path:
        raise InputError(f"{path}: expected a name for the private key, such as alice.key; .pub is the public one's")
    for taken in (path, public_path):
        if taken.exists():
            raise InputError(f"{taken} exists already and is not overwritten: choose another name or move it away")
    if passphrase is None:
        secret_text = key_text.encode_plain(key)
    else:
        salt, nonce = rng.random_bytes(key_text.SALT_BYTES), rng.random_bytes(NONCE_BYTES)
        secret_text = key_text.encode_protected(key, passphrase=passphrase, salt=salt, nonce=nonce)
    public_text = encode_public(key.public)
    heading = f"# mibao private key ({key.public.kind}, {key.suite.value}). Keep it secret.\n# id {key.key_id}\n"
    write_new(path, f"{heading}{secret_text}\n", mode=0o600)
    try:
        write_new(public_path, public_text + "\n")
    except InputError:
        path.unlink()
        raise
    return public_path


def ask_new_passphrase() -> str:
    """A passphrase for a new key, from $MIBAO_PASSPHRASE or typed twice at the terminal.

    Raises:
        InputError: nothing to read it from, it is empty, or the two differ.
    """
    given = os.environ.get(ENVIRONMENT_VARIABLE) or _typed("Passphrase: ")
    if not os.environ.get(ENVIRONMENT_VARIABLE) and given != _typed("The same again: "):
        raise InputError("passphrase: the two differ")
    if not given:
        raise InputError("passphrase: expected at least one character")
    return given


def ask_passphrase() -> str:
    """The passphrase of an existing key, from $MIBAO_PASSPHRASE or typed at the terminal. Raises ``InputError``."""
    return os.environ.get(ENVIRONMENT_VARIABLE) or _typed("Passphrase: ")


def _typed(prompt: str) -> str:
    if sys.stdin is None or not sys.stdin.isatty():
        raise InputError(f"passphrase: no terminal to ask at; set {ENVIRONMENT_VARIABLE} instead")
    return getpass.getpass(prompt)


def _decoded(text_or_path: str, decode: Callable[[str], Public]) -> Public:
    if text_or_path.startswith("mibao1."):
        return decode(text_or_path)
    text = _key_line(Path(text_or_path))
    try:
        return decode(text)
    except InputError as error:
        raise InputError(f"{text_or_path}: {error}") from error


def _read_private(path: Path, passphrase: str | None, *, ask: bool) -> RecipientPrivateKey | SignerPrivateKey:
    from mibao.crypto import key_text

    text = _key_line(path)
    if passphrase is None and text.startswith(key_text.PREFIX):
        if key_text.needs_passphrase(text):
            passphrase = ask_passphrase() if ask else os.environ.get(ENVIRONMENT_VARIABLE)
        elif ask:
            raise InputError(f"{path}: is not protected by a passphrase: leave out --passphrase")
    try:
        return key_text.decode_private(text, passphrase=passphrase)
    except (InputError, KeyMismatch) as error:
        raise type(error)(f"{path}: {error}") from error


def _key_line(path: Path) -> str:
    if str(path).startswith("mibao1-secret."):
        # Never repeated: whoever pasted a private key here must not find it in a log as well.
        raise InputError("expected the name of a key file, got the text of a private key")
    if not path.is_file():
        found = "a folder" if path.is_dir() else "something else" if path.exists() else "nothing there"
        raise InputError(f"{path}: expected a key file, got {found}")
    from mibao.crypto import key_text

    with path.open("rb") as file:
        content = file.read(key_text.MAX_FILE_BYTES + 1)
    try:
        return key_text.line_of(content)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
