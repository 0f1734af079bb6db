"""The body of a ``pkcs11`` stanza: a key-wrapping key that only the token releases, and the file key under it.

The two steps bind the file key to its file whatever the token's mechanism can bind: neither RFC 3394 nor the OAEP
of common tokens takes associated data.

Source: docs/spec/sealed-model.md, section 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import cast

from mibao.codec import canonical
from mibao.crypto.aead import NONCE_BYTES, TAG_BYTES, AesGcm
from mibao.crypto.kdf import derive
from mibao.errors import IntegrityError
from mibao.sealed.file_keys import FILE_KEY_BYTES
from mibao.sealed.unlock import PKCS11, Binding, stanza_data
from mibao.types import RandomId

MAX_BODY_BYTES = 4096
MAX_KEY_REFERENCE_BYTES = 255
_SEALED_BYTES = FILE_KEY_BYTES + TAG_BYTES


class TokenMechanism(StrEnum):
    """What the token does with the key-wrapping key."""

    AES_KEY_WRAP = "aes-key-wrap"
    RSA_OAEP_SHA256 = "rsa-oaep-sha256"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBody:
    """``key`` is the token's own id of its key (CKA_ID); ``wrapped`` opens on the token; ``sealed`` under that."""

    mechanism: TokenMechanism
    key: bytes
    wrapped: bytes
    sealed: bytes

    def encode(self) -> bytes:
        """The bytes of the stanza's body."""
        return canonical.encode(
            {"mechanism": self.mechanism.value, "key": self.key, "wrapped": self.wrapped, "sealed": self.sealed}
        )


def decode(body: bytes) -> TokenBody:
    """A stanza's body, within its limits.

    Raises:
        IntegrityError: not well formed.
    """
    try:
        value = canonical.decode(body, max_bytes=MAX_BODY_BYTES)
    except IntegrityError as error:
        raise IntegrityError("recipients: the token's stanza is not well formed") from error
    if not isinstance(value, dict) or value.keys() != {"mechanism", "key", "wrapped", "sealed"}:
        raise IntegrityError("recipients: the token's stanza has other fields than it should")
    key, wrapped, sealed = (value[name] for name in ("key", "wrapped", "sealed"))
    if not all(isinstance(each, bytes) for each in (key, wrapped, sealed)):
        raise IntegrityError("recipients: a field of the token's stanza is of another type")
    if value["mechanism"] not in set(TokenMechanism):
        raise IntegrityError("recipients: the token's stanza names a mechanism that is not known")
    if len(cast(bytes, key)) > MAX_KEY_REFERENCE_BYTES or len(cast(bytes, sealed)) != _SEALED_BYTES:
        raise IntegrityError("recipients: a field of the token's stanza has another length")
    return TokenBody(
        mechanism=TokenMechanism(value["mechanism"]),
        key=cast(bytes, key),
        wrapped=cast(bytes, wrapped),
        sealed=cast(bytes, sealed),
    )


def seal_file_key(file_key: bytes, *, wrapping_key: bytes, key_id: RandomId, binding: Binding) -> bytes:
    """The file key under a wrapping key that is fresh for this one stanza."""
    return _cipher(wrapping_key, binding).seal(bytes(NONCE_BYTES), file_key, stanza_data(PKCS11, key_id))


def open_file_key(sealed: bytes, *, wrapping_key: bytes, key_id: RandomId, binding: Binding) -> bytes:
    """The file key. Raises ``IntegrityError`` if the stanza was altered, or made for another file, type or id."""
    try:
        return _cipher(wrapping_key, binding).open(bytes(NONCE_BYTES), sealed, stanza_data(PKCS11, key_id))
    except IntegrityError as error:
        raise IntegrityError("recipients: the token's stanza was altered") from error


def is_symmetric(body: bytes) -> bool:
    """Whether no public-key mechanism stands between the body and the file key."""
    try:
        return decode(body).mechanism is TokenMechanism.AES_KEY_WRAP
    except IntegrityError:
        return False


def _cipher(wrapping_key: bytes, binding: Binding) -> AesGcm:
    return AesGcm(derive(wrapping_key, purpose="sealed/pkcs11", context=binding.info))
