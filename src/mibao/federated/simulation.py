"""A whole training run on one machine: the same rounds, nodes and server as between machines."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

from jaxtyping import Float64
from numpy import ndarray

from mibao.crypto.rng import random_bytes
from mibao.errors import BudgetExhausted, InputError, ProtocolError
from mibao.events import Event
from mibao.federated.actors import Actors
from mibao.federated.cohorts import draw_by_chance, draw_cohort
from mibao.federated.committee import MEMBERS, Keys, committee_for
from mibao.federated.journal import Journal
from mibao.federated.masks import OneShot
from mibao.federated.privacy import NoiseSource, Unit
from mibao.federated.records import Records
from mibao.federated.server import Server
from mibao.federated.task import MIN_SITES, NO_DROPOUTS, Task
from mibao.federated.transport import Evaluated, Messages, Outcome, Refused, Sums, Transport, Works, signers_for
from mibao.federated.workers import Workers
from mibao.types import RandomId
from mibao.types import Strategy as StrategyName

_PLAIN_NUMBER_BYTES = 4
_FEW_SITES = 16
MAX_WORKERS = 256
BEFORE = -1  # the number of the report on the model that training starts from
_NO_COMMITTEE = "simulation: a committee opens sums where every message of the masking is run: the engine 'messages'"


class Engine(Enum):
    """How the sites of a simulation are run."""

    AUTO = "auto"  # messages for a secure sum over few sites, sums for the rest
    MESSAGES = "messages"  # every site's node, every message of the masking
    SUMS = "sums"  # a cohort at once; sums as the masks would leave them
    RAY = "ray"  # the same, the local work on the actors of a Ray cluster


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RoundReport:
    """One round, as a live view shows it and the metrics' file keeps it."""

    round: int
    seconds: float
    invited: int
    survivors: int
    refused: tuple[Refused, ...]
    abandoned: str
    upload_bytes: int
    metrics: Mapping[str, float]
    epsilon: float | None
    events: tuple[Event, ...] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result:
    """What came of a training run.

    Attributes:
        weights: The trained model, as one vector.
        rounds: How many rounds ran.
        events: What happened, in order, for the ledger.
        epsilon: Privacy spent at ``delta`` against whoever sees the models; ``None`` without differential privacy.
        epsilon_against_witness: The same against one who also sees who takes part in which round.
        delta: The task's; ``None`` without differential privacy.
        sum_exact: In every round the released sum was, bit for bit, the sum of what its sites put in; ``None`` where
            no masks were run.
        survivors: For each round, the sites whose upload is in the sum.
        refused: Sites that rounds went on without, and why.
        abandoned: Rounds of which no sum came out, and why.
        reports: One a round; before them, where it was asked for, one with the number ``BEFORE``.
        stopped: Why it ended before its last round: the privacy budget; else empty.
        upload_bytes: All bytes that sites sent, with every message of the masking where it was run.
        plain_bytes: What the same uploads would be as plain 32-bit floats.
        seconds: Wall time of the rounds.
    """

    weights: Float64[ndarray, "weights"]
    rounds: int
    events: tuple[Event, ...]
    epsilon: float | None
    epsilon_against_witness: float | None
    delta: float | None
    sum_exact: bool | None
    survivors: tuple[tuple[int, ...], ...]
    refused: tuple[Refused, ...]
    abandoned: Mapping[int, str]
    reports: tuple[RoundReport, ...]
    stopped: str
    upload_bytes: int
    plain_bytes: int
    seconds: float
    task: Task = field(repr=False)

    @property
    def model(self) -> Any:
        """The trained model as its own library knows it: a PyTorch module, a scikit-learn estimator, or weights."""
        return self.task.model.export(self.weights)

    @property
    def metrics(self) -> Mapping[str, float]:
        """The last evaluation: on records set aside and, with ``client_`` before the name, at the clients."""
        return self.reports[-1].metrics if self.reports else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a task is simulated.

    Attributes:
        clients: How many sites there are, 0 .. ``clients`` - 1.
        rounds: How many rounds to run, from number 0.
        cohort: How many sites take part in a round; ``None``: all. With client-level privacy and central noise every
            site is drawn on its own, by a source that nobody can foresee, and this is the mean.
        dropouts: For a round's number, the sites that vanish in it after agreeing on masks, before uploading.
        engine: How sites are run.
        committee: With how many members, 4 to 64, a committee opens the sums: a site sends one message then. 0: the
            sites open them among themselves, in five messages. Only where the messages of the masking are run.
        seed: Of cohorts and of the order of records, where they need not be secret.
        every: How often to evaluate, in rounds; the last round is evaluated in any case.
        before: Evaluate the model that training starts from, too; at the sites of the first round.
        stop_at_budget: End the run with what there is when the privacy budget ends, rather than raise.
        workers: Processes for the local work, with one thread each; 1: this one. More go with the engine ``"sums"``.

    Raises:
        InputError: a number is out of range, several workers or a committee with an engine that does not take them.
    """

    clients: int
    rounds: int
    cohort: int | None = None
    dropouts: Mapping[int, Set[int]] = field(default_factory=dict)
    engine: str = Engine.AUTO.value
    committee: int = 0
    seed: int = 0
    every: int = 1
    before: bool = False
    stop_at_budget: bool = False
    workers: int = 1

    def __post_init__(self) -> None:
        if self.clients < 1 or self.rounds < 1 or self.every < 1:
            raise InputError(
                f"simulation: expected 1 client or more and 1 round or more, got {self.clients} and {self.rounds}"
            )
        if self.cohort is not None and not 1 <= self.cohort <= self.clients:
            raise InputError(f"simulation: expected a cohort of 1 to {self.clients} clients, got {self.cohort}")
        if self.engine not in [each.value for each in Engine]:
            raise InputError(
                f"simulation: expected the engine 'auto', 'messages', 'sums' or 'ray', got '{self.engine}'"
            )
        if not 1 <= self.workers <= MAX_WORKERS:
            raise InputError(f"simulation: expected 1 to {MAX_WORKERS} workers, got {self.workers}")
        if self.workers > 1 and Engine(self.engine) in (Engine.MESSAGES, Engine.RAY):
            raise InputError(f"simulation: several workers need the engine 'sums', got '{self.engine}'")
        if self.committee:
            self._check_committee()
        if not 0 <= self.seed < 1 << 63:
            raise InputError(f"simulation: expected a seed of 0 or more, got {self.seed}")
        for number, dropped in self.dropouts.items():
            if not 0 <= number < self.rounds or not dropped <= set(range(self.clients)):
                raise InputError(
                    f"simulation: expected dropouts of sites 0..{self.clients - 1} in rounds 0..{self.rounds - 1}, "
                    f"got sites {sorted(dropped)} in round {number}"
                )

    def _check_committee(self) -> None:
        if self.committee not in MEMBERS:
            raise InputError(f"simulation: expected a committee of 4 to 64 members, got {self.committee}")
        many = self.size > _FEW_SITES or self.workers > 1
        if Engine(self.engine) not in (Engine.MESSAGES, Engine.AUTO) or (self.engine == Engine.AUTO.value and many):
            raise InputError(_NO_COMMITTEE)

    @property
    def size(self) -> int:
        """How many sites a round has, in the mean."""
        return self.cohort or self.clients


def simulate(
    task: Task,
    *,
    clients: int,
    rounds: int,
    cohort: int | None = None,
    dropouts: Mapping[int, Set[int]] = NO_DROPOUTS,
    engine: str = Engine.AUTO.value,
    committee: int = 0,
    seed: int = 0,
    evaluate: Records | None = None,
    every: int = 1,
    before: bool = False,
    stop_at_budget: bool = False,
    workers: int = 1,
    watch: Callable[[RoundReport], None] | None = None,
    folder: Path | None = None,
    randomness: Callable[[int], bytes] = random_bytes,
) -> Result:
    """The result of a training run; the plan's arguments are those of :class:`Plan`.

    A site whose records do not fit, or whose training diverges, is refused by its number and the round goes on; a
    round of which no sum comes out is given up, charged, and the run goes on.

    Args:
        task: What is trained.
        evaluate: Records set aside, on which the model is measured; they are not protected.
        watch: Sees every round as it ends.
        folder: Where a checkpoint is kept after each round; a run that finds one there goes on from it.
        randomness: Where keys, masks, noise and cohorts drawn by chance come from.

    Raises:
        InputError: a number is out of range, or parts of the plan do not go together.
        ProtocolError: no sum came out of any round; says why not of the last.
        BudgetExhausted: the next round might exceed the privacy budget.
    """
    plan = Plan(
        clients=clients,
        rounds=rounds,
        cohort=cohort,
        dropouts=dropouts,
        engine=engine,
        committee=committee,
        seed=seed,
        every=every,
        before=before,
        stop_at_budget=stop_at_budget,
        workers=workers,
    )
    session_id = RandomId(randomness(RandomId.size))
    masked = _runs_messages(task, plan)
    signers = signers_for(plan.clients, randomness=randomness) if masked else {}
    one_shot: OneShot | None = None
    keys: dict[int, Keys] = {}
    if plan.committee:
        one_shot, keys = committee_for(plan.committee, first=plan.clients, randomness=randomness)
    server = Server(
        task,
        roster={number: signer.public for number, signer in signers.items()},
        session_id=session_id,
        cohort_size=plan.size,
        sampling_rate=plan.size / plan.clients if _by_chance(task, plan) else 1.0,
        seed=plan.seed,
        randomness=randomness,
        one_shot=one_shot,
    )
    journal = None if folder is None else Journal(folder, binding=_binding(task, plan))
    with ExitStack() as stack:
        transport: Transport
        if masked:
            transport = Messages(
                task, signers=signers, session_id=session_id, randomness=randomness, one_shot=one_shot, keys=keys
            )
        else:
            works: Works | None = None
            if Engine(plan.engine) is Engine.RAY:
                works = stack.enter_context(Actors(task))
            elif plan.workers > 1:
                works = stack.enter_context(Workers(task, count=plan.workers))
            transport = Sums(task, randomness=randomness, works=works)
        run = Run(task, plan, transport=transport, server=server, evaluate=evaluate, randomness=randomness)
        return run.play(watch=watch, journal=journal)


class Run:
    """One run of a plan, round after round."""

    def __init__(
        self,
        task: Task,
        plan: Plan,
        *,
        transport: Transport,
        server: Server,
        evaluate: Records | None,
        randomness: Callable[[int], bytes],
    ) -> None:
        self._task, self._plan, self._transport, self._server = task, plan, transport, server
        self._evaluate, self._randomness = evaluate, randomness
        self._outcomes: list[Outcome] = []
        self._before: RoundReport | None = None
        self._reports: list[RoundReport] = []
        self._lost: list[Event] = []
        self._stopped = ""
        self._seconds = 0.0
        self._invited = 0

    def play(self, *, watch: Callable[[RoundReport], None] | None, journal: Journal | None) -> Result:
        """All rounds that are left, each written down before the next. Raises as :func:`simulate`."""
        if journal is not None:
            self._resume(journal)
        if self._plan.before and self._server.round == 0:
            self._before = self._report_before()
            self._reports.append(self._before)
            if watch is not None:
                watch(self._before)
        for number in range(self._server.round, self._plan.rounds):
            started = time.perf_counter()
            try:
                self._round(number, journal)
            except BudgetExhausted as error:
                if not self._plan.stop_at_budget:
                    raise
                self._stopped = str(error)
                break
            report = self._report(number, seconds=time.perf_counter() - started, watched=watch is not None)
            self._seconds += report.seconds
            self._reports.append(report)
            if watch is not None:
                watch(report)  # before the checkpoint: what it writes down is never behind
            if journal is not None:
                arrays, values = self._server.save()
                journal.closed(arrays, values, owns=self._transport.owns())
        return self._result()

    def _resume(self, journal: Journal) -> None:
        """Go on from the last checkpoint; a private round that was begun after it counts as spent."""
        saved = journal.load()
        if saved is not None:
            self._server.restore(saved.arrays, saved.values)
            self._transport.restore(saved.owns)
        if self._task.privacy is not None:
            for number in journal.lost_rounds(since=self._server.round):
                self._lost += self._server.charge_lost(number)

    def _round(self, number: int, journal: Journal | None) -> None:
        plan, cohort = self._plan, self._cohort(number)
        self._invited = len(cohort)
        instruction = self._server.open_round(cohort)
        if journal is not None:
            journal.opened(number)
        dropped = plan.dropouts.get(number, frozenset())
        self._outcomes.append(self._transport.carry(self._server, instruction, dropped=dropped))

    def _cohort(self, number: int) -> tuple[int, ...]:
        plan = self._plan
        if _by_chance(self._task, plan):
            return draw_by_chance(plan.clients, size=plan.size, randomness=self._randomness)
        return draw_cohort(plan.clients, size=plan.size, seed=plan.seed, round_number=number)

    def _report_before(self) -> RoundReport:
        started = time.perf_counter()
        measured, sites = Evaluated(), self._cohort(0) if self._task.held_out is not None else ()
        if sites:
            measured = self._measured(sites, number=BEFORE)
        return RoundReport(
            round=BEFORE,
            seconds=time.perf_counter() - started,
            invited=len(sites),
            survivors=len(sites) - len(measured.refused),
            refused=measured.refused,
            abandoned="",
            upload_bytes=measured.upload_bytes,
            metrics=self._at_server() | dict(measured.metrics),
            epsilon=None,
            events=measured.events,
        )

    def _at_server(self) -> dict[str, float]:
        if self._evaluate is None:
            return {}
        return dict(self._task.model.evaluate(self._server.weights, self._evaluate))

    def _measured(self, sites: Sequence[int], *, number: int) -> Evaluated:
        measured = self._transport.evaluate(self._server, self._server.open_evaluation(sites))
        return replace(measured, refused=tuple(replace(each, round=number) for each in measured.refused))

    def _report(self, number: int, *, seconds: float, watched: bool) -> RoundReport:
        outcome, plan = self._outcomes[-1], self._plan
        due = (number + 1) % plan.every == 0 or number + 1 == plan.rounds
        metrics = self._at_server() if due else {}
        if self._task.held_out is not None and due and outcome.survivors:
            measured = self._measured(outcome.survivors, number=number)
            metrics |= measured.metrics
            outcome = self._outcomes[-1] = replace(
                outcome,
                events=outcome.events + measured.events,
                refused=outcome.refused + measured.refused,
                upload_bytes=outcome.upload_bytes + measured.upload_bytes,
            )
        return RoundReport(
            round=number,
            seconds=seconds,
            invited=self._invited,
            survivors=len(outcome.survivors),
            refused=outcome.refused,
            abandoned=outcome.abandoned,
            upload_bytes=outcome.upload_bytes,
            metrics=metrics,
            epsilon=self._server.epsilon if due and watched else None,  # composing takes longer than a round
            events=(*self._lost, *outcome.events) if len(self._outcomes) == 1 else outcome.events,
        )

    def _result(self) -> Result:
        outcomes, task = self._outcomes, self._task
        if outcomes and all(outcome.abandoned for outcome in outcomes):
            raise ProtocolError(outcomes[-1].abandoned)
        exact = [outcome.exact for outcome in outcomes if outcome.exact is not None]
        uploads = sum(len(outcome.survivors) for outcome in outcomes)
        first = () if self._before is None else (self._before,)
        return Result(
            weights=self._server.weights,
            rounds=len(outcomes),
            events=(
                *(event for each in first for event in each.events),
                *self._lost,
                *(event for outcome in outcomes for event in outcome.events),
                *self._server.spent(),
            ),
            epsilon=self._server.epsilon,
            epsilon_against_witness=self._server.epsilon_against_witness,
            delta=None if task.privacy is None else task.privacy.delta,
            sum_exact=all(exact) if exact else None,
            survivors=tuple(outcome.survivors for outcome in outcomes),
            refused=tuple(each for told in (*first, *outcomes) for each in told.refused),
            abandoned={number: each.abandoned for number, each in enumerate(outcomes) if each.abandoned},
            reports=tuple(self._reports),
            stopped=self._stopped,
            upload_bytes=sum(told.upload_bytes for told in (*first, *outcomes)),
            plain_bytes=uploads * task.whole_length * _PLAIN_NUMBER_BYTES,
            seconds=self._seconds,
            task=task,
        )


def _binding(task: Task, plan: Plan) -> dict[str, str | int]:
    """What a run must have in common with the one that it goes on from; it may go on for more rounds."""
    return {
        "task": task.fingerprint().hex(),
        "clients": plan.clients,
        "cohort": plan.size,
        "seed": plan.seed,
    }


def _by_chance(task: Task, plan: Plan) -> bool:
    """Whether every site must be drawn on its own: the accountant counts that chance in their favour."""
    privacy = task.privacy
    return (
        privacy is not None
        and privacy.unit is Unit.CLIENT
        and privacy.noise is NoiseSource.CENTRAL
        and plan.size < plan.clients
    )


def _runs_messages(task: Task, plan: Plan) -> bool:
    asked = Engine(plan.engine)
    private = task.privacy
    possible = task.secure and (private is None or private.noise is NoiseSource.DISTRIBUTED)
    possible = possible and task.strategy.name is not StrategyName.FEDBUFF
    if asked is Engine.MESSAGES and not possible:
        raise InputError("simulation: the engine 'messages' runs secure sums, with the sites' own noise or none")
    if task.secure and plan.size < MIN_SITES:
        raise InputError(f"simulation: expected {MIN_SITES} sites or more for a secure sum, got {plan.size}")
    few = plan.size <= _FEW_SITES and plan.workers == 1
    masked = asked is Engine.MESSAGES or (asked is Engine.AUTO and possible and few)
    if plan.committee and not masked:
        raise InputError(_NO_COMMITTEE)
    return masked
