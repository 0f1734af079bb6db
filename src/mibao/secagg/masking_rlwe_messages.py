"""The messages of the one-shot scheme: signed, bounded, every field compared with the reader's own session.

Source: ``docs/spec/secagg.md``, section 11.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from blake3 import blake3

from mibao.codec import canonical, frames
from mibao.crypto import kem
from mibao.crypto.kdf import domain_tag
from mibao.crypto.keys import RecipientSuite, SignerPrivateKey
from mibao.errors import IntegrityError
from mibao.secagg import message_fields as fields
from mibao.secagg.masking import Phase
from mibao.secagg.masking_rlwe import DEALER_CHECKS, CommitteeSession, agreed_fields, session_binding
from mibao.secagg.message_fields import Body
from mibao.secagg.signed_maps import MAX_SIGNATURE_BYTES, SignedMaps, decode_map, sender_of

MAGIC = b"mbSR"
FRAME_VERSION = 1
HASH_BYTES = 32
ELEMENT_BYTES = 4
SERVER = "server"
# Of what follows the header, from the start of the frame: vectors are then added where they lie.
ALIGNMENT = 8
_TAG_BYTES = 16
_ENCAPSULATED_BYTES = kem.ENCAPSULATED_BYTES[RecipientSuite.MLKEM768_X25519]


class Kind(IntEnum):
    """Kinds of frames, in the order in which they are sent."""

    UPLOAD = 1
    ANNOUNCEMENT = 2
    CONFIRMATION = 3
    CONFIRMATIONS = 4
    RELEASE = 5


STEP: Mapping[Kind, Phase] = {
    Kind.UPLOAD: Phase.MASK,
    Kind.ANNOUNCEMENT: Phase.CONFIRM,
    Kind.CONFIRMATION: Phase.CONFIRM,
    Kind.CONFIRMATIONS: Phase.REVEAL,
    Kind.RELEASE: Phase.REVEAL,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A client's message after every check: its signed header, one sealed share for each member, and the vector."""

    client: int
    header: bytes
    shares: tuple[memoryview, ...]
    vector: memoryview


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """Whose vectors the server summed, and one member's shares of their secrets."""

    headers: Mapping[int, bytes]
    shares: Mapping[int, bytes]
    dropped: tuple[int, ...]
    previous: bytes
    challenge: bytes
    receiver: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """What a member signed, and who it is."""

    member: int
    body: Body


class RlweFormat:
    """Writes and reads the messages of one session, and no other's."""

    def __init__(self, session: CommitteeSession) -> None:
        self.session = session
        self.binding = session_binding(session)
        self._agreed = agreed_fields(session)
        self._maps = SignedMaps("secagg/rlwe", self.binding)
        self._members = list(session.committee.members)
        self.share_values = session.share_columns + DEALER_CHECKS
        self.sealed_bytes = _ENCAPSULATED_BYTES + _TAG_BYTES + ELEMENT_BYTES * self.share_values
        self.vector_bytes = session.length * session.parameters.element_bytes
        self.max_header_bytes = 4096 + MAX_SIGNATURE_BYTES + 34 * len(self._members)

    def write_upload(self, vector: bytes, shares: Sequence[bytes], *, client: int, signer: SignerPrivateKey) -> bytes:
        """A client's one message; ``shares`` are sealed, in the order of the members."""
        body = {**self._agreed, "shares": [_sha256(one) for one in shares], "vector": blake3(vector).digest()}
        header = self.sign_map(Kind.UPLOAD, body, sender=client, signer=signer)
        payload = b"".join([len(header).to_bytes(4, "big"), header, bytes(_padding(len(header))), *shares, vector])
        return _frame(Kind.UPLOAD, payload)

    def read_upload(self, data: bytes) -> Upload:
        """A client's message.

        Raises:
            ProtocolError: malformed, another session's, not signed by a client of the roster, or a part does not
                have the hash that was signed; names the client and the part.
        """
        rest = len(self._members) * self.sealed_bytes + self.vector_bytes
        with fields.blaming("unknown client", Phase.MASK):
            payload = self._payload(Kind.UPLOAD, data, most=4 + self.max_header_bytes + ALIGNMENT + rest)
            size = int.from_bytes(payload[:4], "big")
            begin = 4 + size + _padding(size)
            if size > self.max_header_bytes or len(payload) != begin + rest:
                raise IntegrityError("upload: its parts are not as long as this session's")
            if any(payload[4 + size : begin]):
                raise IntegrityError("upload: expected zeros behind the header")
            header = bytes(payload[4 : 4 + size])
            client = sender_of(header)
        # A copy of the shares alone: views of the message would keep every vector in memory.
        sealed_all = memoryview(bytes(payload[begin : len(payload) - self.vector_bytes]))
        shares = tuple(
            sealed_all[start : start + self.sealed_bytes] for start in range(0, len(sealed_all), self.sealed_bytes)
        )
        vector = payload[len(payload) - self.vector_bytes :]
        with fields.blaming(fields.client_name(client), Phase.MASK):
            body = self.read_header(header, client=client)
            if blake3(vector).digest() != body["vector"]:
                raise IntegrityError("vector: not the one whose hash was signed")
            for member, sealed, expected in zip(self._members, shares, body["shares"], strict=True):
                if _sha256(sealed) != expected:
                    raise IntegrityError(f"share of member {member}: not the one whose hash was signed")
        return Upload(client=client, header=header, shares=shares, vector=vector)

    def read_header(self, header: bytes, *, client: int) -> Body:
        """The body of this client's signed header.

        Raises:
            IntegrityError: not signed by this client, or a field differs from this session's; names it.
        """
        if client not in self.session.roster:
            raise IntegrityError("not on the roster")
        key = self.session.roster[client]
        body = self._maps.read("upload", header, sender=client, key=key, agreed=self._agreed)
        fields.expect_fields(body, *self._agreed, "shares", "vector")
        fields.octets(body, "vector", size=HASH_BYTES)
        hashes = fields.messages(body, "shares", most=len(self._members))
        if len(hashes) != len(self._members) or any(len(one) != HASH_BYTES for one in hashes):
            raise IntegrityError("shares: expected one hash for each member of the committee")
        return body

    def write_announcement(self, announced: Announcement) -> bytes:
        """What the server asks one member to release."""
        body: Body = {
            "challenge": announced.challenge,
            "dropped": [*announced.dropped],
            "headers": [[number, announced.headers[number]] for number in sorted(announced.headers)],
            "previous": announced.previous,
            "receiver": announced.receiver,
            "shares": fields.pairs(announced.shares),
        }
        return _frame(Kind.ANNOUNCEMENT, canonical.encode(body))

    def read_announcement(self, data: bytes) -> Announcement:
        """The server's question, well formed but not yet believed.

        Raises:
            ProtocolError: malformed.
        """
        clients = len(self.session.roster)
        with fields.blaming(SERVER, Phase.CONFIRM):
            most = 4096 + clients * (self.max_header_bytes + self.sealed_bytes + 64)
            body = decode_map(self._payload(Kind.ANNOUNCEMENT, data, most=most))
            fields.expect_fields(body, "challenge", "dropped", "headers", "previous", "receiver", "shares")
            return Announcement(
                headers=fields.entries(body, "headers", most=self.max_header_bytes),
                shares=fields.entries(body, "shares", size=self.sealed_bytes),
                dropped=fields.numbers(body, "dropped"),
                previous=fields.octets(body, "previous", size=HASH_BYTES),
                challenge=fields.octets(body, "challenge", size=HASH_BYTES),
                receiver=fields.integer(body, "receiver"),
            )

    def transcript(self, announced: Announcement) -> bytes:
        """32 bytes that stand for the session, whose vectors are summed and what they and their shares are."""
        sets = canonical.encode(
            {
                "alive": [[number, _sha256(announced.headers[number])] for number in sorted(announced.headers)],
                "challenge": announced.challenge,
                "dropped": [*announced.dropped],
            }
        )
        tag = domain_tag("secagg/rlwe/transcript", self.binding, sets, announced.previous)
        return hashlib.sha256(tag).digest()

    def write_member(self, kind: Kind, body: Body, *, member: int, signer: SignerPrivateKey) -> bytes:
        """A member's signed message."""
        return _frame(kind, self.sign_map(kind, body, sender=member, signer=signer))

    def read_member(self, kind: Kind, data: bytes) -> Signed:
        """A member's message.

        Raises:
            ProtocolError: malformed, another session's, or not signed by the member that it names.
        """
        with fields.blaming("unknown member", STEP[kind]):
            checks = 2 * HASH_BYTES + ELEMENT_BYTES * (
                self.session.share_columns + DEALER_CHECKS * len(self.session.roster)
            )
            content = bytes(self._payload(kind, data, most=4096 + MAX_SIGNATURE_BYTES + checks))
            member = sender_of(content)
            if member not in self.session.committee.members:
                raise IntegrityError(f"member {member} is not in the committee")
        with fields.blaming(member_name(member), STEP[kind]):
            key = self.session.committee.members[member].signer
            body = self._maps.read(kind.name.lower(), content, sender=member, key=key)
            return Signed(member=member, body=body)

    def write_confirmations(self, messages: Sequence[bytes]) -> bytes:
        """The members' confirmations, for each other."""
        return _frame(Kind.CONFIRMATIONS, canonical.encode({"confirmations": list(messages)}))

    def read_confirmations(self, data: bytes) -> list[bytes]:
        """The confirmations, not yet verified. Raises ``ProtocolError`` when malformed."""
        members = len(self._members)
        with fields.blaming(SERVER, Phase.REVEAL):
            most = 4096 + members * (8192 + MAX_SIGNATURE_BYTES)
            body = decode_map(self._payload(Kind.CONFIRMATIONS, data, most=most))
            fields.expect_fields(body, "confirmations")
            return fields.messages(body, "confirmations", most=members)

    def sign_map(self, kind: Kind, body: Body, *, sender: int, signer: SignerPrivateKey) -> bytes:
        """A map and its signature for this session and kind."""
        return self._maps.write(kind.name.lower(), body, sender=sender, signer=signer)

    def _payload(self, kind: Kind, data: bytes, *, most: int) -> memoryview:
        found, payload = frames.view(data, magic=MAGIC, version=FRAME_VERSION, max_bytes=most)
        if found != kind:
            came = next((one.name.lower() for one in Kind if one == found), f"unknown kind {found}")
            raise IntegrityError(f"expected the message {kind.name.lower()}, got {came}")
        return payload


def member_name(number: int) -> str:
    """How an error names a member of the committee."""
    return f"member {number}"


def _padding(header_bytes: int) -> int:
    return -(frames.HEADER_BYTES + 4 + header_bytes) % ALIGNMENT


def _frame(kind: Kind, payload: bytes) -> bytes:
    return frames.encode(frames.Frame(magic=MAGIC, version=FRAME_VERSION, kind=kind, payload=payload))


def _sha256(data: bytes | memoryview) -> bytes:
    return hashlib.sha256(data).digest()
