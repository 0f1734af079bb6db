"""Recipients and identities by a word on a command line: ``env:NAME``, ``pkcs11:...``, ``kms:KEY``, or another's name.

Others join through the entry point group ``mibao.sealed.unlock``: ``NAME:REST`` calls what is registered as ``NAME``
with ``REST``, and expects an object with the methods of :mod:`mibao.sealed.unlock`.
"""

from __future__ import annotations

from importlib.metadata import entry_points

from mibao.errors import InputError
from mibao.sealed import unlock_environment, unlock_kms, unlock_pkcs11
from mibao.sealed.recipients import Identity, Recipient
from mibao.sealed.unlock import ENTRY_POINTS, KeyUnwrapper, KeyWrapper

_ENVIRONMENT = "env:"


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
    for entry in entry_points(group=ENTRY_POINTS, name=name) if colon else ():
        made: object = entry.load()(rest)
        return made
    return None
