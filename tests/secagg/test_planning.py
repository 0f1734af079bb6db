import itertools
import math

import numpy as np
import pytest

from mibao.errors import InputError
from mibao.secagg import planning
from mibao.secagg.planning import committee_corrupt, log2_above, plan_graph, require_safe_committee


@pytest.mark.parametrize(
    ("population", "marked", "sample", "limit"), [(8, 3, 4, 1), (9, 4, 5, 0), (7, 7, 3, 2), (6, 0, 3, 0)]
)
def test_the_tail_is_what_counting_gives(population: int, marked: int, sample: int, limit: int) -> None:
    samples = list(itertools.combinations(range(population), sample))
    share = sum(sum(one < marked for one in drawn) > limit for drawn in samples) / len(samples)
    found = log2_above(population, marked, sample, limit)
    assert found == pytest.approx(math.log2(share)) if share else found == -math.inf


@pytest.mark.parametrize("clients", [60, 100, 1000])
@pytest.mark.parametrize(("corrupt", "dropout"), [(0.1, 0.1), (0.1, 0.3), (0.3, 0.1)])
def test_a_plan_keeps_both_promises_and_one_size_smaller_does_not(clients: int, corrupt: float, dropout: float) -> None:
    plan = plan_graph(clients=clients, corrupt_share=corrupt, dropout_share=dropout)
    assert not plan.complete
    assert plan.security_bits >= 40
    assert plan.abort_bits >= 20
    bad, gone, k, t = int(corrupt * clients), int(dropout * clients), plan.neighbours, plan.threshold
    assert math.log2(clients) + log2_above(clients - 1, bad, k, t - 1) <= -40
    assert math.log2(clients) + log2_above(clients - 1, gone, k, k - t) <= -20
    assert planning._with_neighbours(clients, k - 2, bad, gone) is None


def test_a_plan_says_what_it_promises() -> None:
    plan = plan_graph(clients=100, corrupt_share=0.1, dropout_share=0.3)
    assert str(plan) == "100 clients: 34 neighbours each, threshold 11 of 35; security 2^-55, abort 2^-24"
    assert str(plan_graph(clients=59, corrupt_share=0.1, dropout_share=0.3)) == (
        "59 clients: complete graph, threshold 40 of 59; security 2^-inf, abort 2^-inf"
    )


@pytest.mark.parametrize("clients", [2, 5, 30, 59])
def test_below_60_clients_the_graph_is_complete(clients: int) -> None:
    assert plan_graph(clients=clients, corrupt_share=0.2, dropout_share=0.2).complete


def test_survivors_fall_apart_no_more_often_than_the_bound_says() -> None:
    clients, neighbours, gone, rounds = 40, 4, 16, 3000
    bound = 2 ** planning._log2_falls_apart(clients, neighbours, gone, 0)
    choice, apart = np.random.default_rng(1), 0
    for _ in range(rounds):
        alive = np.ones(clients, dtype=bool)
        alive[choice.choice(clients, gone, replace=False)] = False
        (places,) = np.nonzero(alive)
        gaps = np.diff(np.concatenate([places, places[:1] + clients]))
        apart += int((gaps > neighbours // 2).sum() >= 2)
    assert 0 < apart / rounds <= bound * 1.2


@pytest.mark.parametrize(
    ("clients", "corrupt", "dropout", "error"),
    [
        (1, 0.0, 0.0, "expected 2 clients or more"),
        (10, 1.0, 0.0, "shares of 0 to 1"),
        (10, 0.0, -0.1, "shares of 0 to 1"),
        (10, 0.5, 0.6, "5 corrupt and 6 dropping out of 10 leave no threshold"),
        (100, 0.5, 0.6, "50 corrupt and 60 dropping out of 100 leave no threshold"),
    ],
)
def test_promises_that_cannot_be_kept_are_refused(clients: int, corrupt: float, dropout: float, error: str) -> None:
    with pytest.raises(InputError, match=error):
        plan_graph(clients=clients, corrupt_share=corrupt, dropout_share=dropout)


def test_a_sampled_committee_is_sized_for_its_population_or_refused() -> None:
    assert committee_corrupt(population=100, corrupt_share=0.1, committee=32) == 10
    require_safe_committee(population=100, corrupt_share=0.1, committee=32, corrupt=10)
    with pytest.raises(InputError, match=r"of 32 sampled from 10000, 0\.1 of them corrupt, 19 may be corrupt"):
        require_safe_committee(population=10_000, corrupt_share=0.1, committee=32, corrupt=10)
    with pytest.raises(InputError, match=r"expected a committee within its population"):
        committee_corrupt(population=10, corrupt_share=0.1, committee=32)
