"""A server that breaks the rules, alone or with clients, against clients that keep them."""

from __future__ import annotations

from typing import Any

import pytest

from mibao.crypto import agreement
from mibao.errors import ProtocolError
from mibao.secagg import Phase
from mibao.secagg.masking_pairwise_messages import Kind
from secagg.rounds import Round, body_of, signer, with_envelope


def broadcast(made: Round, kind: Kind, **body: Any) -> bytes:
    return made.format.write_broadcast(kind, body)


def refuses(made: Round, number: int, message: bytes, says: str) -> None:
    """Client ``number`` raises exactly this, and is of no more use to anybody."""
    with pytest.raises(ProtocolError, match=says):
        made.clients[number].answer(message)
    assert made.clients[number].phase is Phase.CLOSED
    assert not made.clients[number]._held.shares


def test_overlapping_alive_and_dropped_lists_are_refused() -> None:
    made = Round(5, threshold=4)
    made.run_to(Phase.CONFIRM)
    message = broadcast(made, Kind.SURVIVORS, alive=[0, 1, 2, 3, 4], dropped=[2])
    refuses(made, 0, message, r"^server, step confirm: survivors: a client is listed as alive and as dropped$")


def test_both_shares_of_one_client_are_never_revealed_in_whatever_order_they_are_asked_for() -> None:
    made = Round(5, threshold=4)
    incoming = made.run_to(Phase.CONFIRM)
    confirmed = made.clients[0].answer(incoming[0])
    assert body_of(confirmed).keys() == {"transcript"}
    # A second list, with client 2 moved over, while the first confirmation is out.
    other = broadcast(made, Kind.SURVIVORS, alive=[0, 1, 3, 4], dropped=[2])
    refuses(made, 0, other, r"^server, step reveal: expected the message confirmations, got survivors$")


def test_a_second_reveal_request_is_refused_even_when_it_is_the_same() -> None:
    made = Round(5)
    incoming = made.run_to(Phase.REVEAL)
    revealed = body_of(made.clients[3].answer(incoming[3]))
    assert {number for number, _ in revealed["seeds"]} == {0, 1, 2, 3, 4} and revealed["keys"] == []
    refuses(made, 3, incoming[3], r"^server, step closed: client 3 has nothing to answer$")


def test_one_revelation_holds_for_each_peer_one_half_only() -> None:
    made = Round(5, threshold=4)
    revealed = made.play(made.run_to(Phase.REVEAL, dropped={2: Phase.MASK}), Phase.REVEAL)
    for message in revealed.values():
        body = body_of(message)
        assert [number for number, _ in body["keys"]] == [2]
        assert [number for number, _ in body["seeds"]] == [0, 1, 3, 4]


@pytest.mark.parametrize(
    ("alive", "dropped", "says"),
    [
        ([0, 1, 2], [3, 4], "expected at least 4 clients alive, got 3"),
        ([1, 2, 3, 4], [0], "this client is not among them"),
        ([0, 1, 2, 3], [], "not together the clients that shared"),
        ([0, 1, 2, 3, 4, 9], [], "not together the clients that shared"),
        ([0, 1, 2, 2, 3, 4], [], "alive: expected client numbers, ascending, each once"),
        ([1, 0, 2, 3, 4], [], "alive: expected client numbers, ascending, each once"),
        ([0, 1, 2, 3, "4"], [], "alive: expected client numbers, ascending, each once"),
        ("all", [], "alive: expected a list"),
    ],
)
def test_a_survivor_list_that_is_too_small_or_not_the_sharers_is_refused(alive: Any, dropped: Any, says: str) -> None:
    made = Round(5, threshold=4)
    made.run_to(Phase.CONFIRM)
    refuses(made, 0, broadcast(made, Kind.SURVIVORS, alive=alive, dropped=dropped), rf"^server, step confirm: .*{says}")


def test_min_clients_above_the_threshold_is_what_a_client_asks_for() -> None:
    made = Round(5, threshold=3, min_clients=5)
    made.run_to(Phase.CONFIRM)
    message = broadcast(made, Kind.SURVIVORS, alive=[0, 1, 2, 3], dropped=[4])
    refuses(made, 0, message, "expected at least 5 clients alive, got 4")


def test_a_server_that_shows_two_survivor_sets_to_two_halves_gets_no_share_from_anyone() -> None:
    made = Round(6, threshold=4)
    made.run_to(Phase.CONFIRM)
    views = {
        (0, 1, 2): broadcast(made, Kind.SURVIVORS, alive=[0, 1, 2, 3, 4], dropped=[5]),
        (3, 4, 5): broadcast(made, Kind.SURVIVORS, alive=[0, 1, 2, 3, 4, 5], dropped=[]),
    }
    confirmations = {n: made.clients[n].answer(view) for half, view in views.items() for n in half}
    for half in views:
        signed = [confirmations[n] for n in half]
        other = next(confirmations[n] for n in confirmations if n not in half)
        few = broadcast(made, Kind.CONFIRMATIONS, confirmations=signed)
        mixed = broadcast(made, Kind.CONFIRMATIONS, confirmations=[*signed, other])
        refuses(made, half[0], few, "expected 4 clients to have signed, got 3")
        refuses(made, half[1], mixed, r"^client \d, step confirm: confirmed other keys or another set of survivors$")
        twice = broadcast(made, Kind.CONFIRMATIONS, confirmations=[*signed, signed[0]])
        refuses(made, half[2], twice, "expected 4 clients to have signed, got 3")


def test_as_many_colluders_as_tolerated_cannot_complete_two_survivor_sets() -> None:
    made = Round(6, threshold=5)
    colluders = (0, 1, 2)[: made.session.tolerated_colluders]
    assert len(colluders) == 3
    made.run_to(Phase.CONFIRM)
    first = broadcast(made, Kind.SURVIVORS, alive=[0, 1, 2, 3, 4, 5], dropped=[])
    second = broadcast(made, Kind.SURVIVORS, alive=[0, 1, 2, 3, 4], dropped=[5])
    honest = {3: made.clients[3].answer(first), 5: made.clients[5].answer(first), 4: made.clients[4].answer(second)}

    def forged(like: int) -> list[bytes]:
        return [made.forge(Kind.CONFIRMATION, body_of(honest[like]), sender=one) for one in colluders]

    full = broadcast(made, Kind.CONFIRMATIONS, confirmations=[*forged(3), honest[3], honest[5]])
    assert body_of(made.clients[3].answer(full))["keys"] == []
    short = broadcast(made, Kind.CONFIRMATIONS, confirmations=[*forged(4), honest[4]])
    refuses(made, 4, short, "expected 5 clients to have signed, got 4")


def test_confirmations_from_outside_the_survivors_do_not_count() -> None:
    made = Round(5, threshold=4)
    incoming = made.run_to(Phase.CONFIRM, dropped={2: Phase.MASK})
    sent = made.play(incoming, Phase.CONFIRM)
    outsider = made.forge(Kind.CONFIRMATION, body_of(sent[0]), sender=2)
    message = broadcast(made, Kind.CONFIRMATIONS, confirmations=[sent[0], sent[1], outsider, sent[3]])
    refuses(made, 0, message, "signed by a client that is not alive")


def test_an_unsigned_or_foreign_confirmation_is_refused() -> None:
    made = Round(5, threshold=4)
    sent = made.play(made.run_to(Phase.CONFIRM), Phase.CONFIRM)
    forged = made.forge(Kind.CONFIRMATION, body_of(sent[1]), sender=1, key=made.signers[2])
    message = broadcast(made, Kind.CONFIRMATIONS, confirmations=[sent[0], forged, sent[2], sent[3]])
    refuses(made, 0, message, r"^client 1, step confirm: signature: not this signer's")


def advertisements(made: Round, **replaced: bytes) -> bytes:
    sent = made.sent[Phase.ADVERTISE]
    return broadcast(
        made, Kind.KEYS, advertisements=[replaced.get(f"client_{number}", sent[number]) for number in sent]
    )


def keys_of(made: Round, number: int) -> dict[str, Any]:
    return body_of(made.sent[Phase.ADVERTISE][number])


def test_a_key_swapped_by_the_server_is_refused() -> None:
    made = Round(5)
    made.run_to(Phase.SHARE)
    own = agreement.public_key(b"\x07" * 32)
    content = made.forge(Kind.ADVERTISEMENT, {**keys_of(made, 3), "mask_key": own}, sender=3, key=signer(99))
    refuses(made, 0, advertisements(made, client_3=content), r"^client 3, step advertise: signature: not this signer's")


def test_an_unsigned_key_is_refused() -> None:
    for signature, says in ((b"", "expected 64 bytes"), (bytes(64), "not this signer's")):
        made = Round(5)
        made.run_to(Phase.SHARE)
        unsigned = with_envelope(made.sent[Phase.ADVERTISE][3], signature=signature)
        refuses(made, 0, advertisements(made, client_3=unsigned), rf"^client 3, step advertise: signature: .*{says}")


def test_a_key_of_one_client_under_the_name_of_another_is_refused() -> None:
    made = Round(5)
    made.run_to(Phase.SHARE)
    renamed = with_envelope(made.sent[Phase.ADVERTISE][2], sender=3)
    refuses(made, 0, advertisements(made, client_3=renamed), r"^client 3, step advertise: signature")


def test_a_signature_made_for_another_message_is_refused() -> None:
    made = Round(5)
    made.run_to(Phase.SHARE)
    other = made.forge(Kind.CONFIRMATION, keys_of(made, 3), sender=3)
    renamed = other[:5] + bytes([Kind.ADVERTISEMENT]) + other[6:]
    refuses(made, 0, advertisements(made, client_3=renamed), r"^client 3, step advertise: signature: not this signer's")


@pytest.mark.parametrize("field", ["round_number", "threshold", "min_clients", "length", "modulus_bits"])
def test_messages_of_another_round_or_other_parameters_are_refused(field: str) -> None:
    values = {"round_number": 6, "threshold": 5, "min_clients": 3, "length": 9, "modulus_bits": 64}
    made, other = Round(5), Round(5, **{field: values[field]})  # type: ignore[arg-type]
    made.run_to(Phase.SHARE)
    replayed = other.run_to(Phase.SHARE)[0]
    inside = advertisements(made, client_3=other.sent[Phase.ADVERTISE][3])
    refuses(made, 0, replayed, r"^server, step share: the message belongs to another session or round")
    refuses(made, 1, inside, r"^client 3, step advertise: the message belongs to another session or round")


def test_one_key_advertised_by_two_clients_is_refused() -> None:
    made = Round(5)
    made.run_to(Phase.SHARE)
    copied = made.forge(Kind.ADVERTISEMENT, keys_of(made, 2), sender=3)
    refuses(made, 0, advertisements(made, client_3=copied), "one public key was advertised twice")


def test_a_key_of_low_order_is_refused_under_the_name_of_its_client() -> None:
    for field in ("share_key", "mask_key"):
        made = Round(5)
        made.run_to(Phase.SHARE)
        weak = made.forge(Kind.ADVERTISEMENT, {**keys_of(made, 3), field: bytes(32)}, sender=3)
        says = r"^client 3, step advertise: X25519: the peer's public key is a point of low order"
        refuses(made, 0, advertisements(made, client_3=weak), says)


def test_too_few_keys_missing_own_keys_and_keys_out_of_order_are_refused() -> None:
    for chosen, says in (
        ((0, 1, 2), "expected at least 4 clients advertised, got 3"),
        ((1, 2, 3, 4), "this client's own keys are missing or swapped"),
        ((1, 0, 2, 3), "expected in ascending order, each client once"),
        ((0, 1, 1, 2), "expected in ascending order, each client once"),
    ):
        made = Round(5, threshold=4)
        made.run_to(Phase.SHARE)
        sent = made.sent[Phase.ADVERTISE]
        message = broadcast(made, Kind.KEYS, advertisements=[sent[number] for number in chosen])
        refuses(made, 0, message, says)


def delivered(made: Round, number: int) -> dict[int, bytes]:
    return dict(body_of(made.incoming[Phase.MASK][number])["shares"])


def delivery(made: Round, receiver: int, shares: dict[int, bytes]) -> bytes:
    pairs = [[sender, shares[sender]] for sender in sorted(shares)]
    return broadcast(made, Kind.DELIVERY, receiver=receiver, shares=pairs)


def test_an_altered_share_is_refused_under_the_name_of_its_sender() -> None:
    for position in (0, 40, 81):
        made = Round(5)
        made.run_to(Phase.MASK)
        shares = delivered(made, 0)
        altered = bytearray(shares[3])
        altered[position] ^= 1
        message = delivery(made, 0, {**shares, 3: bytes(altered)})
        refuses(made, 0, message, r"^client 3, step share: authenticated encryption: the tag does not match$")


def test_shares_swapped_between_senders_receivers_or_rounds_are_refused() -> None:
    other = Round(5, round_number=6)
    other.run_to(Phase.MASK)
    for source, receiver, sender in (("own", 0, 4), ("own", 1, 3), ("other", 0, 3)):
        made = Round(5)
        made.run_to(Phase.MASK)
        foreign = delivered(other if source == "other" else made, receiver)[sender]
        message = delivery(made, 0, {**delivered(made, 0), 3: foreign})
        refuses(made, 0, message, r"^client 3, step share: authenticated encryption: the tag does not match$")


def test_a_delivery_for_another_client_from_strangers_or_too_small_is_refused() -> None:
    made = Round(5, threshold=4)
    incoming = made.run_to(Phase.MASK, dropped={4: Phase.ADVERTISE})
    refuses(made, 0, incoming[1], r"^server, step mask: shares: meant for another client$")
    stranger = {**delivered(made, 1), 4: bytes(82)}
    refuses(made, 1, delivery(made, 1, stranger), "from a client that advertised no keys")
    few = delivered(made, 2)
    few.pop(3)
    refuses(made, 2, delivery(made, 2, few), "expected at least 4 clients shared, got 3")


def test_clients_that_were_shown_different_keys_cannot_read_each_others_shares() -> None:
    made = Round(6, threshold=4)
    made.run_to(Phase.SHARE)
    sent = made.sent[Phase.ADVERTISE]
    views = {
        number: broadcast(made, Kind.KEYS, advertisements=[sent[n] for n in shown])
        for number, shown in ((0, (0, 1, 2, 3, 4)), (1, (0, 1, 2, 3, 4, 5)), (2, (0, 1, 2, 3, 4, 5)))
    }
    sealed = {n: dict(map(tuple, body_of(made.clients[n].answer(view))["shares"])) for n, view in views.items()}
    message = delivery(made, 1, {0: sealed[0][1], 2: sealed[2][1], 3: bytes(82)})
    refuses(made, 1, message, r"^client 0, step share: authenticated encryption: the tag does not match$")


def test_bytes_that_are_no_message_are_refused() -> None:
    whole = Round(5).run_to(Phase.SHARE)[0]
    for bad, says in (
        (b"", "shorter than its header"),
        (whole[:-1], "truncated"),
        (whole + b"\x00", "1 bytes after the end"),
        (b"nope" + whole[4:], "at its start"),
        (whole[:4] + b"\x02" + whole[5:], "expected version 1, got 2"),
        (whole[:5] + b"\x09" + whole[6:], "expected the message keys, got revelation"),
        (whole[:5] + b"\xff" + whole[6:], "expected the message keys, got unknown kind 255"),
        (whole[:6] + b"\x7f" + whole[7:], "of payload"),
        (with_envelope(whole, extra=1), "expected exactly the fields body, session"),
        (with_envelope(whole, body=b"text"), "body: expected a map"),
        (with_envelope(whole, body={}), "expected exactly the fields advertisements"),
        (with_envelope(whole, body={"advertisements": [1]}), "advertisements: expected bytes"),
    ):
        made = Round(5)
        made.run_to(Phase.SHARE)
        refuses(made, 0, bad, rf"^server, step share: .*{says}")
