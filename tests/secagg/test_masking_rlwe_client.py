import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mibao.errors import InputError, ProtocolError
from mibao.secagg.journal import FileJournal, Journal, MemoryJournal
from mibao.secagg.masking import MaskingClient, Phase
from secagg.committee_rounds import NOW, CommitteeRound, committee
from secagg.rounds import signer


@pytest.fixture(params=["memory", "file"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Journal:
    return MemoryJournal() if request.param == "memory" else FileJournal(tmp_path / "journal")


def test_a_client_sends_one_message_and_is_closed() -> None:
    made = CommitteeRound()
    client = made.client(0)
    assert isinstance(client, MaskingClient)
    assert client.phase is Phase.MASK
    client.start()
    assert client.phase is Phase.CLOSED
    with pytest.raises(ProtocolError, match=r"^client 0, step mask: started twice$"):
        client.start()
    with pytest.raises(ProtocolError, match="client 0 has nothing to answer"):
        client.answer(b"")


def test_a_client_started_again_sends_the_same_bytes_whatever_it_is_given(journal: Journal) -> None:
    made = CommitteeRound()
    sent = made.client(0, journal=journal).start()
    again = made.client(0, journal=journal, vector=made.vectors[1]).start()
    assert again == sent
    made.server.receive(sent)
    assert made.server.receive(again) == 0


def test_a_server_that_shows_another_committee_in_the_same_round_gets_the_same_bytes(journal: Journal) -> None:
    made, other = CommitteeRound(), CommitteeRound(committee=committee(6))
    sent = made.client(0, journal=journal).start()
    assert other.client(0, journal=journal).start() == sent


def test_random_bytes_used_before_are_refused(journal: Journal) -> None:
    first, second = CommitteeRound(round_number=3), CommitteeRound(round_number=4)
    randomness = first.randomness(64)
    first.client(0, journal=journal, randomness=randomness).start()
    with pytest.raises(InputError, match=r"^client 0: expected fresh random bytes, got some that were used before$"):
        second.client(0, journal=journal, randomness=randomness).start()


def test_a_crash_between_drawing_and_sending_does_not_lose_the_round() -> None:
    made, journal, randomness = CommitteeRound(), MemoryJournal(), bytes(range(64))
    made.client(0, journal=journal, randomness=randomness).start()
    resumed = MemoryJournal()
    resumed._records = {k: v for k, v in journal._records.items() if len(v) < 100}
    made.server.receive(made.client(0, journal=resumed, randomness=randomness).start())


def test_after_the_expiry_nothing_is_sent() -> None:
    with pytest.raises(ProtocolError, match=r"^client 0, step mask: the round has expired$"):
        CommitteeRound(now=lambda: NOW + 61).client(0).start()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"number": 9}, "^client 9: expected the signing key that the roster pins for it$"),
        ({"signer": signer(5)}, "^client 0: expected the signing key that the roster pins for it$"),
        ({"randomness": bytes(63)}, "^client 0: expected 64 random bytes, got 63$"),
        ({"vector": np.zeros(3, dtype=np.uint64)}, "^vector: expected 20 elements of type uint64, got "),
    ],
)
def test_what_does_not_fit_the_session_is_refused(change: dict[str, Any], error: str) -> None:
    with pytest.raises(InputError, match=error):
        CommitteeRound().client(0, **change)


def test_a_client_cannot_be_copied_or_printed_open() -> None:
    client = CommitteeRound().client(0)
    assert repr(client) == "<RlweClient 0, round 3, mask>"
    for door in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled or copied"):
            door(client)


def test_a_message_is_no_longer_than_promised() -> None:
    made = CommitteeRound(committee=committee(32, corrupt=10, packing=8), length=100_000)
    assert len(made.client(0).start()) <= 1.05 * 4 * 100_000 + 65_536
