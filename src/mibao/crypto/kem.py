"""HPKE in base mode: bytes sealed to a recipient's public key, with associated data, sequence and export.

The key schedule is RFC 9180's, over the X25519, ML-KEM, HKDF and AES-GCM of ``cryptography``, whose own HPKE
offers one-shot messages only. Suites, pinned:

* KEM 0x0020, DHKEM(X25519, HKDF-SHA256): RFC 9180, section 7.1.
* KEM 0x647a, MLKEM768-X25519 ("X-Wing"): draft-ietf-hpke-pq and draft-connolly-cfrg-xwing-kem.
* KDF 0x0001, HKDF-SHA256; AEAD 0x0002, AES-256-GCM (0x0001, AES-128-GCM, for the RFC's vectors).
"""

from __future__ import annotations

import hashlib
import struct
from enum import Enum
from typing import NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from mibao.crypto import rng
from mibao.crypto.kdf import hmac_sha256
from mibao.crypto.keys import (
    RecipientPrivateKey,
    RecipientPublicKey,
    RecipientSuite,
    recipient_halves,
    reveal_secret_bytes,
)
from mibao.errors import InputError, IntegrityError, KeyMismatch

KEM_ID = {RecipientSuite.X25519: 0x0020, RecipientSuite.MLKEM768_X25519: 0x647A}
ENCAPSULATED_BYTES = {RecipientSuite.X25519: 32, RecipientSuite.MLKEM768_X25519: 1088 + 32}
_MLKEM768_PUBLIC_BYTES = 1184
_MLKEM768_CIPHERTEXT_BYTES = 1088
_KDF_HKDF_SHA256 = 0x0001
_XWING_LABEL = rb"\.//^" + b"\\"
_TAG_BYTES = 16


class HpkeAead(Enum):
    """The AEAD of an HPKE suite: its identifier in RFC 9180, section 7.3, and its key's length."""

    AES_128_GCM = (0x0001, 16)
    AES_256_GCM = (0x0002, 32)


class _Context:
    __slots__ = ("_base_nonce", "_exporter_secret", "_key", "_sequence", "_suite_id")

    def __init__(self, key: bytes, base_nonce: bytes, exporter_secret: bytes, suite_id: bytes) -> None:
        self._key, self._base_nonce, self._exporter_secret, self._suite_id = key, base_nonce, exporter_secret, suite_id
        self._sequence = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an HPKE context cannot be pickled or copied")

    def __getstate__(self) -> NoReturn:
        raise TypeError("an HPKE context cannot be pickled or copied")

    def export(self, context: bytes, length: int) -> bytes:
        """``length`` secret bytes bound to ``context`` that both sides can derive. RFC 9180, section 5.3."""
        return _labeled_expand(self._suite_id, self._exporter_secret, b"sec", context, length)

    def _nonce(self) -> bytes:
        number = int.from_bytes(self._base_nonce, "big") ^ self._sequence
        return number.to_bytes(len(self._base_nonce), "big")


class SenderContext(_Context):
    """Seals messages in order; the recipient opens them in the same order."""

    __slots__ = ()

    def seal(self, plaintext: bytes, associated_data: bytes) -> bytes:
        """The next message, 16 bytes longer than ``plaintext``. RFC 9180, section 5.2."""
        sealed = AESGCM(self._key).encrypt(self._nonce(), plaintext, associated_data)
        self._sequence += 1
        return sealed


class RecipientContext(_Context):
    """Opens messages in the order in which they were sealed."""

    __slots__ = ()

    def open(self, ciphertext: bytes, associated_data: bytes) -> bytes:
        """The next message; one that fails does not use up its place.

        Raises:
            IntegrityError: altered, out of order, other associated data, or sealed to another key.
        """
        try:
            plaintext = AESGCM(self._key).decrypt(self._nonce(), ciphertext, associated_data)
        except InvalidTag as error:
            raise IntegrityError("HPKE message: the tag does not match") from error
        self._sequence += 1
        return plaintext


def setup_sender(public: RecipientPublicKey, *, info: bytes) -> tuple[bytes, SenderContext]:
    """The encapsulated key to send along, and the context to seal with. Draws fresh randomness each time."""
    return setup_sender_derandomised(public, info=info, ephemeral=rng.random_bytes(32))


def setup_sender_derandomised(
    public: RecipientPublicKey, *, info: bytes, ephemeral: bytes, aead: HpkeAead = HpkeAead.AES_256_GCM
) -> tuple[bytes, SenderContext]:
    """:func:`setup_sender` with its X25519 ephemeral secret given, for vectors: one used twice repeats a nonce.

    ML-KEM's half still draws its own randomness: ``cryptography`` has no derandomised encapsulation.

    Raises:
        InputError: the public key holds a point of low order, or no ML-KEM key.
    """
    try:
        if public.suite is RecipientSuite.X25519:
            shared, encapsulated = _dhkem_encapsulate(public.raw, ephemeral)
        else:
            shared, encapsulated = _hybrid_encapsulate(public.raw, ephemeral)
    except ValueError as error:
        raise InputError("HPKE: the recipient's public key is not a valid one") from error
    return encapsulated, SenderContext(*_key_schedule(public.suite, aead, shared, info))


def setup_recipient(
    private: RecipientPrivateKey, encapsulated: bytes, *, info: bytes, aead: HpkeAead = HpkeAead.AES_256_GCM
) -> RecipientContext:
    """The context that opens what was sealed with this encapsulated key and info.

    Raises:
        IntegrityError: the encapsulated key has another length or is a point of low order.
    """
    expected = ENCAPSULATED_BYTES[private.suite]
    if len(encapsulated) != expected:
        raise IntegrityError(f"HPKE: expected an encapsulated key of {expected} bytes, got {len(encapsulated)}")
    try:
        if private.suite is RecipientSuite.X25519:
            shared = _dhkem_decapsulate(private, encapsulated)
        else:
            shared = _hybrid_decapsulate(private, encapsulated)
    except ValueError as error:
        raise IntegrityError("HPKE: the encapsulated key is not a valid one") from error
    return RecipientContext(*_key_schedule(private.suite, aead, shared, info))


def seal_once(public: RecipientPublicKey, plaintext: bytes, *, info: bytes, associated_data: bytes) -> bytes:
    """Encapsulated key and one sealed message in one piece. Raises ``InputError`` as :func:`setup_sender`."""
    encapsulated, context = setup_sender(public, info=info)
    return encapsulated + context.seal(plaintext, associated_data)


def open_once(private: RecipientPrivateKey, sealed: bytes, *, info: bytes, associated_data: bytes) -> bytes:
    """The message that :func:`seal_once` sealed to this key.

    Raises:
        IntegrityError: shorter than an encapsulated key and a tag.
        KeyMismatch: sealed to another key, with other info or associated data, or altered: HPKE cannot tell which.
    """
    split = ENCAPSULATED_BYTES[private.suite]
    if len(sealed) < split + _TAG_BYTES:
        raise IntegrityError(f"HPKE: expected at least {split + _TAG_BYTES} bytes, got {len(sealed)}")
    try:
        return setup_recipient(private, sealed[:split], info=info).open(sealed[split:], associated_data)
    except IntegrityError as error:
        raise KeyMismatch("HPKE: not sealed to this key, or altered since") from error


def _dhkem_encapsulate(recipient: bytes, ephemeral: bytes) -> tuple[bytes, bytes]:
    secret = X25519PrivateKey.from_private_bytes(ephemeral)
    encapsulated = secret.public_key().public_bytes_raw()
    exchanged = secret.exchange(X25519PublicKey.from_public_bytes(recipient))
    return _dhkem_shared(exchanged, encapsulated + recipient), encapsulated


def _dhkem_decapsulate(private: RecipientPrivateKey, encapsulated: bytes) -> bytes:
    secret = X25519PrivateKey.from_private_bytes(reveal_secret_bytes(private))
    exchanged = secret.exchange(X25519PublicKey.from_public_bytes(encapsulated))
    return _dhkem_shared(exchanged, encapsulated + private.public.raw)


def _dhkem_shared(exchanged: bytes, kem_context: bytes) -> bytes:
    """``ExtractAndExpand`` of RFC 9180, section 4.1."""
    suite_id = b"KEM" + struct.pack(">H", KEM_ID[RecipientSuite.X25519])
    prk = _labeled_extract(suite_id, b"", b"eae_prk", exchanged)
    return _labeled_expand(suite_id, prk, b"shared_secret", kem_context, 32)


def _hybrid_encapsulate(recipient: bytes, ephemeral: bytes) -> tuple[bytes, bytes]:
    mlkem_public, x25519_public = recipient[:_MLKEM768_PUBLIC_BYTES], recipient[_MLKEM768_PUBLIC_BYTES:]
    mlkem_shared, mlkem_ciphertext = MLKEM768PublicKey.from_public_bytes(mlkem_public).encapsulate()
    secret = X25519PrivateKey.from_private_bytes(ephemeral)
    x25519_ciphertext = secret.public_key().public_bytes_raw()
    exchanged = secret.exchange(X25519PublicKey.from_public_bytes(x25519_public))
    shared = _hybrid_shared(mlkem_shared, exchanged, x25519_ciphertext, x25519_public)
    return shared, mlkem_ciphertext + x25519_ciphertext


def _hybrid_decapsulate(private: RecipientPrivateKey, encapsulated: bytes) -> bytes:
    mlkem_seed, x25519_secret = recipient_halves(reveal_secret_bytes(private))
    mlkem_ciphertext = encapsulated[:_MLKEM768_CIPHERTEXT_BYTES]
    x25519_ciphertext = encapsulated[_MLKEM768_CIPHERTEXT_BYTES:]
    mlkem_shared = MLKEM768PrivateKey.from_seed_bytes(mlkem_seed).decapsulate(mlkem_ciphertext)
    secret = X25519PrivateKey.from_private_bytes(x25519_secret)
    exchanged = secret.exchange(X25519PublicKey.from_public_bytes(x25519_ciphertext))
    return _hybrid_shared(mlkem_shared, exchanged, x25519_ciphertext, private.public.raw[_MLKEM768_PUBLIC_BYTES:])


def _hybrid_shared(mlkem_shared: bytes, exchanged: bytes, x25519_ciphertext: bytes, x25519_public: bytes) -> bytes:
    """The X-Wing combiner: draft-connolly-cfrg-xwing-kem, section 5.3."""
    return hashlib.sha3_256(mlkem_shared + exchanged + x25519_ciphertext + x25519_public + _XWING_LABEL).digest()


def _key_schedule(
    suite: RecipientSuite, aead: HpkeAead, shared: bytes, info: bytes
) -> tuple[bytes, bytes, bytes, bytes]:
    """Key, base nonce, exporter secret and suite id in base mode. RFC 9180, section 5.1."""
    aead_id, key_bytes = aead.value
    suite_id = b"HPKE" + struct.pack(">HHH", KEM_ID[suite], _KDF_HKDF_SHA256, aead_id)
    psk_id_hash = _labeled_extract(suite_id, b"", b"psk_id_hash", b"")
    info_hash = _labeled_extract(suite_id, b"", b"info_hash", info)
    context = b"\x00" + psk_id_hash + info_hash
    secret = _labeled_extract(suite_id, shared, b"secret", b"")
    key = _labeled_expand(suite_id, secret, b"key", context, key_bytes)
    base_nonce = _labeled_expand(suite_id, secret, b"base_nonce", context, 12)
    exporter_secret = _labeled_expand(suite_id, secret, b"exp", context, 32)
    return key, base_nonce, exporter_secret, suite_id


def _labeled_extract(suite_id: bytes, salt: bytes, label: bytes, key_material: bytes) -> bytes:
    return hmac_sha256(salt or bytes(32), b"HPKE-v1" + suite_id + label + key_material)


def _labeled_expand(suite_id: bytes, prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
    labeled_info = struct.pack(">H", length) + b"HPKE-v1" + suite_id + label + info
    return HKDFExpand(algorithm=SHA256(), length=length, info=labeled_info).derive(prk)
