"""Signed tree heads: what a ledger held at one size, in three lines that anyone can check.

::

    mibao.example/hospital-a
    1000
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

    — mibao.example/hospital-a Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurm...

The text never holds a zero byte, and everything signed elsewhere in mibao holds one before its first newline
(:func:`mibao.crypto.kdf.domain_tag`), so a signature made for one can never be shown as the other.

Sources: C2SP signed-note and tlog-checkpoint (https://c2sp.org).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from mibao.crypto.keys import SignerPrivateKey, SignerPublicKey, SignerSuite
from mibao.crypto.sign import sign_bare, verify_bare
from mibao.errors import InputError, IntegrityError, KeyMismatch
from mibao.ledger import merkle

MAX_NOTE_BYTES = 64 * 1024
MAX_SIGNATURES = 64
KEY_ID_BYTES = 4
_ED25519 = b"\x01"
_SIGNATURE_PREFIX = "\u2014 "
_ORIGIN = re.compile(r"[a-z0-9](?:[a-z0-9._/-]{0,126}[a-z0-9])?")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The origin of a ledger, how many entries it holds, and the Merkle root over them."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """The three lines that are signed."""
        return f"{self.origin}\n{self.size}\n{_base64(self.root)}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One signature line of a note, not yet verified."""

    name: str
    key_id: bytes
    value: bytes


def check_origin(origin: str) -> None:
    """Return if ``origin`` may name a ledger.

    Raises:
        InputError: it is not 1 to 128 characters out of a-z 0-9 . _ / - that begin and end with a letter or digit.
    """
    if not _ORIGIN.fullmatch(origin):
        raise InputError(
            "ledger origin: expected 1 to 128 characters out of a-z 0-9 . _ / - such as 'example.com/ledger'"
        )


def check_signer(suite: SignerSuite) -> None:
    """Return if keys of this suite can sign checkpoints.

    Raises:
        InputError: the key is not plain Ed25519, the one type that the note format shares with us.
    """
    if suite is not SignerSuite.ED25519:
        raise InputError(f"a ledger is signed by an ed25519 key, got one of type {suite.value}")


def key_id(name: str, public: SignerPublicKey) -> bytes:
    """The 4 bytes by which a note says which key signed it. Source: C2SP signed-note, section Ed25519."""
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + public.raw).digest()[:KEY_ID_BYTES]


def sign_note(text: str, *, name: str, key: SignerPrivateKey) -> str:
    """``text`` with one signature line under it.

    Raises:
        InputError: the key is not Ed25519, or the text does not end in a newline.
    """
    check_signer(key.suite)
    if not text.endswith("\n"):
        raise InputError("signed note: expected a text that ends in a newline")
    signature = key_id(name, key.public) + sign_bare(key, text.encode())
    return f"{text}\n{_SIGNATURE_PREFIX}{name} {_base64(signature)}\n"


def split_note(note: str) -> tuple[str, tuple[Signature, ...]]:
    """The text of a note and its signatures, none of them verified.

    Raises:
        IntegrityError: not a signed note, over :data:`MAX_NOTE_BYTES`, or over :data:`MAX_SIGNATURES`.
    """
    if len(note.encode(errors="replace")) > MAX_NOTE_BYTES:
        raise IntegrityError(f"signed note: expected at most {MAX_NOTE_BYTES} bytes")
    # Notes are printed before they are verified: nothing in one may steer a terminal or reorder text.
    if not note.replace("\n", "").isprintable():
        raise IntegrityError("signed note: a control character")
    text, blank, tail = note.rpartition("\n\n")
    if not blank or not tail.endswith("\n"):
        raise IntegrityError("signed note: expected a text, an empty line and signature lines")
    lines = tail[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise IntegrityError(f"signed note: expected at most {MAX_SIGNATURES} signatures, got {len(lines)}")
    return text + "\n", tuple(_read_signature(line) for line in lines)


def open_note(note: str, *, name: str, public: SignerPublicKey) -> str:
    """The text of a note that ``public``, under ``name``, has signed. Lines of unknown keys are ignored.

    Raises:
        InputError: the key is not Ed25519.
        KeyMismatch: no line is by this name and key.
        IntegrityError: not a signed note, or the signature under this name and key does not verify.
    """
    check_signer(public.suite)
    text, signatures = split_note(note)
    wanted = key_id(name, public)
    matching = [signature for signature in signatures if signature.name == name and signature.key_id == wanted]
    if not matching:
        signers = ", ".join(sorted({signature.key_id.hex() for signature in signatures}))
        raise KeyMismatch(f"checkpoint: signed by key {signers}, not by the given key {wanted.hex()}")
    for signature in matching:
        try:
            verify_bare(public, text.encode(), signature.value)
        except IntegrityError as error:
            raise IntegrityError("checkpoint: the signature does not verify") from error
    return text


def sign(checkpoint: Checkpoint, key: SignerPrivateKey) -> str:
    """The signed note of a checkpoint, under its origin as the key's name.

    Raises:
        InputError: the origin is not a valid one, or the key is not Ed25519.
    """
    check_origin(checkpoint.origin)
    return sign_note(checkpoint.text(), name=checkpoint.origin, key=key)


def verify(note: str, public: SignerPublicKey) -> Checkpoint:
    """The checkpoint in a note that ``public`` has signed under the checkpoint's own origin.

    Raises:
        InputError: the key is not Ed25519.
        KeyMismatch: the note is signed by another key.
        IntegrityError: not a checkpoint, or the signature does not verify.
    """
    checkpoint = read_unverified(note)
    open_note(note, name=checkpoint.origin, public=public)
    return checkpoint


def read_unverified(note: str) -> Checkpoint:
    """The checkpoint in a note whoever signed it: for display, and for nothing that is decided by it.

    Raises:
        IntegrityError: not a checkpoint in the exact form that :func:`sign` gives it.
    """
    text, _ = split_note(note)
    lines = text.split("\n")
    if len(lines) != 4:
        raise IntegrityError("checkpoint: expected three lines: origin, size and root")
    origin, size, encoded_root, _ = lines
    if not _ORIGIN.fullmatch(origin):
        raise IntegrityError("checkpoint: not a valid origin")
    if not _SIZE.fullmatch(size) or int(size) > merkle.MAX_SIZE:
        raise IntegrityError("checkpoint: not a valid size")
    root = _unbase64(encoded_root, part="checkpoint root")
    if len(root) != merkle.HASH_BYTES:
        raise IntegrityError(f"checkpoint root: expected {merkle.HASH_BYTES} bytes, got {len(root)}")
    return Checkpoint(origin=origin, size=int(size), root=root)


def _read_signature(line: str) -> Signature:
    prefix, name, encoded = line[:2], *line[2:].partition(" ")[::2]
    if prefix != _SIGNATURE_PREFIX or not name or "+" in name or any(character.isspace() for character in name):
        raise IntegrityError("signed note: not a signature line")
    value = _unbase64(encoded, part="signed note")
    if len(value) <= KEY_ID_BYTES:
        raise IntegrityError("signed note: a signature line without a signature")
    return Signature(name=name, key_id=value[:KEY_ID_BYTES], value=value[KEY_ID_BYTES:])


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _unbase64(text: str, *, part: str) -> bytes:
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise IntegrityError(f"{part}: not base64") from error
    if _base64(data) != text:  # one value has one encoding, or a changed character could go unnoticed
        raise IntegrityError(f"{part}: not base64 in its one canonical form")
    return data
