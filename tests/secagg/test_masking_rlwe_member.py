"""A server that breaks the rules, alone or with corrupt members: what an honest member refuses."""

import copy
import dataclasses
import hashlib
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from mibao.crypto import kem
from mibao.errors import InputError, ProtocolError
from mibao.secagg import masking_rlwe as steps
from mibao.secagg.journal import MemoryJournal
from mibao.secagg.masking import MaskingMember, Phase, Trust
from mibao.secagg.masking_rlwe_messages import Kind
from secagg.committee_rounds import (
    FIRST_MEMBER,
    NOW,
    CommitteeRound,
    committee,
    member_recipient,
    member_signer,
)
from secagg.rounds import signer

FIRST = FIRST_MEMBER


def refused(made: CommitteeRound, message: bytes, error: str, *, number: int = FIRST) -> None:
    """The member refuses, closes, and has recorded and said nothing."""
    member = made.members[number]
    with pytest.raises(ProtocolError, match=error):
        member.answer(message)
    assert member.phase is Phase.CLOSED
    with pytest.raises(ProtocolError, match="has nothing to answer"):
        member.answer(message)


@pytest.mark.parametrize("trust", list(Trust))
@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda a: {"receiver": FIRST + 1}, "server, step confirm: announcement: meant for another member"),
        (lambda a: {"previous": b"p" * 32}, "previous: another transcript than this member's of the round before"),
        (lambda a: {"dropped": (0, 3)}, "server, step confirm: a client is listed as alive and as dropped"),
        (lambda a: {"dropped": ()}, "alive and dropped are not together the roster"),
        (lambda a: {"dropped": (3, 9)}, "alive and dropped are not together the roster"),
        (lambda a: {"shares": {n: s for n, s in a.shares.items() if n}}, "expected one share from each client"),
        (
            lambda a: {"headers": {0: a.headers[0]}, "shares": {0: a.shares[0]}, "dropped": (1, 2, 3)},
            "expected at least 2 clients alive, got 1",
        ),
        (lambda a: {"headers": {**a.headers, 0: a.headers[1]}}, "client 0, step confirm: signed by somebody else"),
        (
            lambda a: {"shares": {**a.shares, 0: a.shares[1]}},
            "client 0, step confirm: share: not the one whose hash was signed",
        ),
        (
            lambda a: {"shares": {**a.shares, 2: a.shares[2][:-1] + b"\0"}},
            "client 2, step confirm: share: not the one whose hash was signed",
        ),
    ],
)
def test_a_question_that_breaks_a_rule_is_refused(
    trust: Trust, change: Callable[[Any], dict[str, Any]], error: str
) -> None:
    made = CommitteeRound(trust=trust)
    message = made.collect(without=(3,))[FIRST]
    refused(made, made.announcement(message, **change(made.read(message))), error)
    assert made.journals[FIRST]._records == {}  # type: ignore[attr-defined]


def test_a_share_meant_for_another_member_round_or_client_does_not_open() -> None:
    made = CommitteeRound()
    announced = made.read(made.collect()[FIRST])
    other = CommitteeRound(round_number=4)
    for label in (
        steps.share_label(made.session, made.format.binding, client=0, member=FIRST + 1),
        steps.share_label(made.session, made.format.binding, client=1, member=FIRST),
        steps.share_label(other.session, other.format.binding, client=0, member=FIRST),
    ):
        content = bytes(made.format.sealed_bytes - 1136)
        sealed = kem.seal_once(member_recipient(FIRST).public, content, info=label, associated_data=label)
        hashes = made.header_body(announced.headers[0])["shares"]
        forged = made.forge_header(
            announced.headers[0], client=0, shares=[hashlib.sha256(sealed).digest(), *hashes[1:]]
        )
        question = dataclasses.replace(
            announced, headers={**announced.headers, 0: forged}, shares={**announced.shares, 0: sealed}
        )
        with pytest.raises(ProtocolError, match="client 0, step confirm: share: sealed for another round"):
            made.member(FIRST).answer(made.format.write_announcement(question))


def test_a_share_over_the_prime_is_refused() -> None:
    made = CommitteeRound()
    announced = made.read(made.collect()[FIRST])
    label = steps.share_label(made.session, made.format.binding, client=0, member=FIRST)
    content = b"\xff" * (made.format.sealed_bytes - 1136)
    sealed = kem.seal_once(member_recipient(FIRST).public, content, info=label, associated_data=label)
    hashes = made.header_body(announced.headers[0])["shares"]
    forged = made.forge_header(announced.headers[0], client=0, shares=[hashlib.sha256(sealed).digest(), *hashes[1:]])
    question = dataclasses.replace(
        announced, headers={**announced.headers, 0: forged}, shares={**announced.shares, 0: sealed}
    )
    refused(made, made.format.write_announcement(question), "client 0, step confirm: share: expected numbers below")


def two_sets(made: CommitteeRound) -> tuple[dict[int, bytes], dict[int, bytes]]:
    """The same round twice: once with every client, once without client 3."""
    everybody = made.collect()
    fewer = {}
    for number, message in everybody.items():
        announced = made.read(message)
        fewer[number] = made.announcement(
            message,
            headers={n: h for n, h in announced.headers.items() if n != 3},
            shares={n: s for n, s in announced.shares.items() if n != 3},
            dropped=(3,),
        )
    return everybody, fewer


def test_two_sets_that_differ_in_one_client_never_both_get_a_quorum() -> None:
    """The server and one corrupt member (t = 1) show the honest ones two sets; 4 of 5 must have signed one."""
    made = CommitteeRound()
    everybody, fewer = two_sets(made)
    corrupt, honest = FIRST, [FIRST + 1, FIRST + 2, FIRST + 3, FIRST + 4]
    for split in range(5):
        round_ = CommitteeRound()
        said: tuple[list[bytes], list[bytes]] = ([], [])
        for place, number in enumerate(honest):
            side = 0 if place < split else 1
            said[side].append(round_.members[number].answer((everybody, fewer)[side][number]))
        for side, sets in enumerate((everybody, fewer)):
            forger = round_.member(corrupt, journal=MemoryJournal())  # it signs whatever it is shown
            said[side].append(forger.answer(sets[corrupt]))
        quorums = [len(side) >= round_.session.committee.quorum for side in said]
        assert quorums != [True, True]
        for place, number in enumerate(honest):
            side = 0 if place < split else 1
            message = round_.format.write_confirmations(said[side])
            if quorums[side]:
                round_.members[number].answer(message)
            else:
                with pytest.raises(ProtocolError, match="expected 4 members to have confirmed, got"):
                    round_.members[number].answer(message)


def test_confirmations_of_another_set_are_refused() -> None:
    made = CommitteeRound()
    everybody, fewer = two_sets(made)
    made.members[FIRST].answer(everybody[FIRST])
    others = [made.members[number].answer(fewer[number]) for number in range(FIRST + 1, FIRST + 5)]
    refused(made, made.format.write_confirmations(others), f"member {FIRST + 1}, step reveal: confirmed other vectors")


def test_one_confirmation_many_times_is_one() -> None:
    made = CommitteeRound()
    sent = made.answers(made.collect())
    message = made.format.write_confirmations([sent[FIRST]] * 5)
    refused(made, message, "expected 4 members to have confirmed, got 1")


def test_a_confirmation_signed_by_a_stranger_is_refused() -> None:
    made = CommitteeRound()
    sent = made.answers(made.collect())
    body = made.format.read_member(Kind.CONFIRMATION, sent[FIRST]).body
    forged = made.format.write_member(Kind.CONFIRMATION, body, member=FIRST + 1, signer=member_signer(FIRST))
    refused(made, made.format.write_confirmations([forged]), "signature: not this signer's for these bytes")


@pytest.mark.parametrize("trust", list(Trust))
def test_a_member_restarted_in_between_answers_the_same_set_and_no_other(trust: Trust) -> None:
    made = CommitteeRound(trust=trust)
    everybody, fewer = two_sets(made)
    first = made.members[FIRST].answer(everybody[FIRST])
    assert made.member(FIRST).answer(everybody[FIRST]) == first
    made.members[FIRST] = made.member(FIRST)
    refused(made, fewer[FIRST], "^server, step confirm: this member has answered for other vectors in this round$")


def test_a_second_challenge_for_the_same_set_is_refused() -> None:
    """Two challenges would give two combinations of a client's shares."""
    made = CommitteeRound()
    message = made.collect()[FIRST]
    made.members[FIRST].answer(message)
    made.members[FIRST] = made.member(FIRST)
    refused(made, made.announcement(message, challenge=b"c" * 32), "has answered for other vectors")


def test_a_round_number_used_before_is_refused() -> None:
    """The same round number with new vectors, in a new session object: the journal knows it."""
    made, replayed = CommitteeRound(seed=1), CommitteeRound(seed=2)
    made.members[FIRST].answer(made.collect()[FIRST])
    member = replayed.member(FIRST, journal=made.journals[FIRST])
    with pytest.raises(ProtocolError, match="has answered for other vectors in this round"):
        member.answer(replayed.collect()[FIRST])


def test_vectors_of_another_round_are_refused() -> None:
    made, earlier = CommitteeRound(round_number=3), CommitteeRound(round_number=2)
    refused(made, earlier.collect()[FIRST], "client 0, step confirm: round: differs from this session's")


def test_a_matrix_from_the_server_has_no_place() -> None:
    """No message has a field for it, and a client that was told other terms for it signed these terms."""
    made = CommitteeRound()
    message = made.collect()[FIRST]
    other = dataclasses.replace(made.session, task_hash=b"chosen by the server to weaken A")
    sent = made.client(0, session=other).start()
    with pytest.raises(ProtocolError, match="client 0, step mask: task: differs from this session's"):
        CommitteeRound().server.receive(sent)
    assert set(made.read(message).__dataclass_fields__) == {
        "headers", "shares", "dropped", "previous", "challenge", "receiver",
    }  # fmt: skip


def test_a_swapped_key_is_refused() -> None:
    """A server that puts its own key under a client's number or a member's."""
    made = CommitteeRound()
    own = signer(99)
    roster = {**made.session.roster, 0: own.public}
    swapped = CommitteeRound()
    swapped.session = dataclasses.replace(made.session, roster=roster)
    swapped.signers[0] = own
    with pytest.raises(ProtocolError, match="client 0, step mask: roster: differs from this session's"):
        made.server.receive(swapped.client(0).start())
    swapped.session = dataclasses.replace(made.session, committee=committee(6))
    with pytest.raises(ProtocolError, match=r"its parts are not as long|committee: differs"):
        made.server.receive(swapped.client(1).start())
    with pytest.raises(InputError, match=f"^member {FIRST}: expected the two keys that the committee pins for it$"):
        made.member(FIRST, signer=own)
    with pytest.raises(InputError, match="expected the two keys"):
        made.member(FIRST, recipient=member_recipient(5))


def test_after_the_expiry_a_member_says_nothing() -> None:
    made = CommitteeRound()
    message = made.collect()[FIRST]
    made.members[FIRST] = made.member(FIRST, now=lambda: NOW + 61)
    refused(made, message, "^server, step confirm: the round has expired$")


def test_the_next_round_is_chained_to_this_one() -> None:
    made = CommitteeRound()
    made.finish(made.collect())
    transcript = made.members[FIRST].transcript
    assert transcript == made.server.transcript
    assert transcript is not None
    following = CommitteeRound(round_number=4, previous=transcript)
    assert following.finish(following.collect()).shape == (20,)
    broken = CommitteeRound(round_number=4)
    broken.members[FIRST] = broken.member(FIRST, previous=transcript)
    refused(broken, broken.collect()[FIRST], "previous: another transcript")


def test_garbage_is_refused() -> None:
    for message in (b"", b"garbage", b"mbSR\x01\x02\x00\x00\x00\x00"):
        made = CommitteeRound()
        refused(made, message, "^server, step confirm: ")


def test_a_member_cannot_be_copied_or_printed_open() -> None:
    made = CommitteeRound()
    member = made.members[FIRST]
    assert isinstance(member, MaskingMember)
    assert repr(member) == f"<CommitteeMember {FIRST}, round 3, confirm>"
    for door in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled or copied"):
            door(member)
