"""The one shape of everything that leaves a process: a frame with a canonical header, a digest and a body.

The digest is checked before a header is decoded or a library sees a byte. It has no key: it finds accidents, splices
and truncation, and stops nobody who can recompute it; what such a sender can do is in ``docs/he.md``.
Source: ``docs/spec/he-bundle.md``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum

from mibao.codec import canonical, frames
from mibao.codec.canonical import Value
from mibao.crypto.kdf import domain_tag
from mibao.errors import InputError, IntegrityError
from mibao.he.spec import MAX_ANSWER_BYTES, CircuitSpec
from mibao.types import RandomId

MAGIC = b"MBHE"
VERSION = 2
MAX_HEADER_BYTES = 1 << 19
_DIGEST_BYTES = 32
_LENGTH_BYTES = 4
_KIND_AT = len(MAGIC) + 1  # behind the version


class Kind(IntEnum):
    """What a file or message is."""

    CIRCUIT = 1
    CLEAR_BUNDLE = 2
    ENCRYPTED_BUNDLE = 3
    CLIENT_KEY = 4
    SERVER_KEYS = 5
    REQUEST = 6
    ANSWER = 7
    FOREST = 8
    FOREST_BUNDLE = 9
    FOREST_KEY = 10
    TRAINING_RECORDS = 11
    TRAINING_KEYS = 12
    TRAINING_WEIGHTS = 13
    PUBLIC_KEY = 14


MAX_BYTES: dict[Kind, int] = {
    Kind.CIRCUIT: 1 << 20,
    Kind.CLEAR_BUNDLE: 1 << 26,
    Kind.ENCRYPTED_BUNDLE: 1 << 30,
    Kind.CLIENT_KEY: 1 << 24,
    Kind.SERVER_KEYS: 1 << 28,
    Kind.REQUEST: 1 << 30,
    Kind.ANSWER: MAX_ANSWER_BYTES + 2 * MAX_HEADER_BYTES,
    Kind.FOREST: 1 << 24,
    Kind.FOREST_BUNDLE: 1 << 27,
    Kind.FOREST_KEY: 1 << 25,
    Kind.TRAINING_RECORDS: 1 << 30,
    Kind.TRAINING_KEYS: 1 << 30,
    Kind.TRAINING_WEIGHTS: 1 << 26,
    Kind.PUBLIC_KEY: 1 << 23,
}
NAMES: dict[Kind, str] = {
    Kind.CIRCUIT: "circuit",
    Kind.CLEAR_BUNDLE: "bundle",
    Kind.ENCRYPTED_BUNDLE: "bundle",
    Kind.CLIENT_KEY: "client key",
    Kind.SERVER_KEYS: "server keys",
    Kind.REQUEST: "request",
    Kind.ANSWER: "answer",
    Kind.FOREST: "circuit of trees",
    Kind.FOREST_BUNDLE: "bundle of trees",
    Kind.FOREST_KEY: "client key for trees",
    Kind.TRAINING_RECORDS: "training records",
    Kind.TRAINING_KEYS: "training keys",
    Kind.TRAINING_WEIGHTS: "training weights",
    Kind.PUBLIC_KEY: "public key",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A kind, its header and its body; an opened one's body is a view, since requests are large."""

    kind: Kind
    header: dict[str, Value]
    body: bytes | memoryview


def encode(envelope: Envelope) -> bytes:
    """The envelope as bytes.

    Raises:
        InputError: the whole would exceed the limit of its kind.
    """
    header = canonical.encode(envelope.header)
    digest = _digest(envelope.kind, header, envelope.body)
    payload = b"".join((len(header).to_bytes(_LENGTH_BYTES, "big"), header, digest, envelope.body))
    if len(header) > MAX_HEADER_BYTES or len(payload) > MAX_BYTES[envelope.kind]:
        raise InputError(
            f"{NAMES[envelope.kind]}: expected at most {MAX_BYTES[envelope.kind]} bytes, got {len(payload)}; "
            "send fewer rows at a time"
        )
    return frames.encode(frames.Frame(magic=MAGIC, version=VERSION, kind=envelope.kind, payload=payload))


def decode(data: bytes, *kinds: Kind) -> Envelope:
    """The envelope in ``data``, which must be one of ``kinds``.

    Raises:
        InputError: a sound frame of another kind: an answer given as a request, say.
        IntegrityError: anything else about the bytes is not as it was written.
    """
    longest = max(MAX_BYTES.values())
    number, payload = frames.view(data, magic=MAGIC, version=VERSION, max_bytes=longest)
    expected = " or ".join(sorted({NAMES[kind] for kind in kinds}))
    try:
        kind = Kind(number)
    except ValueError as error:
        raise IntegrityError(f"{expected}: unknown kind {number}") from error
    envelope = _open(kind, payload)
    if kind not in kinds:
        raise InputError(f"wrong kind of file: expected {expected}, got {NAMES[kind]}")
    return envelope


def is_of(data: bytes, *kinds: Kind) -> bool:
    """Whether a frame says that it is one of ``kinds``; nothing of it is checked, which :func:`decode` then does."""
    return data[: len(MAGIC)] == MAGIC and len(data) > _KIND_AT and data[_KIND_AT] in kinds


def _open(kind: Kind, payload: memoryview) -> Envelope:
    name = NAMES[kind]
    if len(payload) > MAX_BYTES[kind]:
        raise IntegrityError(f"{name}: expected at most {MAX_BYTES[kind]} bytes, got {len(payload)}")
    header_end = _LENGTH_BYTES + int.from_bytes(payload[:_LENGTH_BYTES], "big")
    body_start = header_end + _DIGEST_BYTES
    if header_end > _LENGTH_BYTES + MAX_HEADER_BYTES or body_start > len(payload):
        raise IntegrityError(f"{name}: the header does not fit")
    header, body = bytes(payload[_LENGTH_BYTES:header_end]), payload[body_start:]
    if _digest(kind, header, body) != bytes(payload[header_end:body_start]):
        raise IntegrityError(f"{name}: its digest does not match, the bytes were changed")
    decoded = canonical.decode(header, max_bytes=MAX_HEADER_BYTES)
    if not isinstance(decoded, dict):
        raise IntegrityError(f"{name}: its header is no map")
    return Envelope(kind=kind, header=decoded, body=body)


def _digest(kind: Kind, header: bytes, body: bytes | memoryview) -> bytes:
    digest = hashlib.sha256(domain_tag("he/envelope", bytes([VERSION, kind]), header))
    digest.update(body)
    return digest.digest()


def spec_of(envelope: Envelope) -> CircuitSpec:
    """The circuit a bundle or key was made for. Raises ``IntegrityError`` when the header holds none."""
    if "spec" not in envelope.header:
        raise IntegrityError(f"{NAMES[envelope.kind]}: its header names no circuit")
    return CircuitSpec.from_value(envelope.header["spec"])


def id_of(envelope: Envelope, name: str) -> RandomId:
    """The id under ``name``. Raises ``IntegrityError`` when there is none."""
    held = envelope.header.get(name)
    if not isinstance(held, bytes) or len(held) != RandomId.size:
        raise IntegrityError(f"{NAMES[envelope.kind]}: field {name} is malformed")
    return RandomId(held)


def count_of(envelope: Envelope, name: str, *, largest: int) -> int:
    """The number under ``name``, 1 to ``largest``. Raises ``IntegrityError`` when there is none."""
    held = envelope.header.get(name)
    if type(held) is not int or not 1 <= held <= largest:
        raise IntegrityError(f"{NAMES[envelope.kind]}: field {name} is malformed")
    return held


def check_fields(envelope: Envelope, *names: str) -> None:
    """Nothing missing, nothing surplus. Raises ``IntegrityError`` otherwise."""
    if set(envelope.header) != set(names):
        raise IntegrityError(f"{NAMES[envelope.kind]}: expected the header fields {', '.join(names)}")
