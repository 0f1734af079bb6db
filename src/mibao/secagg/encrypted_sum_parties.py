"""Client, aggregator and key holder of an encrypted sum: bytes in, bytes out.

Source: ``docs/spec/secagg.md``, section 16.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import NoReturn

import numpy as np
from jaxtyping import UInt64
from numpy import ndarray

from mibao.crypto.kdf import domain_tag
from mibao.crypto.keys import SignerPrivateKey
from mibao.errors import InputError, IntegrityError, ProtocolError
from mibao.events import SecureSumReleased
from mibao.secagg import encrypted_sum as steps
from mibao.secagg import engine_bfv
from mibao.secagg import message_fields as fields
from mibao.secagg.encrypted_sum import HolderFormat, HolderSession, Kind
from mibao.secagg.journal import Journal
from mibao.secagg.masking import Phase, SecureSum
from mibao.types import MaskingScheme

AGGREGATOR = "aggregator"


class EncryptedSumClient:
    """A :class:`~mibao.secagg.masking.MaskingClient` of one message; a resend has the same bytes.

    Args:
        session: The round.
        number: This client's place on the roster.
        signer: Its signing key.
        vector: ``session.length`` numbers of ``session.input_bits``, modulo ``2**session.modulus_bits``.
        key_message: The holder's signed public key.
        journal: What this client sent before.
        now: The time, in Unix seconds.

    Raises:
        InputError: the number is not on the roster, the key is not the one pinned there, or the vector does not fit.
        ProtocolError: the public key is not signed by the pinned holder for this session.
        MissingExtra: seal-python is not installed.
    """

    def __init__(
        self,
        session: HolderSession,
        *,
        number: int,
        signer: SignerPrivateKey,
        vector: UInt64[ndarray, " d"],
        key_message: bytes,
        journal: Journal,
        now: Callable[[], float],
    ) -> None:
        if session.roster.get(number) != signer.public:
            raise InputError(f"client {number}: expected the signing key that the roster pins for it")
        self._session, self._number, self._signer = session, number, signer
        self._blocks = steps.to_blocks(session, vector)
        self._format = HolderFormat(session)
        self._key = self._format.read_key(key_message)
        self._engine = engine_bfv.engine_for(session.plain_bits)
        self._journal, self._now = journal, now
        self._phase = Phase.MASK

    def __repr__(self) -> str:
        return f"<EncryptedSumClient {self._number}, round {self._session.round}, {self._phase.value}>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a client of a secure sum cannot be pickled or copied")

    @property
    def phase(self) -> Phase:
        """``MASK`` before the one message, ``CLOSED`` after it."""
        return self._phase

    def start(self) -> bytes:
        """The one message. Raises ``ProtocolError`` when called again or after the round has expired."""
        if self._phase is not Phase.MASK:
            raise ProtocolError(f"client {self._number}, step mask: started twice")
        self._phase = Phase.CLOSED
        if self._now() > self._session.expires_s:
            raise ProtocolError(f"client {self._number}, step mask: the round has expired")
        place = _place(self._session, self._number)
        name = domain_tag("secagg/encrypted/sent", place)
        return self._journal.find(name) or self._journal.record(name, self._message())

    def answer(self, message: bytes) -> NoReturn:
        """Raises ``ProtocolError``: nothing is asked of a client of this scheme."""
        raise ProtocolError(f"{AGGREGATOR}, step {self._phase.value}: client {self._number} has nothing to answer")

    def _message(self) -> bytes:
        with fields.blaming("key holder", Phase.ADVERTISE):
            encrypted = self._engine.encrypt(self._key, self._blocks)
        body = {
            **self._format.agreed,
            "key": hashlib.sha256(self._key).digest(),
            "vector": hashlib.sha256(encrypted).digest(),
        }
        header = self._format.maps.write("upload", body, sender=self._number, signer=self._signer)
        return self._format.frame(Kind.UPLOAD, len(header).to_bytes(4, "big") + header + encrypted)


class KeyHolder:
    """Who holds the key of one round, and decrypts one sum of at least ``min_clients`` vectors.

    The key lives in this object only: a holder that is restarted has none, and the round is run again.

    Args:
        session: The round.
        signer: The holder's signing key.
        journal: Which transcript it decrypted before.
        now: The time, in Unix seconds.

    Raises:
        InputError: the key is not the one pinned for the holder.
        MissingExtra: seal-python is not installed.
    """

    def __init__(
        self, session: HolderSession, *, signer: SignerPrivateKey, journal: Journal, now: Callable[[], float]
    ) -> None:
        if session.holder[1] != signer.public:
            raise InputError("key holder: expected the signing key that the session pins for it")
        self._session, self._signer, self._journal, self._now = session, signer, journal, now
        self._format = HolderFormat(session)
        self._engine = engine_bfv.engine_for(session.plain_bits)
        self._secret, self._public = self._engine.generate()

    def __repr__(self) -> str:
        return f"<KeyHolder, round {self._session.round}>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a key holder cannot be pickled or copied")

    def key_message(self) -> bytes:
        """The public key of this round, signed, for the clients."""
        body = {**self._format.agreed, "key": self._public}
        content = self._format.maps.write("key", body, sender=self._session.holder[0], signer=self._signer)
        return self._format.frame(Kind.KEY, content)

    def answer(self, message: bytes) -> bytes:
        """The decrypted sum, signed.

        Raises:
            ProtocolError: the request is not signed by the pinned aggregator, holds too few clients' signatures or
                lists that do not fit, or another sum was decrypted in this round.
        """
        session, form = self._session, self._format
        if self._now() > session.expires_s:
            raise ProtocolError(f"{AGGREGATOR}, step reveal: the round has expired")
        with fields.blaming(AGGREGATOR, Phase.REVEAL):
            body, total = steps.read_request(form, message)
            self._check(body)
            if hashlib.sha256(total).digest() != fields.octets(body, "sum", size=steps.HASH_BYTES):
                raise IntegrityError("sum: not the one whose hash was signed")
            transcript = form.transcript(body)
            place = domain_tag("secagg/encrypted/decrypted", _place(session, session.holder[0]))
            if self._journal.record(place, transcript) != transcript:
                raise IntegrityError("another sum was decrypted in this round")
            residues = engine_bfv.unpack(total, prime=self._engine.prime)
            blocks = self._engine.decrypt(self._secret, residues)
        values = steps.from_blocks(session, blocks, plain_modulus=self._engine.plain_modulus)
        answer = {"sum": values.astype("<u8").tobytes(), "transcript": transcript}
        signed = form.maps.write("answer", answer, sender=session.holder[0], signer=self._signer)
        return form.frame(Kind.ANSWER, signed)

    def _check(self, body: fields.Body) -> None:
        headers = fields.entries(body, "headers", most=steps.MAX_HEADER_BYTES)
        dropped = fields.numbers(body, "dropped")
        if not headers.keys().isdisjoint(dropped) or headers.keys() | set(dropped) != self._session.roster.keys():
            raise IntegrityError("alive and dropped are not disjoint and together the roster")
        if len(headers) < self._session.min_clients:
            raise IntegrityError(f"expected at least {self._session.min_clients} clients alive, got {len(headers)}")
        for client, header in headers.items():
            with fields.blaming(fields.client_name(client), Phase.REVEAL):
                if self._format.read_header(header, client=client)["key"] != hashlib.sha256(self._public).digest():
                    raise IntegrityError("encrypted to another key")


class EncryptedSumServer:
    """The aggregator, a :class:`~mibao.secagg.masking.MaskingServer`: adds ciphertexts, which it cannot open.

    Args:
        session: The round.
        signer: The aggregator's signing key: it answers for what it asks the holder to decrypt.
        now: The time, in Unix seconds.

    Raises:
        InputError: the key is not the one pinned for the aggregator.
        MissingExtra: seal-python is not installed.
    """

    def __init__(self, session: HolderSession, *, signer: SignerPrivateKey, now: Callable[[], float]) -> None:
        if session.aggregator[1] != signer.public:
            raise InputError("aggregator: expected the signing key that the session pins for it")
        self._session, self._signer, self._now = session, signer, now
        self._format = HolderFormat(session)
        self._prime = engine_bfv.engine_for(session.plain_bits).prime
        self._phase = Phase.MASK
        self._total = np.zeros((session.blocks, 2 * engine_bfv.SLOTS), dtype=np.uint64)
        self._headers: dict[int, bytes] = {}
        self._received_bytes = 0
        self._transcript = b""
        self._sum: UInt64[ndarray, " d"] | None = None

    @property
    def phase(self) -> Phase:
        """The messages this server collects now: of clients at ``MASK``, of the holder at ``REVEAL``."""
        return self._phase

    @property
    def awaited(self) -> tuple[int, ...]:
        """Whose message of this phase has not come."""
        if self._phase is Phase.MASK:
            return tuple(number for number in self._session.roster if number not in self._headers)
        return () if self._sum is not None else (self._session.holder[0],)

    def receive(self, message: bytes) -> int:
        """Take in one message and return whose it is; the same bytes again change nothing.

        Raises:
            ProtocolError: the message breaks a rule; it is not counted and changes nothing.
        """
        if self._phase is Phase.CLOSED or self._now() > self._session.expires_s:
            raise ProtocolError(f"{AGGREGATOR}, step {self._phase.value}: the session takes no more messages")
        if self._phase is Phase.REVEAL:
            return self._take_answer(message)
        client, header, vector = self._format.read_upload(message)
        with fields.blaming(fields.client_name(client), Phase.MASK):
            if client in self._headers:
                if self._headers[client] == header:
                    return client
                raise IntegrityError("sent a second vector")
            residues = engine_bfv.unpack(vector, prime=self._prime)
        self._total += residues
        self._total %= np.uint64(self._prime)
        self._headers[client] = header
        self._received_bytes += len(message)
        return client

    def advance(self) -> Mapping[int, bytes]:
        """Close the clients' phase: what to send to the key holder.

        Raises:
            ProtocolError: too few clients are left; the session closes and no sum comes out.
        """
        if self._phase is not Phase.MASK:
            raise ProtocolError(f"{AGGREGATOR}, step {self._phase.value}: no phase to advance to")
        needed, dropped = self._session.min_clients, self.awaited
        if len(self._headers) < needed:
            self._phase = Phase.CLOSED
            missing = ", ".join(str(number) for number in dropped)
            raise ProtocolError(f"clients {missing}, step mask: no message; {len(self._headers)} of {needed} came")
        total = engine_bfv.pack(self._total)
        body: fields.Body = {
            "dropped": [*dropped],
            "headers": [[number, self._headers[number]] for number in sorted(self._headers)],
            "sum": hashlib.sha256(total).digest(),
        }
        self._transcript = self._format.transcript(body)
        signed = self._format.maps.write("request", body, sender=self._session.aggregator[0], signer=self._signer)
        self._phase = Phase.REVEAL
        message = self._format.frame(Kind.REQUEST, len(signed).to_bytes(4, "big") + signed + total)
        return {self._session.holder[0]: message}

    def release(self) -> SecureSum:
        """The sum, once the holder has answered; the session closes.

        Raises:
            ProtocolError: it has not.
        """
        if self._phase is not Phase.REVEAL or self._sum is None:
            raise ProtocolError(f"{AGGREGATOR}, step {self._phase.value}: no sum to release yet, or no more")
        self._phase = Phase.CLOSED
        session, survivors = self._session, tuple(sorted(self._headers))
        event = SecureSumReleased(
            session=session.session_id,
            scheme=MaskingScheme.ENCRYPTED,
            round=session.round,
            invited=len(session.roster),
            survivors=len(survivors),
            threshold=session.min_clients,
            length=session.length,
            modulus_bits=session.modulus_bits,
            upload_bytes=self._received_bytes,
        )
        return SecureSum(total=self._sum, survivors=survivors, upload_bytes=self._received_bytes, event=event)

    def _take_answer(self, message: bytes) -> int:
        number, key = self._session.holder
        size = 8 * self._session.length
        with fields.blaming("key holder", Phase.REVEAL):
            content = bytes(self._format.payload(Kind.ANSWER, message, most=size + steps.MAX_HEADER_BYTES))
            body = self._format.maps.read("answer", content, sender=number, key=key)
            fields.expect_fields(body, "sum", "transcript")
            if fields.octets(body, "transcript", size=steps.HASH_BYTES) != self._transcript:
                raise IntegrityError("decrypted another sum")
            self._sum = np.frombuffer(fields.octets(body, "sum", size=size), dtype="<u8").astype(np.uint64)
        return number


def _place(session: HolderSession, number: int) -> bytes:
    return session.session_id.value + session.round.to_bytes(4, "big") + number.to_bytes(4, "big")
