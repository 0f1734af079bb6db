"""Clients that break the rules against a server that keeps them. A refused message changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mibao.errors import ProtocolError
from mibao.secagg import Phase
from mibao.secagg.masking_pairwise_messages import Kind
from secagg.rounds import ORDER, Round, body_of, signer, with_envelope

KIND = {
    Phase.ADVERTISE: Kind.ADVERTISEMENT,
    Phase.SHARE: Kind.SHARES,
    Phase.MASK: Kind.UPLOAD,
    Phase.CONFIRM: Kind.CONFIRMATION,
    Phase.REVEAL: Kind.REVELATION,
}


def until(made: Round, phase: Phase, *, silent: int) -> bytes:
    """Everything has come in for ``phase`` but the message of client ``silent``, which is returned."""
    if phase is Phase.ADVERTISE:
        for number, client in made.clients.items():
            if number != silent:
                made.server.receive(client.start())
        return made.clients[silent].start()
    incoming = made.run_to(phase)
    made.play(incoming, phase, without=(silent,))
    return made.clients[silent].answer(incoming[silent])


def refuses(made: Round, message: bytes, says: str) -> None:
    awaited = made.server.awaited
    total = made.server._total.copy()
    with pytest.raises(ProtocolError, match=says):
        made.server.receive(message)
    assert made.server.awaited == awaited
    assert np.array_equal(made.server._total, total)


def finishes_exactly(made: Round, *, survivors: tuple[int, ...] = (0, 1, 2, 3, 4)) -> None:
    """The honest rest of the round still comes to the exact sum."""
    while made.server.phase is not Phase.REVEAL:
        made.play(made.server.advance(), made.server.phase)
    released = made.server.release()
    assert released.survivors == survivors
    assert np.array_equal(released.total, made.sum_of(survivors))


@pytest.mark.parametrize("phase", ORDER)
def test_a_forged_altered_or_foreign_message_is_refused_and_the_true_one_still_counts(phase: Phase) -> None:
    made = Round(5, threshold=4)
    message = until(made, phase, silent=3)
    other_round = until(Round(5, threshold=4, round_number=8), phase, silent=3)
    body = body_of(message)
    forged = made.forge(KIND[phase], body, sender=3, key=signer(50))
    step = f"^client 3, step {phase.value}: "
    refuses(made, forged, step + "signature: not this signer's for these bytes$")
    refuses(made, with_envelope(message, sender=4), f"^client 4, step {phase.value}: signature: not this signer's")
    refuses(made, with_envelope(message, signature=bytes(64)), step + "signature: not this signer's")
    refuses(made, other_round, step + "the message belongs to another session or round")
    refuses(made, with_envelope(message, sender=77), f"^unknown client, step {phase.value}: client 77 is not on the")
    refuses(made, with_envelope(message, sender=True), f"^unknown client, step {phase.value}: sender: expected an int")
    refuses(made, message[:-1], f"^unknown client, step {phase.value}: frame: truncated")
    refuses(made, made.forge(KIND[phase], {**body, "more": 1}, sender=3), step + "expected exactly the fields")
    assert made.server.receive(message) == 3
    refuses(made, message, step + "sent this step's message twice$")
    finishes_exactly(made)


@pytest.mark.parametrize("phase", ORDER[:-1])
def test_a_message_that_comes_after_its_phase_is_refused(phase: Phase) -> None:
    made = Round(5, threshold=4)
    late = until(made, phase, silent=3)
    made.server.advance()
    refuses(made, late, rf"^client 3, step \w+: expected the message \w+, got {KIND[phase].name.lower()}$")


def test_a_client_that_dropped_out_cannot_come_back_in_a_later_phase() -> None:
    made = Round(5, threshold=4)
    made.run_to(Phase.CONFIRM, dropped={3: Phase.MASK})
    back = made.forge(Kind.CONFIRMATION, {"transcript": bytes(32)}, sender=3)
    refuses(made, back, "^client 3, step confirm: had dropped out before this step$")


@pytest.mark.parametrize(
    ("modulus_bits", "size"), [(32, 0), (32, 28), (32, 36), (32, 64), (64, 0), (64, 56), (64, 72), (64, 32)]
)
def test_a_vector_of_the_wrong_length_or_for_the_other_modulus_is_refused(modulus_bits: int, size: int) -> None:
    made = Round(5, length=8, modulus_bits=modulus_bits)
    upload = until(made, Phase.MASK, silent=3)
    wrong = made.forge(Kind.UPLOAD, {"vector": bytes(size)}, sender=3)
    refuses(made, wrong, rf"^client 3, step mask: vector: expected {modulus_bits} bytes, got {size}$")
    made.server.receive(upload)
    finishes_exactly(made)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"keys": bytes(32)}, "saw other keys than the server collected"),
        ({"keys": b"short"}, "keys: expected 32 bytes, got 5"),
        ({"commitment": b""}, "commitment: expected 32 bytes, got 0"),
        ({"shares": [[0, bytes(82)], [1, bytes(82)], [2, bytes(82)]]}, "expected one for every other client"),
        ({"shares": [[n, bytes(82)] for n in range(5)]}, "expected one for every other client"),
        ({"shares": [[0, bytes(83)]]}, "expected pairs of a client number and 82 bytes"),
        ({"shares": [[1, bytes(82)], [0, bytes(82)]]}, "ascending, each once"),
        ({"shares": [[True, bytes(82)]]}, "expected pairs of a client number"),
        ({"shares": 5}, "shares: expected a list"),
    ],
)
def test_malformed_shares_are_refused(change: dict[str, Any], says: str) -> None:
    made = Round(5)
    body = body_of(until(made, Phase.SHARE, silent=3))
    refuses(made, made.forge(Kind.SHARES, {**body, **change}, sender=3), f"^client 3, step share: .*{says}")


def test_a_key_that_another_client_advertised_first_is_refused() -> None:
    made = Round(5)
    first = body_of(until(made, Phase.ADVERTISE, silent=3))
    copied = {**first, "share_key": made.clients[2]._own_keys.mask_key}
    refuses(made, made.forge(Kind.ADVERTISEMENT, copied, sender=3), "^client 3, step advertise: one public key")


def test_a_confirmation_of_another_survivor_set_is_refused() -> None:
    made = Round(5)
    until(made, Phase.CONFIRM, silent=3)
    wrong = made.forge(Kind.CONFIRMATION, {"transcript": bytes(32)}, sender=3)
    refuses(made, wrong, "^client 3, step confirm: confirmed other keys or another set of survivors$")


@pytest.mark.parametrize("field", ["keys", "seeds"])
def test_a_revelation_of_the_wrong_clients_is_refused(field: str) -> None:
    made = Round(5, threshold=3)
    incoming = made.run_to(Phase.REVEAL, dropped={2: Phase.MASK})
    body = body_of(made.clients[3].answer(incoming[3]))
    less = {**body, field: body[field][1:]}
    refuses(made, made.forge(Kind.REVELATION, less, sender=3), "^client 3, step reveal: expected key shares of the")


@pytest.mark.parametrize(("field", "whose"), [("seeds", 0), ("keys", 2)])
@pytest.mark.parametrize("value", [b"\x00" * 32 + b"\x01", b"\xff" * 33])
def test_a_false_revealed_share_is_noticed_and_no_sum_comes_out(field: str, whose: int, value: bytes) -> None:
    made = Round(5, threshold=4)
    incoming = made.run_to(Phase.REVEAL, dropped={2: Phase.MASK})
    made.play(incoming, Phase.REVEAL, without=(3,))
    body = body_of(made.clients[3].answer(incoming[3]))
    false = [[number, value if number == whose else share] for number, share in body[field]]
    made.server.receive(made.forge(Kind.REVELATION, {**body, field: false}, sender=3))
    with pytest.raises(ProtocolError, match=rf"^clients 0, 1, 3, 4, step reveal: .* client {whose}'s secret"):
        made.server.release()
    assert made.server.phase is Phase.CLOSED


def test_a_closed_session_takes_no_message_no_advance_and_no_second_release() -> None:
    made = Round(5)
    incoming = made.run_to(Phase.REVEAL)
    with pytest.raises(ProtocolError, match=r"^server, step reveal: no phase to advance to$"):
        made.server.advance()
    sent = made.play(incoming, Phase.REVEAL)
    made.server.release()
    with pytest.raises(ProtocolError, match=r"^unknown client, step closed: the session takes no more messages$"):
        made.server.receive(sent[0])
    with pytest.raises(ProtocolError, match=r"^server, step closed: no sum to release"):
        made.server.release()
    with pytest.raises(ProtocolError, match=r"^server, step closed: no phase to advance to$"):
        made.server.advance()


def test_no_sum_comes_out_before_the_last_phase() -> None:
    made = Round(5)
    incoming = dict.fromkeys(made.clients, b"")
    for phase in ORDER[:-1]:
        assert made.server.phase is phase
        with pytest.raises(ProtocolError, match="no sum to release yet"):
            made.server.release()
        if phase is Phase.ADVERTISE:
            for client in made.clients.values():
                made.server.receive(client.start())
        else:
            made.play(incoming, phase)
        incoming = dict(made.server.advance())


def test_awaited_names_the_clients_whose_message_has_not_come() -> None:
    made = Round((2, 5, 11))
    assert made.server.awaited == (2, 5, 11)
    made.server.receive(made.clients[5].start())
    assert made.server.awaited == (2, 11)
