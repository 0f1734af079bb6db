"""A sum under encryption: clients encrypt to a key holder, the aggregator adds ciphertexts, the holder decrypts one.

The key belongs to a named party that is neither aggregator nor client: a key shared among clients opens everybody's
vector to each of them. What this takes is trust: the aggregator must not send the holder anything but the sum that
its signed transcript says, and the two must not conspire. The holder learns the sum.

Sources: Fan and Vercauteren, IACR ePrint 2012/144 (BFV); ``docs/spec/secagg.md``, section 16.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType

import numpy as np
from jaxtyping import Int64, UInt64
from numpy import ndarray

from mibao.codec import canonical, frames
from mibao.crypto.kdf import domain_tag
from mibao.crypto.keys import SignerPublicKey
from mibao.errors import InputError, IntegrityError
from mibao.secagg import engine_bfv
from mibao.secagg import message_fields as fields
from mibao.secagg.masking import MAX_CLIENT_NUMBER, MAX_CLIENTS, MAX_LENGTH, MAX_ROUND, TASK_HASH_BYTES, Phase
from mibao.secagg.message_fields import Body
from mibao.secagg.signed_maps import MAX_SIGNATURE_BYTES, SignedMaps, sender_of
from mibao.types import RandomId

MAGIC = b"mbSE"
VERSION = 1
HASH_BYTES = 32
MAX_KEY_BYTES = 1 << 16
MAX_HEADER_BYTES = 4096 + MAX_SIGNATURE_BYTES


class Kind(IntEnum):
    """Kinds of frames, in the order in which they are sent."""

    KEY = 1
    UPLOAD = 2
    REQUEST = 3
    ANSWER = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HolderSession:
    """One round; parties that differ in any field refuse each other's messages.

    Attributes:
        session_id: Names the training run or query.
        round: 0 or more; a resumed round has a new number.
        roster: Every invited client's number and pinned key.
        holder: The key holder's number and pinned key.
        aggregator: The aggregator's number and pinned key.
        min_clients: The fewest addends that the holder decrypts; at least 2.
        length: Elements of a vector.
        input_bits: Bits of an input, its sign among them.
        expires_s: Unix time after which nobody acts.
        task_hash: 32 bytes for whatever else must look alike to all.

    Raises:
        InputError: a value is out of range, one key or number stands twice, or sums do not fit.
    """

    session_id: RandomId
    round: int
    roster: Mapping[int, SignerPublicKey]
    holder: tuple[int, SignerPublicKey]
    aggregator: tuple[int, SignerPublicKey]
    min_clients: int
    length: int
    input_bits: int
    expires_s: int
    task_hash: bytes = bytes(TASK_HASH_BYTES)

    def __post_init__(self) -> None:
        clients = len(self.roster)
        for name, value, least, most in (
            ("clients", clients, 2, MAX_CLIENTS),
            ("min_clients", self.min_clients, 2, clients),
            ("round", self.round, 0, MAX_ROUND),
            ("length", self.length, 1, MAX_LENGTH),
            ("input_bits", self.input_bits, 1, engine_bfv.MAX_PLAIN_BITS),
            ("expiry", self.expires_s, 0, (1 << 63) - 1),
            *(
                ("number", number, 0, MAX_CLIENT_NUMBER)
                for number in (*self.roster, self.holder[0], self.aggregator[0])
            ),
        ):
            if not least <= value <= most:
                raise InputError(f"session: expected {name} of {least} to {most}, got {value}")
        if len(self.task_hash) != TASK_HASH_BYTES:
            raise InputError(f"session: expected a task hash of 32 bytes, got {len(self.task_hash)}")
        keys = {key.raw for key in (*self.roster.values(), self.holder[1], self.aggregator[1])}
        numbers = {*self.roster, self.holder[0], self.aggregator[0]}
        if len(keys) != clients + 2 or len(numbers) != clients + 2:
            raise InputError("session: expected a key holder and an aggregator that are no clients, and no key twice")
        _ = self.plain_bits
        object.__setattr__(self, "roster", MappingProxyType(dict(sorted(self.roster.items()))))

    @property
    def blocks(self) -> int:
        """Ciphertexts of one vector."""
        return -(-self.length // engine_bfv.SLOTS)

    @property
    def plain_bits(self) -> int:
        """Bits of BFV's plaintext modulus."""
        return engine_bfv.plain_bits(input_bits=self.input_bits, clients=len(self.roster), blocks=self.blocks)

    @property
    def modulus_bits(self) -> int:
        """Vectors and sums are modulo ``2**modulus_bits``."""
        return self.input_bits + (len(self.roster) - 1).bit_length()

    @property
    def ciphertext_bytes(self) -> int:
        """Bytes of one encrypted vector: 14 an element."""
        return self.blocks * engine_bfv.CIPHERTEXT_BYTES


class HolderFormat:
    """Writes and reads the messages of one session, and no other's."""

    def __init__(self, session: HolderSession) -> None:
        self.session = session
        self.agreed = agreed_fields(session)
        tag = domain_tag("secagg/encrypted/session", canonical.encode(self.agreed))
        self.binding = hashlib.sha256(tag).digest()
        self.maps = SignedMaps("secagg/encrypted", self.binding)

    def frame(self, kind: Kind, payload: bytes) -> bytes:
        """A message of this kind."""
        return frames.encode(frames.Frame(magic=MAGIC, version=VERSION, kind=kind, payload=payload))

    def payload(self, kind: Kind, data: bytes, *, most: int) -> memoryview:
        """What a message of this kind holds. Raises ``IntegrityError`` for another kind or a longer one."""
        found, payload = frames.view(data, magic=MAGIC, version=VERSION, max_bytes=most)
        if found != kind:
            raise IntegrityError(f"expected the message {kind.name.lower()}, got kind {found}")
        return payload

    def signed_and_rest(self, kind: Kind, data: bytes, *, most_signed: int, rest: int) -> tuple[bytes, memoryview]:
        """A signed map behind its length, and the bytes after it. Raises ``IntegrityError`` for other lengths."""
        payload = self.payload(kind, data, most=4 + most_signed + rest)
        size = int.from_bytes(payload[:4], "big")
        if size > most_signed or len(payload) != 4 + size + rest:
            raise IntegrityError(f"{kind.name.lower()}: its parts are not as long as this session's")
        return bytes(payload[4 : 4 + size]), payload[4 + size :]

    def read_key(self, data: bytes) -> bytes:
        """The holder's public key. Raises ``ProtocolError`` unless the pinned holder signed it for this session."""
        number, key = self.session.holder
        with fields.blaming("key holder", Phase.ADVERTISE):
            content = bytes(self.payload(Kind.KEY, data, most=MAX_KEY_BYTES + MAX_SIGNATURE_BYTES + 4096))
            body = self.maps.read("key", content, sender=number, key=key, agreed=self.agreed)
            fields.expect_fields(body, *self.agreed, "key")
            return fields.octets(body, "key")

    def read_upload(self, data: bytes) -> tuple[int, bytes, memoryview]:
        """A client's number, its signed header and its ciphertexts. Raises ``ProtocolError`` for a fault in them."""
        with fields.blaming("unknown client", Phase.MASK):
            header, vector = self.signed_and_rest(
                Kind.UPLOAD, data, most_signed=MAX_HEADER_BYTES, rest=self.session.ciphertext_bytes
            )
            client = sender_of(header)
        with fields.blaming(fields.client_name(client), Phase.MASK):
            body = self.read_header(header, client=client)
            if hashlib.sha256(vector).digest() != body["vector"]:
                raise IntegrityError("vector: not the one whose hash was signed")
        return client, header, vector

    def read_header(self, header: bytes, *, client: int) -> Body:
        """What a client signed. Raises ``IntegrityError`` unless it did, for this session."""
        if client not in self.session.roster:
            raise IntegrityError("not on the roster")
        key = self.session.roster[client]
        body = self.maps.read("upload", header, sender=client, key=key, agreed=self.agreed)
        fields.expect_fields(body, *self.agreed, "key", "vector")
        for name in ("key", "vector"):
            fields.octets(body, name, size=HASH_BYTES)
        return body

    def transcript(self, request: Body) -> bytes:
        """32 bytes for whose vectors are summed and the ciphertext of the sum."""
        alive = [[number, hashlib.sha256(header).digest()] for number, header in request["headers"]]
        content = canonical.encode({"alive": alive, "dropped": request["dropped"], "sum": request["sum"]})
        return hashlib.sha256(domain_tag("secagg/encrypted/transcript", self.binding, content)).digest()


def agreed_fields(session: HolderSession) -> dict[str, canonical.Value]:
    """What every party signs of the session, field by field."""
    roster: list[canonical.Value] = [[n, key.suite.value, key.raw] for n, key in session.roster.items()]
    return {
        "aggregator": [session.aggregator[0], session.aggregator[1].suite.value, session.aggregator[1].raw],
        "expiry": session.expires_s,
        "holder": [session.holder[0], session.holder[1].suite.value, session.holder[1].raw],
        "input_bits": session.input_bits,
        "length": session.length,
        "min_clients": session.min_clients,
        "roster": hashlib.sha256(domain_tag("secagg/encrypted/roster", canonical.encode(roster))).digest(),
        "round": session.round,
        "session": session.session_id.value,
        "task": session.task_hash,
        "version": VERSION,
    }


def to_blocks(session: HolderSession, vector: UInt64[ndarray, " d"]) -> Int64[ndarray, "blocks 2048"]:
    """The vector as signed or unsigned numbers of ``input_bits``, filled up with zeros.

    Raises:
        InputError: another length, or a number of more bits.
    """
    if vector.shape != (session.length,) or vector.dtype != np.uint64:
        raise InputError(
            f"vector: expected {session.length} elements of type uint64, got {vector.shape}, {vector.dtype}"
        )
    bits, modulus = session.input_bits, 1 << session.modulus_bits
    shifted = (vector + np.uint64(1 << (bits - 1))) & np.uint64(modulus - 1)
    if int(vector.max()) >= modulus or int(shifted.max()) >= (1 << bits) + (1 << (bits - 1)):
        raise InputError(f"vector: expected numbers of {bits} bits, modulo 2**{session.modulus_bits}")
    filled = np.zeros(session.blocks * engine_bfv.SLOTS, dtype=np.int64)
    filled[: session.length] = shifted.astype(np.int64) - (1 << (bits - 1))
    return filled.reshape(session.blocks, engine_bfv.SLOTS)


def from_blocks(
    session: HolderSession, blocks: Int64[ndarray, "blocks 2048"], *, plain_modulus: int
) -> UInt64[ndarray, " d"]:
    """A decrypted sum modulo ``2**modulus_bits``: from ``-2**(M - 1)`` up to ``2**M``, hence never ambiguous."""
    flat = blocks.ravel()[: session.length]
    signed = np.where(flat >= plain_modulus - (1 << (session.modulus_bits - 1)), flat - plain_modulus, flat)
    return signed.astype(np.uint64) & np.uint64((1 << session.modulus_bits) - 1)


def read_request(form: HolderFormat, data: bytes) -> tuple[Body, memoryview]:
    """The aggregator's signed request and the sum's ciphertexts.

    Raises:
        IntegrityError: malformed, or not signed by the pinned aggregator.
    """
    session = form.session
    most = 4096 + MAX_SIGNATURE_BYTES + len(session.roster) * (MAX_HEADER_BYTES + 64)
    signed, total = form.signed_and_rest(Kind.REQUEST, data, most_signed=most, rest=session.ciphertext_bytes)
    number, key = session.aggregator
    body = form.maps.read("request", signed, sender=number, key=key)
    fields.expect_fields(body, "dropped", "headers", "sum")
    return body, total
