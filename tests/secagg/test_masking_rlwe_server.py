"""Clients and members that break the rules: what an honest server refuses, corrects, and whom it names."""

from typing import Any

import numpy as np
import pytest

from mibao.codec import records
from mibao.errors import InputError, ProtocolError
from mibao.secagg import packed_sharing
from mibao.secagg.masking import MaskingServer, Phase, Trust
from mibao.secagg.masking_rlwe_messages import Kind
from mibao.secagg.masking_rlwe_server import RlweServer
from mibao.types import MaskingScheme
from secagg.committee_rounds import FIRST_MEMBER, NOW, CommitteeRound, committee, with_part
from secagg.rounds import signer

FIRST = FIRST_MEMBER
WIDE = committee(9, corrupt=2, packing=2)  # R = 4: of nine answers two may be wrong


def to_reveal(made: CommitteeRound) -> dict[int, bytes]:
    """Everybody's release, not yet delivered."""
    made.answers(made.collect())
    return {n: made.members[n].answer(message) for n, message in made.server.advance().items()}


def off_by_one(name: str) -> Any:
    def change(body: dict[str, Any]) -> None:
        values = np.frombuffer(body[name], dtype="<u4").copy()
        values[0] = (values[0] + 1) % packed_sharing.PRIME
        body[name] = values.tobytes()

    return change


def test_a_round_ends_with_an_event_and_no_second_sum() -> None:
    made = CommitteeRound()
    assert isinstance(made.server, MaskingServer)
    made.answers(made.collect(without=(2,)))
    made.answers(made.server.advance())
    released = made.server.release()
    assert released.survivors == (0, 1, 3)
    event = released.event
    assert (event.scheme, event.invited, event.survivors, event.threshold) == (MaskingScheme.RLWE, 4, 3, 4)
    assert records.from_value(records.to_value(event)) == event
    for again in (made.server.release, made.server.advance):
        with pytest.raises(ProtocolError, match="server, step closed"):
            again()
    with pytest.raises(ProtocolError, match="takes no more messages"):
        made.server.receive(b"")


@pytest.mark.parametrize("name", ["vector", "share 0", "share 4", "header"])
def test_an_altered_part_is_refused_and_named(name: str) -> None:
    made = CommitteeRound()
    sent = made.client(1).start()
    upload = made.format.read_upload(sent)
    part = {"vector": upload.vector, "header": upload.header}.get(name) or upload.shares[int(name[-1:])]
    changed = bytes(part[:-1]) + bytes([part[-1] ^ 1])
    error = {
        "vector": "^client 1, step mask: vector: not the one whose hash was signed$",
        "share 0": f"^client 1, step mask: share of member {FIRST}: not the one whose hash was signed$",
        "share 4": f"^client 1, step mask: share of member {FIRST + 4}: not the one whose hash was signed$",
        "header": "^client 1, step mask: signature: not this signer's",
    }[name]
    with pytest.raises(ProtocolError, match=error):
        made.server.receive(with_part(sent, bytes(part), changed))
    assert made.server.receive(sent) == 1


def test_a_second_vector_in_the_same_round_is_refused() -> None:
    made = CommitteeRound()
    made.server.receive(made.client(0).start())
    with pytest.raises(ProtocolError, match=r"^client 0, step mask: sent a second vector$"):
        made.server.receive(made.client(0).start())


def test_a_stranger_is_refused() -> None:
    made = CommitteeRound()
    larger = CommitteeRound(5)
    with pytest.raises(ProtocolError, match=r"^client 4, step mask: not on the roster$"):
        made.server.receive(larger.client(4).start())


def test_too_few_clients_and_nothing_is_asked_of_the_committee() -> None:
    made = CommitteeRound(min_clients=3)
    for number in (0, 2):
        made.server.receive(made.client(number).start())
    with pytest.raises(ProtocolError, match=r"^clients 1, 3, step mask: no message; 2 of 3 came$"):
        made.server.advance()
    assert made.server.phase is Phase.CLOSED


@pytest.mark.parametrize(
    ("trust", "needed", "step"), [("malicious-server", 4, "confirm"), ("honest-server", 3, "reveal")]
)
def test_too_few_members_and_no_sum_comes_out(trust: str, needed: int, step: str) -> None:
    made = CommitteeRound(trust=Trust(trust))
    announcements = made.collect()
    made.answers(announcements, silent=tuple(range(FIRST, FIRST + 6 - needed)))
    close = made.server.advance if step == "confirm" else made.server.release
    with pytest.raises(ProtocolError, match=f"members .*, step {step}: no message; {needed - 1} of {needed} came"):
        close()


def test_a_late_upload_and_an_early_release_are_refused() -> None:
    made = CommitteeRound()
    late = made.client(3).start()
    made.collect(without=(3,))
    with pytest.raises(ProtocolError, match="unknown member, step confirm: frame: expected at most"):
        made.server.receive(late)
    with pytest.raises(ProtocolError, match="step confirm: no sum to release yet"):
        made.server.release()


def test_after_the_expiry_nothing_is_taken() -> None:
    made = CommitteeRound()
    sent = made.client(0).start()
    made.server._now = lambda: NOW + 61
    with pytest.raises(ProtocolError, match=r"^server, step mask: the round has expired$"):
        made.server.receive(sent)


def test_a_member_that_says_two_things_is_named() -> None:
    made = CommitteeRound()
    sent = to_reveal(made)
    made.server.receive(sent[FIRST])
    made.server.receive(sent[FIRST])
    with pytest.raises(ProtocolError, match=f"^member {FIRST}, step reveal: sent two different answers$"):
        made.server.receive(made.forge_release(sent[FIRST], FIRST, off_by_one("sums")))


@pytest.mark.parametrize("liars", [(FIRST + 3,), (FIRST, FIRST + 8)])
def test_wrong_sums_are_corrected_and_their_members_named(liars: tuple[int, ...]) -> None:
    made = CommitteeRound(committee=WIDE)
    for number, message in to_reveal(made).items():
        made.server.receive(made.forge_release(message, number, off_by_one("sums")) if number in liars else message)
    assert np.array_equal(made.server.release().total, made.sum_of((0, 1, 2, 3)))
    assert (made.server.wrong_members, made.server.disputes) == (liars, ())


def test_more_wrong_members_than_can_be_told_apart_stop_the_round() -> None:
    made = CommitteeRound(committee=WIDE)
    for number, message in to_reveal(made).items():
        lies = number < FIRST + 3
        made.server.receive(made.forge_release(message, number, off_by_one("sums")) if lies else message)
    with pytest.raises(ProtocolError, match=r"^committee, step reveal: more members answered wrongly"):
        made.server.release()


def test_a_member_that_slanders_a_dealer_makes_a_dispute_and_no_damage() -> None:
    made = CommitteeRound(committee=WIDE)
    for number, message in to_reveal(made).items():
        lies = number == FIRST + 2
        made.server.receive(made.forge_release(message, number, off_by_one("checks")) if lies else message)
    assert np.array_equal(made.server.release().total, made.sum_of((0, 1, 2, 3)))
    assert (made.server.wrong_members, made.server.disputes) == ((), ((FIRST + 2, 0),))


@pytest.mark.parametrize("altered", [1, 5])
def test_a_dealer_whose_shares_lie_on_no_polynomial_is_named(altered: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made = CommitteeRound(committee=WIDE)
    true_deal = packed_sharing.deal

    def false_deal(*args: Any, **given: Any) -> np.ndarray:
        shares = true_deal(*args, **given)
        for place in range(altered):
            shares[place, 7] = (shares[place, 7] + np.uint64(1 + place)) % np.uint64(packed_sharing.PRIME)
        return shares

    made.server.receive(made.client(0).start())
    with monkeypatch.context() as patch:
        patch.setattr(packed_sharing, "deal", false_deal)
        made.server.receive(made.client(1).start())
    made.answers(made.server.advance())
    made.answers(made.server.advance())
    if altered == 1:  # as good as one wrong member: corrected
        assert np.array_equal(made.server.release().total, made.sum_of((0, 1)))
        assert (made.server.wrong_members, made.server.disputes) == ((), ((FIRST, 1),))
    else:
        with pytest.raises(ProtocolError, match=r"^clients 1, step mask: dealt shares that do not"):
            made.server.release()


def test_two_dealers_whose_faults_cancel_in_the_sum_are_both_named(monkeypatch: pytest.MonkeyPatch) -> None:
    made = CommitteeRound(committee=WIDE)
    true_deal = packed_sharing.deal
    for number, sign in ((0, 1), (1, packed_sharing.PRIME - 1)):

        def false_deal(*args: Any, sign: int = sign, **given: Any) -> np.ndarray:
            shares = true_deal(*args, **given)
            for place in range(5):
                shares[place, 7] = (shares[place, 7] + np.uint64(sign)) % np.uint64(packed_sharing.PRIME)
            return shares

        with monkeypatch.context() as patch:
            patch.setattr(packed_sharing, "deal", false_deal)
            made.server.receive(made.client(number).start())
    made.answers(made.server.advance())
    made.answers(made.server.advance())
    with pytest.raises(ProtocolError, match=r"^clients 0, 1, step mask: dealt shares"):
        made.server.release()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda b: b.update(transcript=bytes(32)), "confirmed other vectors"),
        (lambda b: b.update(sums=b["sums"][:-4]), "sums: expected 4096 bytes, got 4092"),
        (lambda b: b.update(checks=b["checks"] + b["checks"]), "checks: expected 32 bytes, got 64"),
        (lambda b: b.update(sums=b"\xff" * 4096), "expected numbers below the prime"),
        (lambda b: b.update(more=1), "expected exactly the fields checks, sums, transcript"),
    ],
)
def test_a_release_that_breaks_a_rule_is_refused_and_named(change: Any, error: str) -> None:
    made = CommitteeRound()
    sent = to_reveal(made)
    with pytest.raises(ProtocolError, match=f"^member {FIRST}, step reveal: {error}"):
        made.server.receive(made.forge_release(sent[FIRST], FIRST, change))
    assert made.server.receive(sent[FIRST]) == FIRST


def test_a_release_under_another_members_name_is_refused() -> None:
    made = CommitteeRound()
    sent = to_reveal(made)
    body = made.format.read_member(Kind.RELEASE, sent[FIRST]).body
    forged = made.format.write_member(Kind.RELEASE, body, member=FIRST + 1, signer=signer(FIRST))
    with pytest.raises(ProtocolError, match=f"^member {FIRST + 1}, step reveal: signature: not this signer's"):
        made.server.receive(forged)
    stranger = made.format.write_member(Kind.RELEASE, body, member=7, signer=signer(7))
    with pytest.raises(ProtocolError, match=r"^unknown member, step reveal: member 7 is not in the committee$"):
        made.server.receive(stranger)


def test_randomness_of_another_length_is_refused() -> None:
    made = CommitteeRound()
    with pytest.raises(InputError, match=r"^server: expected 32 random bytes, got 31$"):
        RlweServer(made.session, randomness=bytes(31), now=made.now)


def test_what_follows_a_header_begins_at_a_multiple_of_eight_behind_zeros() -> None:
    padded = 0
    for number in (3, 300, 70_000):
        made = CommitteeRound(round_number=number)
        message = made.client(0).start()
        begin = len(message) - made.format.vector_bytes - 5 * made.format.sealed_bytes
        assert begin % 8 == 0
        end = 14 + int.from_bytes(message[10:14], "big")
        assert message[end:begin] == bytes(begin - end)
        if begin > end:
            padded += 1
            altered = message[: begin - 1] + b"\x01" + message[begin:]
            with pytest.raises(ProtocolError, match=r"^unknown client, step mask: upload: expected zeros behind the"):
                made.server.receive(altered)
        made.server.receive(message)
    assert padded
