"""Private keys as one line of text, in clear or under a passphrase.

::

    mibao1-secret.<kind>.<suite>.plain.<base64url of the seed and a checksum>
    mibao1-secret.<kind>.<suite>.scrypt.<base64url of log2(N) || salt || nonce || AES-256-GCM(seed) and a checksum>

The checksum tells a damaged file from a wrong passphrase. The cost that a file asks for is capped before any of
it is spent.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from mibao.crypto.aead import NONCE_BYTES, AesGcm
from mibao.crypto.keys import (
    MAX_TEXT_CHARS,
    SEED_BYTES,
    RecipientPrivateKey,
    RecipientSuite,
    SignerPrivateKey,
    SignerSuite,
    decode_text,
    encode_text,
    reveal_secret_bytes,
)
from mibao.errors import InputError, IntegrityError, KeyMismatch

PREFIX = "mibao1-secret"
MAX_FILE_BYTES = 16 * 1024
SALT_BYTES = 16
SCRYPT_LOG_N = 17
SCRYPT_LOG_N_RANGE = range(14, 19)
_SCRYPT_R = 8
_SCRYPT_P = 1
_SUITES: dict[str, dict[str, RecipientSuite | SignerSuite]] = {
    "recipient": {suite.value: suite for suite in RecipientSuite},
    "signer": {suite.value: suite for suite in SignerSuite},
}


def encode_plain(key: RecipientPrivateKey | SignerPrivateKey) -> str:
    """The key in clear; whoever reads the text holds the key."""
    return encode_text(f"{PREFIX}.{key.public.kind}.{key.suite.value}.plain.", reveal_secret_bytes(key))


def encode_protected(
    key: RecipientPrivateKey | SignerPrivateKey,
    *,
    passphrase: str,
    salt: bytes,
    nonce: bytes,
    log_n: int = SCRYPT_LOG_N,
) -> str:
    """The key under a passphrase; scrypt spends ``2**log_n`` KiB of memory on every guess.

    Raises:
        InputError: the passphrase is empty, ``log_n`` outside 14 to 18, or salt or nonce of another length.
    """
    if not passphrase:
        raise InputError("passphrase: expected at least one character")
    if len(salt) != SALT_BYTES:
        raise InputError(f"passphrase: expected a salt of {SALT_BYTES} bytes, got {len(salt)}")
    prefix = f"{PREFIX}.{key.public.kind}.{key.suite.value}.scrypt."
    wrapping_key = stretch(passphrase, salt, log_n)
    sealed = AesGcm(wrapping_key).seal(nonce, reveal_secret_bytes(key), prefix.encode())
    return encode_text(prefix, bytes([log_n]) + salt + nonce + sealed)


def line_of(content: bytes) -> str:
    """The one key in the bytes of a key file, private or public, lines that begin with ``#`` left out.

    Raises:
        InputError: more than 16 KiB, no key, or several.
    """
    lines = [line.strip() for line in content.splitlines() if line.strip() and not line.startswith(b"#")]
    if len(content) > MAX_FILE_BYTES or len(lines) != 1 or not lines[0].isascii():
        raise InputError("expected a key file with one key in it, got something else or a truncated one")
    return lines[0].decode("ascii")


def needs_passphrase(text: str) -> bool:
    """Whether :func:`decode_private` will ask for one. Raises ``InputError`` when the text is no private key."""
    return _split(text)[2] == "scrypt"


def decode_private(text: str, *, passphrase: str | None = None) -> RecipientPrivateKey | SignerPrivateKey:
    """The private key in ``text``.

    Raises:
        InputError: no private key, damaged or cut short, a cost over the cap, or a passphrase missing or not
            called for.
        KeyMismatch: the passphrase is a wrong one.
    """
    kind, suite_name, protection, encoded = _split(text)
    suite = _SUITES[kind].get(suite_name)
    if suite is None:
        raise InputError(f"private key: unknown suite; this version knows {', '.join(_SUITES[kind])}")
    prefix = f"{PREFIX}.{kind}.{suite_name}.{protection}."
    payload = decode_text(prefix, encoded)
    if protection == "plain":
        if passphrase is not None:
            raise InputError("private key: it is not protected by a passphrase, and one was given")
        seed = payload
    else:
        seed = _unprotect(payload, passphrase, prefix)
    if len(seed) != SEED_BYTES[suite]:
        raise InputError(f"private key: expected {SEED_BYTES[suite]} bytes for {suite_name}, got {len(seed)}")
    return RecipientPrivateKey(suite, seed) if isinstance(suite, RecipientSuite) else SignerPrivateKey(suite, seed)


def _split(text: str) -> tuple[str, str, str, str]:
    parts = text.strip().split(".") if len(text) <= MAX_TEXT_CHARS else []
    if len(parts) != 5 or parts[0] != PREFIX or parts[1] not in _SUITES or parts[3] not in ("plain", "scrypt"):
        raise InputError(f"expected a private key ({PREFIX}....), got something else or a truncated one")
    return parts[1], parts[2], parts[3], parts[4]


def _unprotect(payload: bytes, passphrase: str | None, prefix: str) -> bytes:
    if passphrase is None:
        raise InputError("private key: it is protected; give its passphrase with --passphrase")
    if len(payload) <= 1 + SALT_BYTES + NONCE_BYTES:
        raise InputError("private key: shorter than its own header")
    log_n, rest = payload[0], payload[1:]
    salt, nonce, sealed = rest[:SALT_BYTES], rest[SALT_BYTES:][:NONCE_BYTES], rest[SALT_BYTES + NONCE_BYTES :]
    try:
        return AesGcm(stretch(passphrase, salt, log_n)).open(nonce, sealed, prefix.encode())
    except IntegrityError as error:
        raise KeyMismatch("private key: the passphrase does not open it") from error


def stretch(passphrase: str, salt: bytes, log_n: int) -> bytes:
    """32 bytes from a passphrase, at a cost of ``2**log_n`` KiB of memory.

    Raises:
        InputError: ``log_n`` outside 14 to 18; nothing was spent then.

    Source: RFC 7914, with r = 8 and p = 1.
    """
    if log_n not in SCRYPT_LOG_N_RANGE:
        low, high = SCRYPT_LOG_N_RANGE[0], SCRYPT_LOG_N_RANGE[-1]
        raise InputError(f"passphrase: expected a cost of 2**{low} to 2**{high}, got 2**{log_n}")
    try:
        secret = passphrase.encode()
    except UnicodeEncodeError:
        raise InputError("passphrase: expected text in UTF-8") from None  # the cause would show a part of it
    return Scrypt(salt=salt, length=32, n=1 << log_n, r=_SCRYPT_R, p=_SCRYPT_P).derive(secret)
