"""AES-256-GCM with associated data that cannot be left out.

Nonces are the caller's: a counter under a key that is fresh for each file or session, never drawn at random for
more than 2**32 messages under one key (NIST SP 800-38D, section 8.3).
"""

from __future__ import annotations

from typing import TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mibao.errors import InputError, IntegrityError

Buffer: TypeAlias = bytes | bytearray | memoryview

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16


class AesGcm:
    """One AES-256-GCM key. Ciphertexts end with their 16-byte tag."""

    __slots__ = ("_aead",)

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise InputError(f"AES-256-GCM: expected a key of {KEY_BYTES} bytes, got {len(key)}")
        self._aead = AESGCM(key)

    def __repr__(self) -> str:
        return "<AesGcm key>"

    def __reduce__(self) -> str:
        raise TypeError("an AES-256-GCM key cannot be pickled or copied")

    def seal(self, nonce: bytes, plaintext: Buffer, associated_data: Buffer) -> bytes:
        """Ciphertext and tag, 16 bytes longer than ``plaintext``.

        Raises:
            InputError: the nonce is not 12 bytes.
        """
        _check_nonce(nonce)
        return self._aead.encrypt(nonce, plaintext, associated_data)

    def open(self, nonce: bytes, ciphertext: Buffer, associated_data: Buffer) -> bytes:
        """The plaintext that was sealed with this nonce and associated data.

        Raises:
            InputError: the nonce is not 12 bytes.
            IntegrityError: the tag does not match: other bytes, nonce, associated data or key.
        """
        _check_nonce(nonce)
        try:
            return self._aead.decrypt(nonce, ciphertext, associated_data)
        except InvalidTag as error:
            raise IntegrityError("authenticated encryption: the tag does not match") from error

    def seal_into(self, nonce: bytes, plaintext: Buffer, associated_data: Buffer, out: Buffer) -> None:
        """:meth:`seal` into ``out``, which must be 16 bytes longer than ``plaintext``. Runs without the GIL.

        Raises:
            InputError: the nonce is not 12 bytes, or ``out`` is of another size.
        """
        _check_nonce(nonce)
        _check_size(out, memoryview(plaintext).nbytes + TAG_BYTES)
        self._aead.encrypt_into(nonce, plaintext, associated_data, out)

    def open_into(self, nonce: bytes, ciphertext: Buffer, associated_data: Buffer, out: Buffer) -> None:
        """:meth:`open` into ``out``, which must be 16 bytes shorter than ``ciphertext``. Runs without the GIL.

        On failure ``out`` holds nothing of the plaintext.

        Raises:
            InputError: the nonce is not 12 bytes, or ``out`` is of another size.
            IntegrityError: the tag does not match.
        """
        _check_nonce(nonce)
        _check_size(out, memoryview(ciphertext).nbytes - TAG_BYTES)
        try:
            self._aead.decrypt_into(nonce, ciphertext, associated_data, out)
        except InvalidTag as error:
            view = memoryview(out).cast("B")
            view[:] = bytes(len(view))
            raise IntegrityError("authenticated encryption: the tag does not match") from error


def _check_nonce(nonce: bytes) -> None:
    if len(nonce) != NONCE_BYTES:
        raise InputError(f"AES-256-GCM: expected a nonce of {NONCE_BYTES} bytes, got {len(nonce)}")


def _check_size(out: Buffer, expected: int) -> None:
    found = memoryview(out).nbytes
    if found != expected:
        raise InputError(f"AES-256-GCM: expected a destination of {expected} bytes, got {found}")
