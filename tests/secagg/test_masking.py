from __future__ import annotations

import pytest

from mibao.errors import InputError
from mibao.secagg import Session, default_threshold
from mibao.secagg.masking import MAX_CLIENTS
from mibao.types import RandomId
from secagg.rounds import signer

KEYS = {number: signer(number).public for number in (9, 4, 2, 7, 5)}


def session(**changes: object) -> Session:
    fields: dict[str, object] = {
        "session_id": RandomId(bytes(16)),
        "round": 0,
        "roster": KEYS,
        "threshold": 4,
        "min_clients": 3,
        "length": 10,
        "modulus_bits": 32,
    }
    return Session(**{**fields, **changes})  # type: ignore[arg-type]


def test_the_roster_is_sorted_and_cannot_be_changed_afterwards() -> None:
    given = dict(KEYS)
    made = session(roster=given)
    given.clear()
    assert list(made.roster) == [2, 4, 5, 7, 9]
    with pytest.raises(TypeError):
        made.roster[2] = KEYS[4]  # type: ignore[index]


def test_the_default_threshold_stands_against_a_third_of_the_clients_and_the_server() -> None:
    for clients in range(2, MAX_CLIENTS + 1):
        threshold = default_threshold(clients)
        corrupt = (clients - 1) // 3
        assert clients / 2 < threshold <= clients
        assert 2 * threshold > clients + corrupt, "two survivor sets could both be signed"
        assert threshold > corrupt, "the corrupt clients' own shares would be enough"


@pytest.mark.parametrize(("threshold", "colluders"), [(3, 0), (4, 2), (5, 4)])
def test_tolerated_colluders_follow_from_the_threshold(threshold: int, colluders: int) -> None:
    made = session(threshold=threshold)
    assert made.tolerated_colluders == colluders
    # With one colluder more, two disjoint groups of honest clients could each complete a survivor set.
    corrupt, honest = colluders + 1, len(KEYS) - colluders - 1
    assert 2 * (threshold - corrupt) <= honest
    assert 2 * (threshold - colluders) > len(KEYS) - colluders


def test_no_phase_ends_with_fewer_clients_than_both_limits_ask() -> None:
    assert session(threshold=3, min_clients=5).least_alive == 5
    assert session(threshold=4, min_clients=2).least_alive == 4


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"roster": {1: KEYS[2]}}, "clients of 2 to"),
        ({"threshold": 2}, "threshold of 3 to 5, got 2"),
        ({"threshold": 6}, "threshold of 3 to 5, got 6"),
        ({"min_clients": 1}, "min_clients of 2 to 5, got 1"),
        ({"min_clients": 6}, "min_clients of 2 to 5, got 6"),
        ({"round": -1}, "round of 0"),
        ({"round": 1 << 32}, "round of 0"),
        ({"length": 0}, "length of 1"),
        ({"length": (1 << 27) + 1}, "length of 1"),
        ({"modulus_bits": 16}, "modulus"),
        ({"task_hash": b"short"}, "task hash of 32 bytes"),
        ({"roster": {-1: KEYS[2], 1: KEYS[4], 2: KEYS[5], 3: KEYS[7], 4: KEYS[9]}}, "client number"),
        ({"roster": {1: KEYS[2], 2: KEYS[4], 3: KEYS[5], 4: KEYS[7], 5: KEYS[2]}}, "got one twice"),
    ],
)
def test_a_session_out_of_range_is_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        session(**changes)


def test_a_threshold_for_one_client_is_refused() -> None:
    with pytest.raises(InputError, match="clients of 2 to"):
        default_threshold(1)
