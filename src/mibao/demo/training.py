"""Step 2: five hospitals train one model, beside the same training without each protection."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray

from mibao.demo import hospitals
from mibao.demo.hospitals import COMMITTEE, DROPOUTS, FEDAVG_ROUNDS, FEDSGD, NAMES, PRIVACY, ROUNDS, Hospitals
from mibao.demo.model import LinearModel
from mibao.demo.outcome import Cost, HospitalShare, Trained
from mibao.demo.surroundings import Surroundings
from mibao.errors import ProtocolError
from mibao.events import Event
from mibao.federated import Result, Task

_NUMBER_BYTES = 4  # of a plain upload: 32-bit floats


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """The protected model, the records to try it on, and what the step reports."""

    model: LinearModel
    test_features: Float64[ndarray, "rows features"]
    test_labels: Bool[ndarray, " rows"]
    report: Trained
    costs: tuple[Cost, ...]
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plain:
    """A run without secure sums: its weights, seconds and the bytes that moved."""

    weights: Float64[ndarray, " weights"]
    seconds: float
    moved_bytes: int


def train(around: Surroundings) -> TrainingRun:
    """The federated model with secure sums and differential privacy, and everything to compare it with.

    Raises:
        MissingExtra: scikit-learn is not installed.
        BudgetExhausted: the rounds would exceed the promised epsilon.
    """
    held = hospitals.load_hospitals()
    pooled, in_clear = _pooled(around, held), _in_clear(around, held)
    masked = _simulate(around, Task(model=held.model(), data=held.sites.__getitem__, strategy=FEDSGD), ROUNDS)
    private = _simulate(around, held.protected_task(), ROUNDS)
    fedavg = _simulate(around, held.fedavg_task(), FEDAVG_ROUNDS)

    def accuracy(weights: Float64[ndarray, " weights"]) -> float:
        return held.model().accuracy(weights, held.test)

    costs = (
        Cost(
            protection="Records stay apart",
            plain_seconds=pooled.seconds,
            protected_seconds=in_clear.seconds,
            plain_bytes=pooled.moved_bytes,
            protected_bytes=in_clear.moved_bytes,
            plain_accuracy=accuracy(pooled.weights),
            protected_accuracy=accuracy(in_clear.weights),
        ),
        Cost(
            protection="+ secure sums",
            plain_seconds=in_clear.seconds,
            protected_seconds=masked.seconds,
            plain_bytes=in_clear.moved_bytes,
            protected_bytes=masked.upload_bytes,
            plain_accuracy=accuracy(in_clear.weights),
            protected_accuracy=accuracy(masked.weights),
        ),
        Cost(
            protection="+ differential privacy",
            plain_seconds=masked.seconds,
            protected_seconds=private.seconds,
            plain_bytes=masked.upload_bytes,
            protected_bytes=private.upload_bytes,
            plain_accuracy=accuracy(masked.weights),
            protected_accuracy=accuracy(private.weights),
            epsilon=private.epsilon,
        ),
    )
    return TrainingRun(
        model=LinearModel(weights=private.weights[:-1], bias=float(private.weights[-1])),
        test_features=held.test.features,
        test_labels=held.test.targets == 1.0,
        report=_report(held, private, fedavg, pooled_accuracy=accuracy(pooled.weights)),
        costs=costs,
        events=(*private.events, *fedavg.events),
    )


def _pooled(around: Surroundings, held: Hospitals) -> _Plain:
    """All records in one place: what nobody should have to do."""
    started = around.clock_s()
    records = held.pooled()
    weights = held.model().fit(records)
    moved = records.features.size * _NUMBER_BYTES
    return _Plain(weights=weights, seconds=around.clock_s() - started, moved_bytes=moved)


def _in_clear(around: Surroundings, held: Hospitals) -> _Plain:
    """The same rounds with every hospital's gradient sum in clear for the server."""
    started = around.clock_s()
    model, moved = held.model(), 0
    weights, recent = model.initial(), []
    for number in range(ROUNDS):
        sites = [site for at, site in enumerate(held.sites) if at not in DROPOUTS.get(number, frozenset())]
        total = np.sum([model.gradients(weights, site).sum(axis=0) for site in sites], axis=0)
        moved += len(sites) * total.size * _NUMBER_BYTES
        weights = weights - FEDSGD.lr * total / FEDSGD.divisor
        recent.append(weights)
    averaged = np.mean(recent[-FEDSGD.average_last :], axis=0)
    return _Plain(weights=averaged, seconds=around.clock_s() - started, moved_bytes=moved)


def _simulate(around: Surroundings, task: Task, rounds: int) -> Result:
    dropouts = {number: sites for number, sites in DROPOUTS.items() if number < rounds}
    return task.simulate(
        clients=len(NAMES), rounds=rounds, dropouts=dropouts, committee=COMMITTEE, randomness=around.randomness
    )


def _report(held: Hospitals, private: Result, fedavg: Result, *, pooled_accuracy: float) -> Trained:
    if private.epsilon is None or private.delta is None:
        raise ProtocolError("demo training: a run with differential privacy reported no epsilon")
    return Trained(
        hospitals=tuple(
            HospitalShare(name=name, records=len(site.targets), malignant=float(np.mean(site.targets)))
            for name, site in zip(NAMES, held.sites, strict=True)
        ),
        test_records=len(held.test.targets),
        pooled_accuracy=pooled_accuracy,
        accuracy=held.model().accuracy(private.weights, held.test),
        fedavg_accuracy=held.model().accuracy(fedavg.weights, held.test),
        fedavg_rounds=fedavg.rounds,
        epsilon=private.epsilon,
        delta=private.delta,
        noise_multiplier=PRIVACY.noise_multiplier,
        rounds=private.rounds,
        dropouts=tuple((number, NAMES[site]) for number, sites in DROPOUTS.items() for site in sorted(sites)),
        sums=private.rounds + fedavg.rounds,
        committee=COMMITTEE,
        sum_exact=private.sum_exact is True and fedavg.sum_exact is True,
    )
