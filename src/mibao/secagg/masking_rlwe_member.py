"""One member of the committee in one round: it checks whose vectors are summed, records that, and releases one sum.

Source: ``docs/spec/secagg.md``, section 12.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NoReturn

import numpy as np
from jaxtyping import UInt64
from numpy import ndarray

from mibao.crypto import kdf, kem
from mibao.crypto.kdf import domain_tag
from mibao.crypto.keys import RecipientPrivateKey, SignerPrivateKey
from mibao.errors import InputError, IntegrityError, KeyMismatch, ProtocolError
from mibao.secagg import masking_rlwe as steps
from mibao.secagg import message_fields as fields
from mibao.secagg import packed_sharing
from mibao.secagg.journal import Journal
from mibao.secagg.masking import Phase, Trust
from mibao.secagg.masking_rlwe import NO_TRANSCRIPT, CommitteeSession
from mibao.secagg.masking_rlwe_messages import SERVER, Announcement, Kind, RlweFormat, member_name


class CommitteeMember:
    """A member's state machine. It cannot be printed open, pickled or copied.

    A member that is started again in the same round, with a journal that outlived it, answers the same question and
    refuses any other.

    Args:
        session: The round.
        number: This member's place in the committee.
        signer: Its signing key.
        recipient: The key that shares are sealed to.
        journal: What this member answered before.
        now: The time, in Unix seconds.
        previous: The transcript of the round before, as this member knows it; zeros for the first.

    Raises:
        InputError: the number is not in the committee, or a key is not the one pinned there.
    """

    def __init__(
        self,
        session: CommitteeSession,
        *,
        number: int,
        signer: SignerPrivateKey,
        recipient: RecipientPrivateKey,
        journal: Journal,
        now: Callable[[], float],
        previous: bytes = NO_TRANSCRIPT,
    ) -> None:
        pinned = session.committee.members.get(number)
        if pinned is None or pinned.signer != signer.public or pinned.recipient != recipient.public:
            raise InputError(f"member {number}: expected the two keys that the committee pins for it")
        self._session, self._number, self._signer, self._recipient = session, number, signer, recipient
        self._journal, self._now, self._previous = journal, now, previous
        self._format = RlweFormat(session)
        self._phase = Phase.CONFIRM
        self._transcript = NO_TRANSCRIPT
        self._release_body: fields.Body = {}

    def __repr__(self) -> str:
        return f"<CommitteeMember {self._number}, round {self._session.round}, {self._phase.value}>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a member of a committee cannot be pickled or copied")

    @property
    def phase(self) -> Phase:
        """The message this member sends next."""
        return self._phase

    @property
    def transcript(self) -> bytes | None:
        """What this member signed; the next round's ``previous``. ``None`` before."""
        return None if self._transcript == NO_TRANSCRIPT else self._transcript

    def answer(self, message: bytes) -> bytes:
        """The reply to the server's message of this phase.

        Raises:
            ProtocolError: the message is not the one due, breaks a rule, or asks about other vectors than this
                member answered for in this round; it closes.
        """
        if self._phase is Phase.CLOSED:
            raise ProtocolError(f"{SERVER}, step closed: {member_name(self._number)} has nothing to answer")
        phase, self._phase = self._phase, Phase.CLOSED
        if self._now() > self._session.expires_s:
            raise ProtocolError(f"{SERVER}, step {phase.value}: the round has expired")
        if phase is Phase.REVEAL:
            self._check_quorum(message)
            return self._send(Kind.RELEASE, self._release_body)
        announced = self._format.read_announcement(message)
        with fields.blaming(SERVER, phase):
            self._check_sets(announced)
            shares = self._open_shares(announced)
            self._record(self._format.transcript(announced))
        self._release_body = self._release(announced, shares)
        if self._session.trust is Trust.HONEST_SERVER:
            return self._send(Kind.RELEASE, self._release_body)
        self._phase = Phase.REVEAL
        return self._send(Kind.CONFIRMATION, {"transcript": self._transcript})

    def _check_sets(self, announced: Announcement) -> None:
        alive, dropped, session = announced.headers, announced.dropped, self._session
        if announced.receiver != self._number:
            raise IntegrityError("announcement: meant for another member")
        if announced.previous != self._previous:
            raise IntegrityError("previous: another transcript than this member's of the round before")
        if not alive.keys().isdisjoint(dropped):
            raise IntegrityError("a client is listed as alive and as dropped")
        if alive.keys() | set(dropped) != session.roster.keys():
            raise IntegrityError("alive and dropped are not together the roster")
        if len(alive) < session.min_clients:
            raise IntegrityError(f"expected at least {session.min_clients} clients alive, got {len(alive)}")
        if announced.shares.keys() != alive.keys():
            raise IntegrityError("expected one share from each client that is alive")

    def _open_shares(self, announced: Announcement) -> dict[int, UInt64[ndarray, " columns"]]:
        place = list(self._session.committee.members).index(self._number)
        opened = {}
        for client, header in announced.headers.items():
            with fields.blaming(fields.client_name(client), Phase.CONFIRM):
                body = self._format.read_header(header, client=client)
                sealed = announced.shares[client]
                if hashlib.sha256(sealed).digest() != body["shares"][place]:
                    raise IntegrityError("share: not the one whose hash was signed")
                opened[client] = self._open(client, sealed)
        return opened

    def _open(self, client: int, sealed: bytes) -> UInt64[ndarray, " columns"]:
        label = steps.share_label(self._session, self._format.binding, client=client, member=self._number)
        try:
            content = kem.open_once(self._recipient, sealed, info=label, associated_data=label)
        except KeyMismatch as error:
            raise IntegrityError("share: sealed for another round, client or member, or altered") from error
        values: UInt64[ndarray, " columns"] = np.frombuffer(content, dtype="<u4").astype(np.uint64)
        if int(values.max()) >= packed_sharing.PRIME:
            raise IntegrityError("share: expected numbers below the prime")
        return values

    def _record(self, transcript: bytes) -> None:
        session = self._session
        place = session.session_id.value + session.round.to_bytes(4, "big") + self._number.to_bytes(4, "big")
        if self._journal.record(domain_tag("secagg/rlwe/confirmed", place), transcript) != transcript:
            raise IntegrityError("this member has answered for other vectors in this round")
        self._transcript = transcript

    def _release(self, announced: Announcement, shares: dict[int, UInt64[ndarray, " columns"]]) -> fields.Body:
        columns = self._session.share_columns
        stacked = np.stack([shares[client] for client in sorted(shares)])
        sums = np.sum(stacked[:, :columns], axis=0) % np.uint64(packed_sharing.PRIME)
        weights = check_weights(announced.challenge, columns)
        checks = packed_sharing.combine_columns(stacked[:, :columns], weights) + stacked[:, columns:]
        checks %= np.uint64(packed_sharing.PRIME)
        return {
            "checks": checks.astype("<u4").tobytes(),
            "sums": sums.astype("<u4").tobytes(),
            "transcript": self._transcript,
        }

    def _check_quorum(self, message: bytes) -> None:
        confirmed: set[int] = set()
        for data in self._format.read_confirmations(message):
            signed = self._format.read_member(Kind.CONFIRMATION, data)
            with fields.blaming(member_name(signed.member), Phase.REVEAL):
                check_confirmation(signed.body, self._transcript)
            confirmed.add(signed.member)
        quorum = self._session.committee.quorum
        if len(confirmed) < quorum:
            raise ProtocolError(
                f"{SERVER}, step reveal: expected {quorum} members to have confirmed, got {len(confirmed)}"
            )

    def _send(self, kind: Kind, body: fields.Body) -> bytes:
        return self._format.write_member(kind, body, member=self._number, signer=self._signer)


def check_confirmation(body: fields.Body, transcript: bytes) -> None:
    """Raises ``IntegrityError`` unless a member's message is of this transcript."""
    if fields.octets(body, "transcript", size=len(transcript)) != transcript:
        raise IntegrityError("confirmed other vectors")


def check_weights(challenge: bytes, columns: int) -> UInt64[ndarray, "checks columns"]:
    """The random combinations in which every dealer's shares must lie on a polynomial."""
    seed = kdf.derive(challenge, purpose="secagg/rlwe/check")
    drawn = packed_sharing.field_elements(seed, steps.DEALER_CHECKS * columns)
    return drawn.reshape(steps.DEALER_CHECKS, columns)
