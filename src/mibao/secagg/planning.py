"""How many neighbours, shares and committee members a promise takes: tail probabilities, counted exactly.

Source: Bell et al., "Secure Single-Server Aggregation with (Poly)Logarithmic Overhead", CCS 2020;
``docs/spec/secagg.md``, sections 7 and 14.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from mibao.errors import InputError
from mibao.secagg.masking import COMPLETE_BELOW

SECURITY_BITS = 40
ABORT_BITS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphPlan:
    """Who shares with whom: every client has ``neighbours``, and ``threshold`` of a client's shares open its secrets.

    Attributes:
        clients: How many take part.
        neighbours: Of each client, k; ``clients - 1`` is the complete graph.
        threshold: Of the ``neighbours + 1`` shares of a secret, t; its own among them.
        security_bits: ``-log2`` of a bound on the chance that a secret leaks or the honest clients fall apart.
        abort_bits: ``-log2`` of a bound on the chance that dropouts stop the round.
    """

    clients: int
    neighbours: int
    threshold: int
    security_bits: float
    abort_bits: float

    @property
    def complete(self) -> bool:
        """Whether everybody is everybody's neighbour."""
        return self.neighbours == self.clients - 1

    def __str__(self) -> str:
        graph = "complete graph" if self.complete else f"{self.neighbours} neighbours each"
        return (
            f"{self.clients} clients: {graph}, threshold {self.threshold} of {self.neighbours + 1}; "
            f"security 2^-{_shown(self.security_bits)}, abort 2^-{_shown(self.abort_bits)}"
        )


def plan_graph(*, clients: int, corrupt_share: float, dropout_share: float) -> GraphPlan:
    """The smallest graph that is secure to ``2**-40`` and finishes to ``2**-20``; complete below 60 clients.

    ``floor(corrupt_share * clients)`` clients conspire with a server that keeps to the rules, and any
    ``floor(dropout_share * clients)`` drop out, neither knowing the graph beforehand.

    Raises:
        InputError: a share is out of range, or no graph keeps both promises.
    """
    if clients < 2 or not (0.0 <= corrupt_share < 1.0 and 0.0 <= dropout_share < 1.0):
        raise InputError(
            "plan: expected 2 clients or more and shares of 0 to 1, "
            f"got {clients}, {corrupt_share:g} corrupt, {dropout_share:g} dropping out"
        )
    corrupt, dropped = math.floor(corrupt_share * clients), math.floor(dropout_share * clients)
    if clients < COMPLETE_BELOW:
        return _complete(clients, corrupt, dropped)
    # An even number of neighbours gives every client the same number whatever the number of clients.
    for neighbours in range(2, clients - 1, 2):
        found = _with_neighbours(clients, neighbours, corrupt, dropped)
        if found is not None:
            return found
    return _complete(clients, corrupt, dropped)


def committee_corrupt(*, population: int, corrupt_share: float, committee: int) -> int:
    """The fewest members that must be taken for corrupt, t, in a committee sampled from a population.

    More than t are with probability at most ``2**-40``. Raises ``InputError`` for numbers out of range.
    """
    if not 1 <= committee <= population or not 0.0 <= corrupt_share < 1.0:
        raise InputError(
            "plan: expected a committee within its population and a share of 0 to 1, "
            f"got {committee} of {population}, {corrupt_share:g}"
        )
    marked = math.floor(corrupt_share * population)
    for corrupt in range(committee + 1):
        if log2_above(population, marked, committee, corrupt) <= -SECURITY_BITS:
            return corrupt
    raise AssertionError("more than all of a committee cannot be corrupt")  # pragma: no cover


def require_safe_committee(*, population: int, corrupt_share: float, committee: int, corrupt: int) -> None:
    """Return if a committee sampled at random has more than ``corrupt`` corrupt members only once in ``2**40``.

    Raises:
        InputError: it has them more often.
    """
    needed = committee_corrupt(population=population, corrupt_share=corrupt_share, committee=committee)
    if corrupt < needed:
        raise InputError(
            f"committee: of {committee} sampled from {population}, {corrupt_share:g} of them corrupt, {needed} may be "
            f"corrupt, expected at most {corrupt}: take a larger committee, or name and pin it"
        )


def log2_above(population: int, marked: int, sample: int, limit: int) -> float:
    """``log2`` of the chance that a sample without replacement holds more than ``limit`` marked ones, rounded up."""
    ways = _ways(population, marked, sample)
    return _log2_ratio(sum(ways[limit + 1 :]), math.comb(population, sample))


@lru_cache(maxsize=64)
def _ways(population: int, marked: int, sample: int) -> list[int]:
    """For each number of marked ones how many samples hold it."""
    return [
        math.comb(marked, hit) * math.comb(population - marked, sample - hit) if hit <= marked else 0
        for hit in range(sample + 1)
    ]


def _complete(clients: int, corrupt: int, dropped: int) -> GraphPlan:
    # The threshold in the middle of what is safe (more than the corrupt) and what finishes.
    most = clients - dropped
    if corrupt + 1 > most:
        raise InputError(
            f"plan: {corrupt} corrupt and {dropped} dropping out of {clients} leave no threshold that is both safe "
            "and reached"
        )
    threshold = max(corrupt + 1, min(most, 2 * clients // 3 + 1))
    return GraphPlan(
        clients=clients,
        neighbours=clients - 1,
        threshold=threshold,
        security_bits=math.inf,
        abort_bits=math.inf,
    )


def _with_neighbours(clients: int, neighbours: int, corrupt: int, dropped: int) -> GraphPlan | None:
    """A plan with this many neighbours: a client's are a random sample of the others; union bound over clients."""
    others, union = clients - 1, math.log2(clients)
    connected = _log2_falls_apart(clients, neighbours, corrupt, dropped)
    for threshold in range(2, neighbours + 2):
        # A secret leaks when its owner's neighbours hold `threshold` corrupt ones among them.
        leaks = log2_above(others, min(corrupt, others), neighbours, threshold - 1) + union
        security = _log2_sum(leaks, connected)
        if security > -SECURITY_BITS:
            continue
        # Shares are lost when more than k + 1 - t of an owner's neighbours and itself drop out.
        stuck = log2_above(others, min(dropped, others), neighbours, neighbours - threshold) + union
        if stuck > -ABORT_BITS:
            return None
        return GraphPlan(
            clients=clients,
            neighbours=neighbours,
            threshold=threshold,
            security_bits=-security,
            abort_bits=-stuck,
        )
    return None


def _log2_falls_apart(clients: int, neighbours: int, corrupt: int, dropped: int) -> float:
    """A bound on ``log2`` of the chance that the honest survivors are not connected.

    Clients stand in random order on a circle, each linked to the ``k / 2`` next on either side. Survivors with fewer
    than ``k / 2`` others between them are linked, so they fall apart only where two runs of ``k / 2`` are all gone.

    Source: Bell et al. 2020, definition 3.3 (Harary graphs) and lemma 3.7.
    """
    gone = min(corrupt + dropped, clients)
    if gone < neighbours:
        return -math.inf
    runs = math.comb(clients, 2)
    return _log2_ratio(runs * math.comb(gone, neighbours), math.comb(clients, neighbours))


def _log2_ratio(part: int, whole: int) -> float:
    if part == 0:
        return -math.inf
    return math.log2(part / whole) if whole < 1 << 900 else _log2_int(part) - _log2_int(whole)


def _log2_int(value: int) -> float:
    shift = max(0, value.bit_length() - 60)
    return math.log2(value >> shift) + shift


def _log2_sum(a: float, b: float) -> float:
    high, low = max(a, b), min(a, b)
    return high if low == -math.inf else high + math.log2(1.0 + 2.0 ** (low - high))


def _shown(bits: float) -> str:
    return "inf" if bits == math.inf else f"{bits:.0f}"
