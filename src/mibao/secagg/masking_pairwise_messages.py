"""The messages of the pairwise scheme: signed by clients, canonical, bounded, bound to one session and round.

Source: ``docs/spec/secagg.md``, sections 3 and 4.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from mibao.codec import canonical, frames
from mibao.crypto import sign
from mibao.crypto.kdf import domain_tag
from mibao.crypto.keys import SignerPrivateKey
from mibao.errors import IntegrityError
from mibao.secagg.masking import Phase, Session, Trust
from mibao.secagg.message_fields import Body, blaming, client_name, expect_fields, integer, octets

MAGIC = b"mbSA"
VERSION = 1
MAX_SIGNATURE_BYTES = 4096
PUBLIC_BYTES = 32
CIPHERTEXT_BYTES = 82
SHARE_BYTES = 33
HASH_BYTES = 32
_ENVELOPE_BYTES = MAX_SIGNATURE_BYTES + 256
_ENTRY_BYTES = 128
SERVER = "server"


class Kind(IntEnum):
    """Kinds of frames, in the order in which they are sent. Odd: from a client, even: from the server."""

    ADVERTISEMENT = 1
    KEYS = 2
    SHARES = 3
    DELIVERY = 4
    UPLOAD = 5
    SURVIVORS = 6
    CONFIRMATION = 7
    CONFIRMATIONS = 8
    REVELATION = 9


STEP: Mapping[Kind, Phase] = {
    Kind.ADVERTISEMENT: Phase.ADVERTISE,
    Kind.KEYS: Phase.SHARE,
    Kind.SHARES: Phase.SHARE,
    Kind.DELIVERY: Phase.MASK,
    Kind.UPLOAD: Phase.MASK,
    Kind.SURVIVORS: Phase.CONFIRM,
    Kind.CONFIRMATION: Phase.CONFIRM,
    Kind.CONFIRMATIONS: Phase.REVEAL,
    Kind.REVELATION: Phase.REVEAL,
}
"""The phase in which a message is due: that of the client message it is, or asks for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """One client's message after its signature was verified."""

    sender: int
    body: Body


class MessageFormat:
    """Writes and reads the messages of one session and round, and no other's."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.binding = session_binding(session)

    def write_signed(self, kind: Kind, body: Body, *, sender: int, signer: SignerPrivateKey) -> bytes:
        """One client's message, signed for this session, round and kind. Raises ``InputError`` for a bad body."""
        content = canonical.encode(body)
        signature = sign.sign(signer, self._signed_bytes(sender, content), purpose=_purpose(kind))
        return self._frame(kind, {"body": content, "sender": sender, "signature": signature})

    def read_signed(self, kind: Kind, data: bytes) -> Signed:
        """The body of one client's message.

        Raises:
            ProtocolError: another kind, session or round, not well formed, or not signed by the roster's key;
                names the client that it claims to come from.
        """
        with blaming("unknown client", STEP[kind]):
            found, envelope = self._open(kind, data)
            sender = integer(envelope, "sender")
            if sender not in self._session.roster:
                raise IntegrityError(f"client {sender} is not on the roster")
        with blaming(client_name(sender), STEP[kind]):
            _check_kind(found, kind)
            expect_fields(envelope, "body", "sender", "session", "signature")
            self._check_binding(envelope)
            content, signature = octets(envelope, "body"), octets(envelope, "signature")
            key = self._session.roster[sender]
            sign.verify(key, self._signed_bytes(sender, content), signature, purpose=_purpose(kind))
            body = canonical.decode(content, max_bytes=len(content))
            if not isinstance(body, dict):
                raise IntegrityError("body: expected a map")
            return Signed(sender=sender, body=body)

    def write_broadcast(self, kind: Kind, body: Body) -> bytes:
        """One message of the server. Raises ``InputError`` for a bad body."""
        return self._frame(kind, {"body": body})

    def read_broadcast(self, kind: Kind, data: bytes) -> Body:
        """The body of the server's message.

        Raises:
            ProtocolError: another kind, session or round, or not well formed.
        """
        with blaming(SERVER, STEP[kind]):
            found, envelope = self._open(kind, data)
            _check_kind(found, kind)
            expect_fields(envelope, "body", "session")
            self._check_binding(envelope)
            body = envelope["body"]
            if not isinstance(body, dict):
                raise IntegrityError("body: expected a map")
            return body

    def _frame(self, kind: Kind, envelope: Body) -> bytes:
        payload = canonical.encode({**envelope, "session": self.binding})
        return frames.encode(frames.Frame(magic=MAGIC, version=VERSION, kind=kind, payload=payload))

    def _open(self, kind: Kind, data: bytes) -> tuple[int, Body]:
        limit = max_payload_bytes(self._session, kind)
        frame = frames.decode(data, magic=MAGIC, version=VERSION, max_bytes=limit)
        envelope = canonical.decode(frame.payload, max_bytes=limit)
        if not isinstance(envelope, dict):
            raise IntegrityError("envelope: expected a map")
        return frame.kind, envelope

    def _check_binding(self, envelope: Body) -> None:
        if octets(envelope, "session", size=HASH_BYTES) != self.binding:
            raise IntegrityError("the message belongs to another session or round, or to other parameters")

    def _signed_bytes(self, sender: int, content: bytes) -> bytes:
        return self.binding + sender.to_bytes(4, "big") + hashlib.sha256(content).digest()


def session_binding(session: Session) -> bytes:
    """32 bytes that stand for every field of the session, the pinned keys included."""
    content: Body = {
        "clients": [[number, key.suite.value, key.raw] for number, key in session.roster.items()],
        "length": session.length,
        "min_clients": session.min_clients,
        "modulus_bits": session.modulus_bits,
        "round": session.round,
        "session": session.session_id.value,
        "task": session.task_hash,
        "threshold": session.threshold,
    }
    if session.trust is not Trust.MALICIOUS_SERVER:
        content["trust"] = session.trust.value
    if session.neighbours is not None:
        content |= {"neighbours": session.neighbours, "share_threshold": session.share_threshold}
    return hashlib.sha256(domain_tag("secagg/pairwise/session", canonical.encode(content))).digest()


def max_payload_bytes(session: Session, kind: Kind) -> int:
    """The longest payload that a reader of this session accepts for one kind of message."""
    clients = len(session.roster)
    match kind:
        case Kind.KEYS | Kind.CONFIRMATIONS:
            return _ENVELOPE_BYTES + clients * (_ENVELOPE_BYTES + _ENTRY_BYTES)
        case Kind.UPLOAD:
            return _ENVELOPE_BYTES + vector_bytes(session)
        case _:
            return _ENVELOPE_BYTES + clients * _ENTRY_BYTES


def vector_bytes(session: Session) -> int:
    """Bytes of one masked vector on the wire."""
    return session.length * session.modulus_bits // 8


def _check_kind(found: int, expected: Kind) -> None:
    if found != expected:
        came = next((kind.name.lower() for kind in Kind if kind == found), f"unknown kind {found}")
        raise IntegrityError(f"expected the message {expected.name.lower()}, got {came}")


def _purpose(kind: Kind) -> str:
    return f"secagg/pairwise/{kind.name.lower()}"
