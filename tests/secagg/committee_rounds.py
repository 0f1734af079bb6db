"""One round of the one-shot scheme with a small committee, opened at any step."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from mibao.codec import canonical
from mibao.crypto.keys import RecipientPrivateKey, RecipientSuite, SignerPrivateKey, generate_recipient
from mibao.secagg.journal import Journal, MemoryJournal
from mibao.secagg.masking import Trust
from mibao.secagg.masking_rlwe import NO_TRANSCRIPT, Committee, CommitteeSession, Member
from mibao.secagg.masking_rlwe_client import RlweClient
from mibao.secagg.masking_rlwe_member import CommitteeMember
from mibao.secagg.masking_rlwe_messages import Announcement, Kind, RlweFormat
from mibao.secagg.masking_rlwe_server import RlweServer
from mibao.secagg.rlwe_parameters import ParameterSet
from mibao.types import RandomId
from secagg.rounds import Stream, signer

NOW = 1_800_000_000
FIRST_MEMBER = 1000


def member_signer(number: int) -> SignerPrivateKey:
    return signer(number)


def member_recipient(number: int) -> RecipientPrivateKey:
    return generate_recipient(RecipientSuite.MLKEM768_X25519, hashlib.sha256(b"member %d" % number).digest())


def committee(size: int = 5, *, corrupt: int = 1, packing: int = 2) -> Committee:
    numbers = range(FIRST_MEMBER, FIRST_MEMBER + size)
    members = {n: Member(signer=member_signer(n).public, recipient=member_recipient(n).public) for n in numbers}
    return Committee(members=members, corrupt=corrupt, packing=packing)


SMALL = committee()


class CommitteeRound:
    """Clients 0 to ``clients`` - 1, their keys and vectors, five members, and the server."""

    def __init__(
        self,
        clients: int = 4,
        *,
        trust: Trust = Trust.MALICIOUS_SERVER,
        parameters: ParameterSet = ParameterSet.RLWE_2048_32,
        committee: Committee = SMALL,
        min_clients: int = 2,
        length: int = 20,
        input_bits: int = 16,
        round_number: int = 3,
        seed: int = 1,
        previous: bytes = NO_TRANSCRIPT,
        now: Callable[[], float] = lambda: NOW,
    ) -> None:
        self.signers = {number: signer(number) for number in range(clients)}
        self.session = CommitteeSession(
            session_id=RandomId(b"0123456789abcdef"),
            round=round_number,
            roster={number: key.public for number, key in self.signers.items()},
            committee=committee,
            parameters=parameters,
            trust=trust,
            min_clients=min_clients,
            length=length,
            input_bits=input_bits,
            expires_s=NOW + 60,
        )
        values = np.random.default_rng(seed)
        self.vectors = {n: values.integers(0, 1 << input_bits, length, dtype=np.uint64) for n in self.signers}
        self.randomness, self.now, self.previous = Stream(seed), now, previous
        self.format = RlweFormat(self.session)
        self.journals: dict[int, Journal] = {}
        self.server = RlweServer(self.session, randomness=self.randomness(32), now=now, previous=previous)
        self.members = {number: self.member(number) for number in committee.members}

    def client(self, number: int, /, **changes: Any) -> RlweClient:
        given = {
            "session": self.session,
            "number": number,
            "signer": self.signers[number],
            "vector": self.vectors[number],
            "randomness": self.randomness(64),
            "journal": MemoryJournal(),
            "now": self.now,
        }
        given.update(changes)
        return RlweClient(given.pop("session"), **given)

    def member(self, number: int, /, **changes: Any) -> CommitteeMember:
        given = {
            "session": self.session,
            "number": number,
            "signer": member_signer(number),
            "recipient": member_recipient(number),
            "journal": self.journals.setdefault(number, MemoryJournal()),
            "now": self.now,
            "previous": self.previous,
        }
        given.update(changes)
        return CommitteeMember(given.pop("session"), **given)

    def uploads(self, *, without: tuple[int, ...] = ()) -> dict[int, bytes]:
        return {number: self.client(number).start() for number in self.signers if number not in without}

    def collect(self, *, without: tuple[int, ...] = ()) -> dict[int, bytes]:
        """Take in everybody's upload and return the announcements, not yet delivered."""
        for message in self.uploads(without=without).values():
            self.server.receive(message)
        return dict(self.server.advance())

    def answers(self, incoming: Mapping[int, bytes], *, silent: tuple[int, ...] = ()) -> dict[int, bytes]:
        """Deliver to the members and take in what they say."""
        sent = {n: self.members[n].answer(message) for n, message in incoming.items() if n not in silent}
        for message in sent.values():
            self.server.receive(message)
        return sent

    def finish(self, announcements: Mapping[int, bytes], *, silent: tuple[int, ...] = ()) -> np.ndarray:
        """Play on from the announcements and return the sum."""
        self.answers(announcements, silent=silent)
        if self.session.trust is Trust.MALICIOUS_SERVER:
            self.answers(self.server.advance())
        return self.server.release().total

    def announcement(self, message: bytes, **changes: Any) -> bytes:
        """The same announcement with parts replaced."""
        return self.format.write_announcement(replace(self.format.read_announcement(message), **changes))

    def read(self, message: bytes) -> Announcement:
        return self.format.read_announcement(message)

    def sum_of(self, numbers: tuple[int, ...]) -> np.ndarray:
        total = sum((self.vectors[number] for number in numbers), start=np.zeros(self.session.length, dtype=np.uint64))
        return total & np.uint64((1 << self.session.modulus_bits) - 1)

    def header_body(self, header: bytes) -> dict[str, Any]:
        envelope: Any = canonical.decode(header, max_bytes=1 << 20)
        body: Any = canonical.decode(envelope["body"], max_bytes=1 << 20)
        return dict(body)

    def forge_header(self, header: bytes, *, client: int, **changes: Any) -> bytes:
        """A header with fields replaced, signed again by its client."""
        body = {**self.header_body(header), **changes}
        return self.format.sign_map(Kind.UPLOAD, body, sender=client, signer=self.signers[client])

    def forge_release(self, message: bytes, member: int, change: Callable[[dict[str, Any]], None]) -> bytes:
        """A member's release with a changed body, signed again."""
        body = self.format.read_member(Kind.RELEASE, message).body
        change(body)
        return self.format.write_member(Kind.RELEASE, body, member=member, signer=member_signer(member))


def with_part(message: bytes, old: bytes, new: bytes) -> bytes:
    """An upload with one part replaced; its length in the frame is put right."""
    content = message[10:].replace(old, new, 1)
    return message[:6] + len(content).to_bytes(4, "big") + content
