"""What a cheating server could cancel by showing clients different sets: every case, for few clients.

A model of ``docs/spec/secagg.md``, section 5: masks that nobody can open must cancel, or the uploads stay hidden.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import pytest

Sharers = Mapping[int, frozenset[int]]


def sets_of(members: frozenset[int], least: int) -> list[frozenset[int]]:
    sizes = range(least, len(members) + 1)
    return [frozenset(chosen) for size in sizes for chosen in itertools.combinations(sorted(members), size)]


def open_sums(
    honest: frozenset[int], alive: frozenset[int], dropped: frozenset[int], saw: Sharers
) -> set[frozenset[int]]:
    """Groups of honest alive clients whose uploads add up to something without an unknown mask."""
    groups = {frozenset([client]) for client in honest & alive}
    hidden: set[int] = set()
    for one, other in itertools.combinations(sorted(honest - dropped), 2):
        sides = [client for client, peer in ((one, other), (other, one)) if client in alive and peer in saw[client]]
        if len(sides) == 1:
            hidden |= set(sides)
        elif len(sides) == 2:
            first, second = (next(group for group in groups if client in group) for client in (one, other))
            groups = (groups - {first, second}) | {first | second}
    return {group for group in groups if not group & hidden}


def attacks(clients: int, threshold: int, corrupt: int) -> Iterator[tuple[frozenset[int], set[frozenset[int]]]]:
    """For every transcript that can be confirmed and all views of those who did not: the honest alive, and the sums."""
    everyone, honest = frozenset(range(clients)), frozenset(range(corrupt, clients))
    for sharers in sets_of(everyone, threshold):
        for alive in sets_of(sharers, threshold):
            others = honest & alive
            for confirmed in sets_of(others, max(threshold - len(alive - honest), 0)):
                shown = [
                    [sharers] if client in confirmed else [s for s in sets_of(everyone, threshold) if client in s]
                    for client in sorted(others)
                ]
                for views in itertools.product(*shown):
                    saw = dict(zip(sorted(others), views, strict=True))
                    yield others, open_sums(honest, alive, sharers - alive, saw)


@pytest.mark.parametrize(
    ("clients", "threshold", "corrupt"),
    [(3, 2, 0), (3, 3, 2), (4, 3, 0), (4, 3, 1), (4, 4, 3), (5, 4, 1), (5, 4, 2), (5, 5, 4), (6, 5, 3)],
)
def test_no_set_of_views_opens_less_than_the_sum_of_all_honest_survivors(
    clients: int, threshold: int, corrupt: int
) -> None:
    assert corrupt <= 2 * threshold - clients - 1
    opened = 0
    for survivors, sums in attacks(clients, threshold, corrupt):
        assert sums <= {survivors}
        opened += len(sums)
    assert opened, "the model never lets even the true sum out"


@pytest.mark.parametrize(("clients", "threshold", "corrupt"), [(4, 3, 2), (5, 4, 3)])
def test_one_conspirator_more_than_tolerated_would_open_smaller_sums(
    clients: int, threshold: int, corrupt: int
) -> None:
    assert corrupt == 2 * threshold - clients
    assert any(sums - {survivors} for survivors, sums in attacks(clients, threshold, corrupt))
