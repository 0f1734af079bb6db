"""The pairwise scheme on a sparse graph, and with an honest server: four messages."""

from typing import Any

import numpy as np
import pytest

from counts import counts
from mibao.errors import InputError, ProtocolError
from mibao.secagg import Phase, Trust, run_round
from mibao.secagg import masking_pairwise as steps
from mibao.secagg.masking_pairwise import ShareContext
from mibao.secagg.masking_pairwise_messages import Kind
from mibao.secagg.planning import plan_graph
from secagg.rounds import Round, body_of

PLAN = plan_graph(clients=60, corrupt_share=0.1, dropout_share=0.1)
SPARSE: dict[str, Any] = {
    "threshold": 31,
    "trust": Trust.HONEST_SERVER,
    "neighbours": PLAN.neighbours,
    "share_threshold": PLAN.threshold,
    "length": 4,
}
HONEST: dict[str, Any] = {"trust": Trust.HONEST_SERVER}


def run_honest(made: Round, dropped: dict[int, Phase]) -> tuple[np.ndarray, dict[int, int]]:
    """The sum with an honest server, and how many messages each client sent."""
    sent = dict.fromkeys(made.clients, 0)
    receive = made.server.receive

    def counted(message: bytes) -> int:
        number = receive(message)
        sent[number] += 1
        return number

    made.server.receive = counted  # type: ignore[method-assign]
    return run_round(made.server, made.clients, dropped=dropped).total, sent


def test_the_sum_is_exact_in_random_patterns_of_dropouts() -> None:
    for case in range(counts(short=20, long=1000)):
        choice = np.random.default_rng(case)
        clients = int(choice.integers(3, 9))
        trust = Trust.HONEST_SERVER if case % 2 else Trust.MALICIOUS_SERVER
        made = Round(clients, threshold=clients // 2 + 1, trust=trust, seed=case)
        gone = choice.choice(clients, int(choice.integers(0, clients - clients // 2)), replace=False)
        phases = choice.choice([Phase.ADVERTISE, Phase.SHARE, Phase.MASK], len(gone))
        total, _ = run_honest(made, dict(zip(gone.tolist(), phases, strict=True)))
        assert np.array_equal(total, made.sum_of(tuple(set(range(clients)) - set(gone.tolist())))), case


def test_a_sparse_graph_gives_the_exact_sum_for_four_messages_a_client() -> None:
    dropped = {3: Phase.MASK, 7: Phase.SHARE, 50: Phase.ADVERTISE, 9: Phase.MASK}
    made = Round(60, **SPARSE)
    total, sent = run_honest(made, dropped)
    alive = tuple(set(range(60)) - set(dropped))
    assert np.array_equal(total, made.sum_of(alive))
    assert {sent[number] for number in alive} == {4}


def test_each_client_has_its_neighbours_and_they_have_it() -> None:
    session = Round(60, **SPARSE).session
    context = ShareContext(binding=bytes(32), keys_hash=bytes(32))
    found = steps.neighbours(session, context, range(60))
    assert {len(near) for near in found.values()} == {PLAN.neighbours}
    assert all(number in found[peer] and peer != number for number, near in found.items() for peer in near)


def test_the_graph_hangs_on_every_advertised_key() -> None:
    session = Round(60, **SPARSE).session
    graphs = {
        steps.neighbours(session, ShareContext(binding=b, keys_hash=k), range(60))[0]
        for b, k in ((bytes(32), bytes(32)), (bytes(32), b"k" * 32), (b"b" * 32, bytes(32)))
    }
    assert len(graphs) == 3


def test_what_crosses_the_neighbourhood_or_leaves_it_too_small_is_refused() -> None:
    """One round, for it takes its time: shares to strangers, shares from strangers, and too few neighbours left."""
    made = Round(60, **{**SPARSE, "neighbours": 4, "share_threshold": 5})
    incoming = made.run_to(Phase.SHARE)
    sent = {number: made.clients[number].answer(message) for number, message in incoming.items()}
    body = body_of(sent[0])
    near = {number for number, _ in body["shares"]}
    stranger = min(set(range(1, 60)) - near)
    body["shares"] = sorted([[stranger, body["shares"][0][1]], *body["shares"][1:]])
    with pytest.raises(ProtocolError, match=r"^client 0, step share: shares: expected one for every other"):
        made.server.receive(made.forge(Kind.SHARES, body, sender=0))
    for message in sent.values():
        made.server.receive(message)
    deliveries = dict(made.server.advance())
    delivered = body_of(deliveries[0])["shares"]
    for victim, shares, error in (
        (0, sorted([*delivered, [stranger, delivered[0][1]]]), "shares: from a client that advertised no keys"),
        (
            1,
            body_of(deliveries[1])["shares"][:3],
            "expected at least 5 clients of the neighbourhood",
        ),
    ):
        with pytest.raises(ProtocolError, match=error):
            made.clients[victim].answer(
                made.format.write_broadcast(Kind.DELIVERY, {"receiver": victim, "shares": shares})
            )
    made.play({n: m for n, m in deliveries.items() if n > 1}, Phase.MASK)
    made.play(made.server.advance(), Phase.CONFIRM)
    with pytest.raises(ProtocolError, match="of its 5 neighbours needed are left"):
        made.server.release()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"neighbours": 8}, "neighbours and share_threshold together"),
        ({"neighbours": 9, "share_threshold": 5}, "an even number of neighbours"),
        ({"neighbours": 8, "share_threshold": 5, "trust": Trust.MALICIOUS_SERVER}, "and an honest server"),
        ({"neighbours": 60, "share_threshold": 5}, "neighbours of 2 to 58"),
        ({"neighbours": 8, "share_threshold": 10}, "share_threshold of 2 to 9"),
    ],
)
def test_graphs_that_cannot_be_are_refused(change: dict[str, Any], error: str) -> None:
    given = {"trust": Trust.HONEST_SERVER, "threshold": 31, **change}
    with pytest.raises(InputError, match=error):
        Round(60, **given)


def test_below_60_clients_a_sparse_graph_is_refused() -> None:
    with pytest.raises(InputError, match="clients of a sparse graph of 60 to 1024, got 59"):
        Round(59, **{**SPARSE, "threshold": 30})


def test_an_honest_server_is_trusted_with_the_survivors_and_tolerates_no_collusion_of_its_own() -> None:
    made = Round(5, **HONEST)
    assert made.session.tolerated_colluders == 0
    _, sent = run_honest(made, {})
    assert set(sent.values()) == {4}
