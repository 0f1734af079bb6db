"""Opaque handles of key pairs: a recipient's (to open what was sealed to it) and a signer's (to vouch).

A private handle cannot be printed, pickled, copied or compared; its bytes leave through
:func:`reveal_secret_bytes` and nowhere else. The text form of a public key carries its type, its suite and a
checksum, so that a signer's key given as a recipient's is refused::

    mibao1.recipient.mlkem768-x25519.<base64url of the raw key and 4 bytes of SHA-256>
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from enum import Enum
from typing import Generic, NoReturn, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mibao.crypto.kdf import domain_tag
from mibao.errors import InputError
from mibao.types import RandomId

TEXT_PREFIX = "mibao1"
MAX_TEXT_CHARS = 4096
_CHECKSUM_BYTES = 4


class RecipientSuite(Enum):
    """Key encapsulation of a recipient. The hybrid stays safe while either half does."""

    X25519 = "x25519"
    MLKEM768_X25519 = "mlkem768-x25519"


class SignerSuite(Enum):
    """Signature of a signer. The hybrid stays safe while either half does."""

    ED25519 = "ed25519"
    ED25519_MLDSA65 = "ed25519-mldsa65"


Suite = TypeVar("Suite", RecipientSuite, SignerSuite)

SEED_BYTES = {
    RecipientSuite.X25519: 32,
    RecipientSuite.MLKEM768_X25519: 32,
    SignerSuite.ED25519: 32,
    SignerSuite.ED25519_MLDSA65: 64,
}
RAW_PUBLIC_BYTES = {
    RecipientSuite.X25519: 32,
    RecipientSuite.MLKEM768_X25519: 1184 + 32,
    SignerSuite.ED25519: 32,
    SignerSuite.ED25519_MLDSA65: 32 + 1952,
}


# The y coordinates of the eight points of edwards25519 whose order divides 8: RFC 8032, section 5.1.
_FIELD_PRIME = (1 << 255) - 19
_ORDER_8_Y = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_SMALL_ORDER_Y = frozenset({0, 1, _FIELD_PRIME - 1, _ORDER_8_Y, _FIELD_PRIME - _ORDER_8_Y})


class _PublicKey(Generic[Suite]):
    """What anyone may hold. ``raw`` is the key's bytes, the halves of a hybrid one after the other."""

    __slots__ = ("key_id", "raw", "suite")
    kind: str
    suite: Suite
    raw: bytes
    key_id: RandomId

    def __init__(self, suite: Suite, raw: bytes) -> None:
        if len(raw) != RAW_PUBLIC_BYTES[suite]:
            raise InputError(
                f"{self.kind}'s public key: expected {RAW_PUBLIC_BYTES[suite]} bytes for {suite.value}, got {len(raw)}"
            )
        self.suite = suite
        self.raw = raw
        tag = domain_tag("key-id", self.kind.encode(), suite.value.encode(), raw)
        self.key_id = RandomId(hashlib.sha256(tag).digest()[: RandomId.size])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _PublicKey) and self.key_id == other.key_id

    def __hash__(self) -> int:
        return hash(self.key_id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.suite.value} {self.key_id}>"


class RecipientPublicKey(_PublicKey[RecipientSuite]):
    """Seal to this."""

    __slots__ = ()
    kind = "recipient"


class SignerPublicKey(_PublicKey[SignerSuite]):
    """Verify with this; callers pin it.

    Raises:
        InputError: the length is wrong, or the Ed25519 half is a point of small order, under which one signature
            fits every message.
    """

    __slots__ = ()
    kind = "signer"

    def __init__(self, suite: SignerSuite, raw: bytes) -> None:
        super().__init__(suite, raw)
        y = (int.from_bytes(raw[:32], "little") & ((1 << 255) - 1)) % _FIELD_PRIME
        if y in _SMALL_ORDER_Y:
            raise InputError("signer's public key: a point of small order, which vouches for nothing")


class _PrivateKey:
    """What only its owner holds."""

    __slots__ = ("_seed",)
    _seed: bytes

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key cannot be pickled or copied")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a private key cannot be pickled or copied")

    def __copy__(self) -> NoReturn:
        raise TypeError("a private key cannot be pickled or copied")

    def __deepcopy__(self, memo: object) -> NoReturn:
        raise TypeError("a private key cannot be pickled or copied")


class RecipientPrivateKey(_PrivateKey):
    """Opens what was sealed to ``public``."""

    __slots__ = ("public",)
    public: RecipientPublicKey

    def __init__(self, suite: RecipientSuite, seed: bytes) -> None:
        self._seed = _checked_seed(seed, SEED_BYTES[suite])
        self.public = RecipientPublicKey(suite, _recipient_raw_public(suite, seed))

    def __repr__(self) -> str:
        return f"<RecipientPrivateKey {self.public.suite.value} {self.public.key_id}>"

    @property
    def suite(self) -> RecipientSuite:
        """The key's suite."""
        return self.public.suite

    @property
    def key_id(self) -> RandomId:
        """The public key's fingerprint."""
        return self.public.key_id


class SignerPrivateKey(_PrivateKey):
    """Signs what ``public`` verifies."""

    __slots__ = ("public",)
    public: SignerPublicKey

    def __init__(self, suite: SignerSuite, seed: bytes) -> None:
        self._seed = _checked_seed(seed, SEED_BYTES[suite])
        self.public = SignerPublicKey(suite, _signer_raw_public(suite, seed))

    def __repr__(self) -> str:
        return f"<SignerPrivateKey {self.public.suite.value} {self.public.key_id}>"

    @property
    def suite(self) -> SignerSuite:
        """The key's suite."""
        return self.public.suite

    @property
    def key_id(self) -> RandomId:
        """The public key's fingerprint."""
        return self.public.key_id


def generate_recipient(suite: RecipientSuite, seed: bytes) -> RecipientPrivateKey:
    """The recipient's key pair that ``seed`` determines; draw it from :func:`mibao.crypto.rng.random_bytes`.

    Raises:
        InputError: the seed is not ``SEED_BYTES[suite]`` long.
    """
    return RecipientPrivateKey(suite, seed)


def generate_signer(suite: SignerSuite, seed: bytes) -> SignerPrivateKey:
    """The signer's key pair that ``seed`` determines; draw it from :func:`mibao.crypto.rng.random_bytes`.

    Raises:
        InputError: the seed is not ``SEED_BYTES[suite]`` long.
    """
    return SignerPrivateKey(suite, seed)


def reveal_secret_bytes(key: RecipientPrivateKey | SignerPrivateKey) -> bytes:
    """The seed of a private key: the one door through which it leaves its handle."""
    return key._seed


def recipient_halves(seed: bytes) -> tuple[bytes, bytes]:
    """The ML-KEM-768 seed (64 bytes) and X25519 secret (32 bytes) of a hybrid recipient's 32-byte seed.

    Source: draft-connolly-cfrg-xwing-kem, section 5.2 (``expandDecapsulationKey``).
    """
    expanded = hashlib.shake_256(seed).digest(96)
    return expanded[:64], expanded[64:]


def encode_public(key: RecipientPublicKey | SignerPublicKey) -> str:
    """The text form: ``mibao1.<kind>.<suite>.<base64url>``, 80 characters for the classical suites."""
    return encode_text(f"{TEXT_PREFIX}.{key.kind}.{key.suite.value}.", key.raw)


def decode_recipient(text: str) -> RecipientPublicKey:
    """The recipient's key in ``text``.

    Raises:
        InputError: the text is no key, is damaged, or is a signer's.
    """
    suite, raw = _decode_public(text, RecipientPublicKey.kind)
    return RecipientPublicKey(_suite_named(RecipientSuite, suite), raw)


def decode_signer(text: str) -> SignerPublicKey:
    """The signer's key in ``text``.

    Raises:
        InputError: the text is no key, is damaged, or is a recipient's.
    """
    suite, raw = _decode_public(text, SignerPublicKey.kind)
    return SignerPublicKey(_suite_named(SignerSuite, suite), raw)


def encode_text(prefix: str, payload: bytes) -> str:
    """``prefix`` and then, in base64url, ``payload`` and a checksum over both."""
    check = hashlib.sha256(prefix.encode() + payload).digest()[:_CHECKSUM_BYTES]
    return prefix + base64.urlsafe_b64encode(payload + check).rstrip(b"=").decode()


def decode_text(prefix: str, encoded: str) -> bytes:
    """The payload that :func:`encode_text` put behind ``prefix``.

    Raises:
        InputError: not base64url in its one canonical form, or the checksum does not match.
    """
    try:
        body = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError("key text: damaged or cut short (not base64url)") from error
    payload = body[:-_CHECKSUM_BYTES]
    if encode_text(prefix, payload) != prefix + encoded:
        raise InputError("key text: damaged or cut short (the checksum does not match)")
    return payload


def _decode_public(text: str, kind: str) -> tuple[str, bytes]:
    parts = text.strip().split(".") if len(text) <= MAX_TEXT_CHARS else []
    if len(parts) != 4 or parts[0] != TEXT_PREFIX:
        if text.lstrip().startswith("mibao1-secret."):
            raise InputError(f"expected a {kind}'s public key, got a private key: keep that one to yourself")
        raise InputError(f"expected a {kind}'s public key ({TEXT_PREFIX}.{kind}....), got something else")
    if parts[1] != kind:
        shown = parts[1] if parts[1] in ("recipient", "signer") else "unknown"
        raise InputError(f"expected a {kind}'s public key, got a key of type '{shown}'")
    return parts[2], decode_text(".".join(parts[:3]) + ".", parts[3])


def _suite_named(suites: type[Suite], name: str) -> Suite:
    for suite in suites:
        if suite.value == name:
            return suite
    known = ", ".join(suite.value for suite in suites)
    raise InputError(f"key text: unknown suite; this version knows {known}")


def _checked_seed(seed: bytes, expected: int) -> bytes:
    if len(seed) != expected:
        raise InputError(f"key generation: expected a seed of {expected} bytes, got {len(seed)}")
    return seed


def _recipient_raw_public(suite: RecipientSuite, seed: bytes) -> bytes:
    if suite is RecipientSuite.X25519:
        return X25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    mlkem_seed, x25519_secret = recipient_halves(seed)
    mlkem = MLKEM768PrivateKey.from_seed_bytes(mlkem_seed).public_key().public_bytes_raw()
    return mlkem + X25519PrivateKey.from_private_bytes(x25519_secret).public_key().public_bytes_raw()


def _signer_raw_public(suite: SignerSuite, seed: bytes) -> bytes:
    ed25519 = Ed25519PrivateKey.from_private_bytes(seed[:32]).public_key().public_bytes_raw()
    if suite is SignerSuite.ED25519:
        return ed25519
    return ed25519 + MLDSA65PrivateKey.from_seed_bytes(seed[32:]).public_key().public_bytes_raw()
