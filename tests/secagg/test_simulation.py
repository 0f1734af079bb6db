from __future__ import annotations

import numpy as np
import pytest

from mibao.errors import InputError
from mibao.secagg import Phase, simulate_sum
from secagg.rounds import Round


def simulate(made: Round, **changes: object) -> object:
    arguments: dict[str, object] = {"signers": made.signers, "randomness": made.randomness, **changes}
    vectors = arguments.pop("vectors", made.vectors)
    return simulate_sum(made.session, vectors, **arguments)  # type: ignore[arg-type]


def test_a_client_that_never_sends_its_vector_needs_none_and_an_absent_one_no_key() -> None:
    made = Round(5, threshold=3)
    present = {number: made.vectors[number] for number in (0, 2, 4)}
    signers = {number: key for number, key in made.signers.items() if number != 1}
    released = simulate(made, vectors=present, signers=signers, dropped={1: Phase.ADVERTISE, 3: Phase.MASK})
    assert np.array_equal(released.total, made.sum_of((0, 2, 4)))  # type: ignore[attr-defined]


def test_randomness_is_drawn_once_a_client() -> None:
    made, drawn = Round(5), []

    def randomness(count: int) -> bytes:
        drawn.append(count)
        return made.randomness(count)

    simulate(made, randomness=randomness)
    assert len(drawn) == 5 and len(set(drawn)) == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"vectors": {}}, "expected a vector for client 0"),
        ({"signers": {}}, "expected a signing key for client 0"),
        ({"dropped": {9: Phase.MASK}}, "client 9 cannot drop out at phase 'mask'"),
        ({"dropped": {1: Phase.CLOSED}}, "client 1 cannot drop out at phase 'closed'"),
    ],
)
def test_wrong_input_is_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        simulate(Round(5), **changes)
