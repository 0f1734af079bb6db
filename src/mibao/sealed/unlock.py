"""What it takes to lock a file key away and get it back: the interface of every recipient that is not a public key.

A passphrase, a token or a cloud service stands in ``unlock_<name>.py`` beside this file; others come through the
entry point group :data:`ENTRY_POINTS`. Whatever an unwrapper returns is compared with the signed key commitment
before it is used, so a faulty one can refuse a file and can never open another.

Source: docs/spec/sealed-model.md, section 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from mibao.crypto.kdf import domain_tag
from mibao.types import RandomId

ENTRY_POINTS = "mibao.sealed.unlock"
SCRYPT = "scrypt"
PKCS11 = "pkcs11"
AWS_KMS = "aws-kms"
OTHERS_PREFIX = "x-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stanza:
    """The file key, wrapped. ``kind`` says how, ``key_id`` to which key, or which stanza where a key has no id."""

    kind: str
    key_id: RandomId
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """What a wrapped file key must be bound to: one file, one key, one signer."""

    file_id: RandomId
    commitment: bytes
    signer: RandomId

    @property
    def info(self) -> bytes:
        """The wrap info: key derivation context, or HPKE's ``info``."""
        return domain_tag("sealed/stanza", self.file_id.value, self.commitment, self.signer.value)


def stanza_data(kind: str, key_id: RandomId) -> bytes:
    """The associated data of a stanza's encryption: a body moved to another type or id does not open."""
    return domain_tag("sealed/stanza", kind.encode(), key_id.value)


@runtime_checkable
class KeyWrapper(Protocol):
    """Somebody a file can be sealed to."""

    @property
    def kind(self) -> str:
        """The type of the stanzas it makes; one that is not in the specification begins with ``x-``."""
        ...

    def wrap(self, file_key: bytes, binding: Binding) -> Stanza:
        """The file key locked away, bound to ``binding``, the stanza's type and its id.

        Raises:
            InputError: the key cannot be used or reached.
        """
        ...


@runtime_checkable
class KeyUnwrapper(Protocol):
    """Somebody who opens files."""

    @property
    def kind(self) -> str:
        """The type of the stanzas it opens; :meth:`unwrap` is given no other."""
        ...

    def unwrap(self, stanza: Stanza, binding: Binding) -> bytes:
        """The file key in ``stanza``.

        Raises:
            KeyMismatch: made for another key: the next stanza of this type is tried.
            IntegrityError: made for this key, and altered.
            InputError: a limit is exceeded, or the key cannot be reached.
        """
        ...
