"""Whose evaluation keys these are: a label from key generation on, which a host compares with who asks it.

It stands in the header of ``client.key`` and ``server.keys``, under their digest. That digest has no key: a label keeps
a host from taking one account's keys for another's, and proves nothing about who sent them. The host has to know that.
"""

from __future__ import annotations

from mibao.codec.canonical import Value
from mibao.errors import InputError, IntegrityError, KeyMismatch
from mibao.he import envelope
from mibao.he.envelope import NAMES, Envelope

MAX_ACCOUNT_CHARACTERS = 64
_FIELD = "account"


def checked_account(account: str | None) -> str | None:
    """``account`` itself. Raises ``InputError`` when it is no name; none is a name for keys of nobody's account."""
    if account is not None and not _is_name(account):
        raise InputError(f"account: expected 1 to {MAX_ACCOUNT_CHARACTERS} printable characters")
    return account


def account_fields(account: str | None) -> dict[str, Value]:
    """What stands in the header of a key: nothing where it has no account."""
    return {} if account is None else {_FIELD: account}


def account_of(opened: Envelope, *fields: str) -> str | None:
    """A key's account. Raises ``IntegrityError`` when its header has not exactly ``fields`` and perhaps an account."""
    held = opened.header.get(_FIELD)
    envelope.check_fields(opened, *fields, *((_FIELD,) if _FIELD in opened.header else ()))
    if _FIELD in opened.header and not (isinstance(held, str) and _is_name(held)):
        raise IntegrityError(f"{NAMES[opened.kind]}: field {_FIELD} is malformed")
    return held if isinstance(held, str) else None


def check_account(held: str | None, *, asking: str | None) -> None:
    """Refuse evaluation keys of another account than asks, of one where none asks, and of none where one asks.

    Raises:
        KeyMismatch: they differ; the message names neither.
    """
    if held == asking:
        return
    if asking is None:
        raise KeyMismatch("server keys: made for an account; name the account that asks")
    raise KeyMismatch(f"server keys: made for {'no account' if held is None else 'another account'}")


def _is_name(account: str) -> bool:
    return 0 < len(account) <= MAX_ACCOUNT_CHARACTERS and account.isprintable()
