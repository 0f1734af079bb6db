"""Recipients, identities and signers by one text: a key file, ``env:NAME``, ``pkcs11:...``, ``kms:KEY``, others' names.

Others join through the entry point group ``mibao.sealed.unlock``: ``NAME:REST`` calls what is registered as ``NAME``
with ``REST``, and expects an object with the methods of :mod:`mibao.sealed.unlock`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from mibao.crypto.keys import SignerPublicKey, decode_recipient, decode_signer
from mibao.errors import InputError
from mibao.sealed import unlock_environment, unlock_kms, unlock_pkcs11
from mibao.sealed.files import StrPath
from mibao.sealed.recipients import Identity, Recipient
from mibao.sealed.unlock import ENTRY_POINTS, KeyUnwrapper, KeyWrapper
from mibao.sealed.unlock_file import identity_from_file, recipient_from_file, signer_from_file

_ENVIRONMENT = "env:"
_KEY = "mibao1."


def identity(text: StrPath, *, passphrase: str | None = None) -> Identity:
    """Who opens, as ``--key`` of the command line names them: a private key's file, or one of the names above.

    Args:
        passphrase: What the private key's file is protected by, if it is.

    Raises:
        InputError: there is no such key, or ``passphrase`` is missing or not called for.
        KeyMismatch: a wrong passphrase.
    """
    found = identity_named(str(text))
    if found is None:
        return identity_from_file(text, passphrase=passphrase)
    if passphrase is not None:
        raise InputError("passphrase: expected with a private key's file, whose passphrase it is")
    return found


def recipient(text: StrPath) -> Recipient:
    """Whom to seal to, as ``--to`` names them: a ``.pub`` file, the key in it, or one of the names above.

    Raises:
        InputError: there is no such key.
    """
    found = recipient_named(str(text))
    if found is not None:
        return found
    return decode_recipient(str(text)) if str(text).startswith(_KEY) else recipient_from_file(text)


def signer(text: StrPath) -> SignerPublicKey:
    """Whom to pin, as ``--signer`` names them: a ``.pub`` file, or the key in it. Raises ``InputError``."""
    return decode_signer(str(text)) if str(text).startswith(_KEY) else signer_from_file(text)


def recipient_named(text: str) -> Recipient | None:
    """Whom to seal to; None if ``text`` begins with no name that is known, so that it is a file or a key.

    Raises:
        InputError: the rest of it names nothing that can be sealed to.
    """
    if text.startswith(_ENVIRONMENT):
        return unlock_environment.recipient_from_environment(text.removeprefix(_ENVIRONMENT))
    found = _key(text)
    if found is not None and not isinstance(found, KeyWrapper):
        raise InputError(f"{text.partition(':')[0]}: expected somebody to seal to, and it cannot wrap")
    return found


def identity_named(text: str) -> Identity | None:
    """Who opens; None if ``text`` begins with no name that is known, so that it is a file.

    Raises:
        InputError: the rest of it names nothing that can open.
    """
    if text.startswith(_ENVIRONMENT):
        return unlock_environment.identity_from_environment(text.removeprefix(_ENVIRONMENT))
    found = _key(text)
    if found is not None and not isinstance(found, KeyUnwrapper):
        raise InputError(f"{text.partition(':')[0]}: expected somebody who opens, and it cannot unwrap")
    return found


def _key(text: str) -> object | None:
    if text.startswith(unlock_pkcs11.SCHEME):
        return unlock_pkcs11.parse(text)
    if text.startswith(unlock_kms.SCHEME):
        return unlock_kms.KmsKey(text.removeprefix(unlock_kms.SCHEME))
    name, colon, rest = text.partition(":")
    return _registered(name)(rest) if colon and not Path(text).exists() else None


def _registered(name: str) -> Callable[[str], object]:
    """What a package registers as ``name``. What stands behind the colon is never repeated: it may be a secret."""
    found = list(entry_points(group=ENTRY_POINTS, name=name))
    if not found:
        raise InputError(f"{name}: there is no such file, and no package registers that name in {ENTRY_POINTS}")
    if len({each.value for each in found}) > 1:
        raise InputError(f"{name}: registered in {ENTRY_POINTS} more than once: {', '.join(map(_package, found))}")
    try:
        made: Callable[[str], object] = found[0].load()
    except (ImportError, AttributeError) as error:
        raise InputError(f"{name}: {_package(found[0])} cannot be loaded ({type(error).__name__})") from error
    return made


def _package(entry: EntryPoint) -> str:
    return "a package" if entry.dist is None else entry.dist.name
