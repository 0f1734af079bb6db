"""A passphrase as a recipient: scrypt makes each guess cost 128 MiB; what a file may ask for is capped beforehand.

Source: docs/spec/sealed-model.md, section 3.3; RFC 7914.
"""

from __future__ import annotations

import unicodedata

from mibao.crypto import rng
from mibao.crypto.aead import NONCE_BYTES, TAG_BYTES, AesGcm
from mibao.crypto.kdf import derive
from mibao.crypto.key_text import SCRYPT_LOG_N, SCRYPT_LOG_N_RANGE, stretch
from mibao.errors import InputError, IntegrityError, KeyMismatch
from mibao.sealed.file_keys import FILE_KEY_BYTES
from mibao.sealed.unlock import SCRYPT, Binding, Stanza, stanza_data
from mibao.types import RandomId

SALT_BYTES = 32
WRONG = "recipients: the passphrase does not open this model"
_R, _P = 8, 1
_BODY_BYTES = 3 + SALT_BYTES + FILE_KEY_BYTES + TAG_BYTES


class Passphrase:
    """Whoever knows the passphrase. Cannot be printed or pickled.

    Args:
        passphrase: At least one character; NFC of it counts, so that keyboards that compose differently agree.
        log_n: What a guess at it costs, as the power of two of scrypt's N: 14 (16 MiB) to 18 (256 MiB).
    """

    __slots__ = ("_log_n", "_passphrase")

    def __init__(self, passphrase: str, *, log_n: int = SCRYPT_LOG_N) -> None:
        if not passphrase:
            raise InputError("passphrase: expected at least one character")
        self._passphrase = unicodedata.normalize("NFC", passphrase)
        self._log_n = log_n

    def __repr__(self) -> str:
        return "<Passphrase>"

    def __reduce__(self) -> str:
        raise TypeError("a passphrase cannot be pickled or copied")

    @property
    def kind(self) -> str:
        """The type of its stanzas."""
        return SCRYPT

    def wrap(self, file_key: bytes, binding: Binding) -> Stanza:
        """The stanza that opens with this passphrase.

        Raises:
            InputError: the cost is not within its limits.
        """
        key_id, salt = rng.random_id(), rng.random_bytes(SALT_BYTES)
        sealed = self._cipher(salt, self._log_n, binding).seal(bytes(NONCE_BYTES), file_key, _data(key_id))
        return Stanza(kind=SCRYPT, key_id=key_id, body=bytes([self._log_n, _R, _P]) + salt + sealed)

    def unwrap(self, stanza: Stanza, binding: Binding) -> bytes:
        """The file key.

        Raises:
            InputError: the stanza asks for more than the limits allow; nothing of it was spent.
            IntegrityError: the stanza is not well formed.
            KeyMismatch: another passphrase, or the stanza was altered: nothing tells the two apart.
        """
        if len(stanza.body) != _BODY_BYTES:
            raise IntegrityError("recipients: the passphrase's stanza has another length")
        log_n, r, p = stanza.body[:3]
        if log_n not in SCRYPT_LOG_N_RANGE or (r, p) != (_R, _P):
            raise InputError(f"passphrase: the file asks for scrypt of N 2**{log_n}, r {r}, p {p}, beyond the limits")
        salt, sealed = stanza.body[3 : 3 + SALT_BYTES], stanza.body[3 + SALT_BYTES :]
        try:
            return self._cipher(salt, log_n, binding).open(bytes(NONCE_BYTES), sealed, _data(stanza.key_id))
        except IntegrityError as error:
            raise KeyMismatch(WRONG) from error

    def _cipher(self, salt: bytes, log_n: int, binding: Binding) -> AesGcm:
        stretched = stretch(self._passphrase, salt, log_n)
        return AesGcm(derive(stretched, purpose="sealed/passphrase", context=binding.info))


def _data(key_id: RandomId) -> bytes:
    return stanza_data(SCRYPT, key_id)
