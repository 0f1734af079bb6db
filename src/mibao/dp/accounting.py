"""What the noise is worth: the privacy of one release, of all releases, and a hard stop.

One bound is our own code, because `dp-accounting` has no event for sums of discrete Gaussians; composition over
rounds, sampling, and the conversion to epsilon and delta are that library's. Neighbours differ by one record more or
less, or by one client, whichever the noise was scaled for.

What is assumed: hospitals do not pool what they know of their own noise (``colluders`` says what is left if some
do), and each adds the noise that it should.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mibao.errors import BudgetExhausted, InputError
from mibao.events import Event, NoiseAdded
from mibao.types import Mechanism

_LOSS_INTERVAL = 1e-3  # rounded up, hence a bound; a tenth of it changes epsilon in the fifth digit
_ROUND_UP = 1.0 + 1e-12  # more than the float error of a few operations


def sum_distance(*, variance_each: float, contributors: int) -> float:
    """``tau``: how far a sum of discrete Gaussians is from one, in privacy loss a coordinate.

    Raises:
        InputError: the variance is under 1/4, where the theorem says nothing, or there is no contributor.

    Source: Kairouz, Liu and Steinke, ICML 2021, theorem 1 (``tau``).
    """
    if not 0.25 <= variance_each < math.inf or contributors < 1:
        raise InputError(
            "accounting: expected at least one contributor and a variance of 1/4 or more each, "
            f"got {contributors} and {variance_each:g}"
        )
    decay = -2.0 * math.pi**2 * variance_each
    return 10.0 * math.fsum(math.exp(decay * k / (k + 1)) for k in range(1, contributors))


def concentrated_rho(*, l2_sensitivity: float, variance_each: float, contributors: int, dimension: int) -> float:
    """``rho`` of the zero-concentrated DP that a sum carrying this noise has.

    All in grid units. With ``n`` contributors the release is ``epsilon**2 / 2``-concentrated differentially private
    for ``epsilon = l2_sensitivity / sqrt(n * variance_each) + tau * sqrt(dimension)``. The theorem's other branch,
    smaller only where ``tau`` matters, is not used: noise worth having makes ``tau`` vanish.

    Raises:
        InputError: as :func:`sum_distance`, or a sensitivity or dimension that is not positive.

    Source: Kairouz, Liu and Steinke, "The Distributed Discrete Gaussian Mechanism for Federated Learning with
    Secure Aggregation", ICML 2021, theorem 1.
    """
    if not 0.0 < l2_sensitivity < math.inf or dimension < 1:
        raise InputError("accounting: expected a positive sensitivity and dimension")
    tau = sum_distance(variance_each=variance_each, contributors=contributors)
    epsilon = l2_sensitivity / math.sqrt(contributors * variance_each) + tau * math.sqrt(dimension)
    return epsilon * epsilon / 2.0 * _ROUND_UP


def rho_of(event: Event, *, colluders: int = 0) -> float:
    """``rho`` of one recorded release, against an observer who knows the noise of ``colluders`` contributors.

    Raises:
        InputError: the event is no release of a known mechanism, or colluders leave no noise.
    """
    if not isinstance(event, NoiseAdded) or event.mechanism is not Mechanism.DISTRIBUTED_DISCRETE_GAUSSIAN:
        raise InputError(f"accounting: no privacy bound is known for a {event.kind} event of this mechanism")
    if not 0 <= colluders < event.contributors:
        raise InputError(f"accounting: expected under {event.contributors} colluders, got {colluders}")
    return concentrated_rho(
        l2_sensitivity=event.sensitivity,
        variance_each=(event.noise_multiplier * event.sensitivity) ** 2 / event.contributors,
        contributors=event.contributors - colluders,
        dimension=event.dimension,
    )


def epsilon_spent(events: Sequence[Event], *, delta: float, colluders: int = 0) -> float:
    """Epsilon of all recorded releases together, at ``delta``, against whoever sees what was released.

    No release costs nothing. Where clients were drawn by chance for sums with central noise, that is counted in their
    favour; it does not count for sums with distributed noise, for which no bound is known to the accountant.

    Raises:
        InputError: ``delta`` is not in (0, 1), releases of both kinds of noise, or as :func:`rho_of`: what is not
            understood is never free.
    """
    if not 0.0 < delta < 1.0:
        raise InputError(f"accounting: expected a delta between 0 and 1, got {delta:g}")
    if not events:
        return 0.0
    gaussian = [event for event in events if isinstance(event, NoiseAdded) and event.mechanism is Mechanism.GAUSSIAN]
    if not gaussian:
        return _epsilon_distributed(events, delta=delta, colluders=colluders)
    if len(gaussian) < len(events):
        raise InputError("accounting: no bound is known for central and distributed noise together")
    if colluders:
        raise InputError("accounting: central noise is known to nobody but the server; there are no colluders")
    return _epsilon_gaussian(Counter((event.noise_multiplier, event.sampling_rate) for event in gaussian), delta)


def epsilon_against_witness(events: Sequence[Event], *, delta: float) -> float:
    """Epsilon against one who also sees who takes part: being drawn by chance then protects nobody.

    Raises:
        InputError: as :func:`epsilon_spent`.
    """
    seen = [replace(event, sampling_rate=1.0) if isinstance(event, NoiseAdded) else event for event in events]
    return epsilon_spent(seen, delta=delta)


def _epsilon_distributed(events: Sequence[Event], *, delta: float, colluders: int) -> float:
    # Importing it takes over a second (it loads SciPy's optimisers), and only accounting needs it.
    import dp_accounting  # noqa: PLC0415

    accountant = dp_accounting.rdp.RdpAccountant()
    for rho, releases in Counter(rho_of(event, colluders=colluders) for event in events).items():
        accountant.compose(dp_accounting.ZCDpEvent(rho), releases)
    return float(accountant.get_epsilon(delta))


def _epsilon_gaussian(releases: Mapping[tuple[float, float], int], delta: float) -> float:
    """By the distribution of the privacy loss; neighbours differ by one client more or less."""
    from dp_accounting import pld  # noqa: PLC0415

    composed: Any = None
    for (multiplier, rate), count in releases.items():
        one = _loss_distribution(multiplier, rate)
        several = one.self_compose(count) if count > 1 else one
        composed = several if composed is None else composed.compose(several)
    if not isinstance(composed, pld.privacy_loss_distribution.PrivacyLossDistribution):
        raise InputError("accounting: expected at least one release")
    return float(composed.get_epsilon_for_delta(delta))


@functools.lru_cache(maxsize=64)
def _loss_distribution(multiplier: float, rate: float) -> Any:
    from dp_accounting.pld import privacy_loss_distribution  # noqa: PLC0415

    return privacy_loss_distribution.from_gaussian_mechanism(
        multiplier, sampling_prob=rate, value_discretization_interval=_LOSS_INTERVAL
    )


def require_affordable(spent: Sequence[Event], upcoming: Event, *, epsilon: float, delta: float) -> None:
    """Return only if ``upcoming`` may be released after ``spent`` within ``epsilon`` at ``delta``.

    Raises:
        BudgetExhausted: it would exceed the promise; the message says spent and promised.
        InputError: ``epsilon`` is negative or not a number, or as :func:`epsilon_spent`.
    """
    if not epsilon >= 0.0:
        raise InputError(f"accounting: expected a budget of 0 or more, got {epsilon:g}")
    if epsilon_spent([*spent, upcoming], delta=delta) > epsilon:
        so_far = epsilon_spent(spent, delta=delta)
        raise BudgetExhausted(
            f"privacy budget: {so_far:.4g} spent of {epsilon:.4g} promised (delta {delta:g}) after {len(spent)} "
            "releases, another would exceed it"
        )
