"""The server of the one-shot scheme: it adds up what clients send and asks the committee for one sum of secrets.

Source: ``docs/spec/secagg.md``, section 12.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Int64, UInt64
from numpy import ndarray

from mibao.crypto import kdf
from mibao.errors import InputError, IntegrityError, ProtocolError
from mibao.events import SecureSumReleased
from mibao.secagg import masking_rlwe as steps
from mibao.secagg import message_fields as fields
from mibao.secagg import packed_sharing
from mibao.secagg.masking import Phase, SecureSum, Trust
from mibao.secagg.masking_rlwe import NO_TRANSCRIPT, CommitteeSession, MaskedSum
from mibao.secagg.masking_rlwe_member import check_confirmation
from mibao.secagg.masking_rlwe_messages import ELEMENT_BYTES, Announcement, Kind, RlweFormat, member_name
from mibao.types import MaskingScheme

SERVER_RANDOMNESS_BYTES = 32


class RlweServer:
    """A :class:`~mibao.secagg.masking.MaskingServer`; after the clients' phase its peers are the committee.

    Args:
        session: The round.
        randomness: 32 fresh random bytes, for the challenge to dealers and to find wrong members.
        now: The time, in Unix seconds.
        previous: The transcript of the round before; zeros for the first.

    Raises:
        InputError: the randomness is of another length.
    """

    def __init__(
        self,
        session: CommitteeSession,
        *,
        randomness: bytes,
        now: Callable[[], float],
        previous: bytes = NO_TRANSCRIPT,
    ) -> None:
        if len(randomness) != SERVER_RANDOMNESS_BYTES:
            raise InputError(f"server: expected {SERVER_RANDOMNESS_BYTES} random bytes, got {len(randomness)}")
        self._session, self._randomness, self._now, self._previous = session, randomness, now, previous
        self._format = RlweFormat(session)
        self._phase = Phase.MASK
        self._sum = MaskedSum(session)
        self._headers: dict[int, bytes] = {}
        self._shares: dict[int, tuple[memoryview, ...]] = {}
        self._due: tuple[int, ...] = tuple(session.roster)
        self._came: dict[int, bytes] = {}
        self._dropped: tuple[int, ...] = ()
        self._transcript = NO_TRANSCRIPT
        self._answers: dict[int, tuple[UInt64[ndarray, " columns"], UInt64[ndarray, "clients checks"]]] = {}
        self._received_bytes = 0
        self._wrong: tuple[int, ...] = ()
        self._disputes: tuple[tuple[int, int], ...] = ()

    @property
    def phase(self) -> Phase:
        """The messages this server collects now: of clients at ``MASK``, of members afterwards."""
        return self._phase

    @property
    def awaited(self) -> tuple[int, ...]:
        """Clients or members whose message of this phase has not come."""
        return tuple(number for number in self._due if number not in self._came)

    @property
    def transcript(self) -> bytes:
        """What the committee was asked to confirm; the next round's ``previous``."""
        return self._transcript

    @property
    def wrong_members(self) -> tuple[int, ...]:
        """Members whose wrong answers were found and left out of the sum."""
        return self._wrong

    @property
    def disputes(self) -> tuple[tuple[int, int], ...]:
        """Pairs (member, client) of which one is false: the member's answer, or the share that the client dealt it."""
        return self._disputes

    def receive(self, message: bytes) -> int:
        """Take in one message and return the number of the client or member; the same bytes again change nothing.

        Raises:
            ProtocolError: the message breaks a rule; it is not counted and changes nothing.
        """
        if self._phase is Phase.CLOSED:
            raise ProtocolError("unknown client, step closed: the session takes no more messages")
        if self._now() > self._session.expires_s:
            raise ProtocolError(f"server, step {self._phase.value}: the round has expired")
        if self._phase is Phase.MASK:
            return self._take_upload(message)
        kind = Kind.CONFIRMATION if self._phase is Phase.CONFIRM else Kind.RELEASE
        signed = self._format.read_member(kind, message)
        with fields.blaming(member_name(signed.member), self._phase):
            check_confirmation(signed.body, self._transcript)
            if signed.member in self._came:
                if self._came[signed.member] == message:
                    return signed.member
                raise IntegrityError("sent two different answers")
            if kind is Kind.RELEASE:
                self._answers[signed.member] = self._read_release(signed.body)
        self._came[signed.member] = message
        return signed.member

    def advance(self) -> Mapping[int, bytes]:
        """Close the phase: what to send to which member. Whoever has sent nothing counts as dropped.

        Raises:
            ProtocolError: too few clients or members are left; the session closes and no sum comes out.
        """
        members = tuple(self._session.committee.members)
        if self._phase is Phase.MASK:
            self._check_enough(self._session.min_clients)
            outgoing = self._announce(members)
            honest = self._session.trust is Trust.HONEST_SERVER
            self._phase, self._due = (Phase.REVEAL if honest else Phase.CONFIRM), members
        elif self._phase is Phase.CONFIRM:
            self._check_enough(self._session.committee.quorum)
            message = self._format.write_confirmations([self._came[number] for number in sorted(self._came)])
            outgoing = dict.fromkeys(sorted(self._came), message)
            self._phase, self._due = Phase.REVEAL, tuple(outgoing)
        else:
            raise ProtocolError(f"server, step {self._phase.value}: no phase to advance to")
        self._came = {}
        return outgoing

    def release(self) -> SecureSum:
        """The sum, once enough members have released; the session closes.

        Raises:
            ProtocolError: too few have, or their answers do not fit together; names who is at fault where it shows.
        """
        if self._phase is not Phase.REVEAL:
            raise ProtocolError(f"server, step {self._phase.value}: no sum to release yet, or no more")
        self._check_enough(self._session.committee.sharing.dimension)
        self._phase = Phase.CLOSED
        session, survivors = self._session, tuple(sorted(self._headers))
        secrets = self._secrets().reshape(session.secrets, -1)
        total = steps.unmask(session, self._sum.total(), secrets)
        event = SecureSumReleased(
            session=session.session_id,
            scheme=MaskingScheme.RLWE,
            round=session.round,
            invited=len(session.roster),
            survivors=len(survivors),
            threshold=session.committee.quorum,
            length=session.length,
            modulus_bits=session.modulus_bits,
            upload_bytes=self._received_bytes,
        )
        return SecureSum(total=total, survivors=survivors, upload_bytes=self._received_bytes, event=event)

    def _take_upload(self, message: bytes) -> int:
        upload = self._format.read_upload(message)
        if upload.client in self._came:
            if self._headers[upload.client] == upload.header:
                return upload.client
            raise ProtocolError(f"{fields.client_name(upload.client)}, step mask: sent a second vector")
        self._sum.add(upload.vector)
        self._headers[upload.client] = upload.header
        self._shares[upload.client] = upload.shares
        self._came[upload.client] = b""
        self._received_bytes += len(message)
        return upload.client

    def _announce(self, members: tuple[int, ...]) -> dict[int, bytes]:
        self._dropped = self.awaited
        challenge = kdf.derive(self._randomness, purpose="secagg/rlwe/challenge")
        outgoing = {}
        for place, member in enumerate(members):
            announced = Announcement(
                headers=self._headers,
                shares={client: bytes(shares[place]) for client, shares in self._shares.items()},
                dropped=self._dropped,
                previous=self._previous,
                challenge=challenge,
                receiver=member,
            )
            outgoing[member] = self._format.write_announcement(announced)
        self._transcript = self._format.transcript(announced)
        self._shares = {}
        return outgoing

    def _read_release(self, body: fields.Body) -> tuple[UInt64[ndarray, " columns"], UInt64[ndarray, "clients checks"]]:
        fields.expect_fields(body, "checks", "sums", "transcript")
        columns, clients = self._session.share_columns, len(self._headers)
        sums = fields.octets(body, "sums", size=ELEMENT_BYTES * columns)
        checks = fields.octets(body, "checks", size=ELEMENT_BYTES * steps.DEALER_CHECKS * clients)
        found = tuple(np.frombuffer(data, dtype="<u4").astype(np.uint64) for data in (sums, checks))
        if any(int(values.max()) >= packed_sharing.PRIME for values in found):
            raise IntegrityError("expected numbers below the prime")
        return found[0], found[1].reshape(clients, steps.DEALER_CHECKS)

    def _secrets(self) -> Int64[ndarray, " n"]:
        """The sum of the clients' secrets, with wrong members left out and false dealers named."""
        packing, members = self._session.committee.sharing, list(self._session.committee.members)
        holders = tuple(members.index(number) + 1 for number in sorted(self._answers))
        shares = np.stack([self._answers[number][0] for number in sorted(self._answers)])
        weights = packed_sharing.field_elements(self._secret_seed(), shares.shape[1])
        false_dealers = self._check_dealers(holders)
        try:
            wrong = packed_sharing.wrong_holders(shares, holders, packing=packing, weights=weights)
        except IntegrityError as error:
            raise _misfit(false_dealers) from error
        if false_dealers:
            raise _misfit(false_dealers)
        disputed = {member for member, _ in self._disputes}
        self._wrong = tuple(members[place - 1] for place in sorted(wrong) if members[place - 1] not in disputed)
        kept = [index for index, place in enumerate(holders) if place not in wrong]
        right = tuple(holders[index] for index in kept)
        return packed_sharing.reconstruct(shares[kept], right, packing=packing)

    def _check_dealers(self, holders: tuple[int, ...]) -> tuple[int, ...]:
        """Clients whose shares lie on no polynomial; where single answers are off, note the disputes."""
        members, packing = list(self._session.committee.members), self._session.committee.sharing
        answers = np.stack([self._answers[number][1] for number in sorted(self._answers)])
        flat = answers.reshape(len(holders), -1)
        fits = packed_sharing.lie_on_polynomials(flat, holders, packing=packing)
        weights = packed_sharing.field_elements(self._secret_seed(), steps.DEALER_CHECKS)
        false, disputes = [], []
        for place in np.flatnonzero(~fits.reshape(-1, steps.DEALER_CHECKS).all(axis=1)):
            client = sorted(self._headers)[place]
            try:
                off = packed_sharing.wrong_holders(answers[:, place], holders, packing=packing, weights=weights)
                disputes += [(members[holder - 1], client) for holder in sorted(off)]
            except IntegrityError:
                false.append(client)
        self._disputes = tuple(disputes)
        return tuple(false)

    def _secret_seed(self) -> bytes:
        return kdf.derive(self._randomness, purpose="secagg/rlwe/wrong-members")

    def _check_enough(self, needed: int) -> None:
        if len(self._came) < needed:
            step, self._phase = self._phase, Phase.CLOSED
            who = "clients" if step is Phase.MASK else "members"
            missing = ", ".join(str(number) for number in self.awaited)
            raise ProtocolError(f"{who} {missing}, step {step.value}: no message; {len(self._came)} of {needed} came")


def _misfit(dealers: tuple[int, ...]) -> ProtocolError:
    if dealers:
        named = ", ".join(str(number) for number in dealers)
        return ProtocolError(f"clients {named}, step mask: dealt shares that do not lie on a polynomial")
    return ProtocolError("committee, step reveal: more members answered wrongly than can be told apart")
