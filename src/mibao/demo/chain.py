"""The steps of the demo in order, each handing its product to the next and its events to the ledger."""

from __future__ import annotations

from collections.abc import Callable

from mibao.demo import computing, deidentifying, recording, sealing, training
from mibao.demo.hospitals import LARGEST_SCALED
from mibao.demo.outcome import Outcome, StepResult
from mibao.demo.surroundings import Surroundings
from mibao.types import ComputeMode


def run(around: Surroundings, *, show: Callable[[int, StepResult], None], started_s: float) -> Outcome:
    """Run every step, calling ``show`` with its number and result as it ends.

    ``started_s`` is when the command began by the surroundings' clock; its seconds count from there.

    Raises:
        MissingExtra: scikit-learn or seal-python is not installed.
        ProtocolError: the compute host gave no answer.
    """
    deidentified, masking_cost, events = deidentifying.deidentify(around)
    show(1, deidentified)

    training_run = training.train(around)
    events += training_run.events
    show(2, training_run.report)

    model, sealed_model, sealing_cost, sealing_events = sealing.seal_and_attack(around, training_run.model)
    events += sealing_events
    show(3, sealed_model)

    computed = [
        computing.evaluate(
            around,
            model,
            training_run.test_features,
            training_run.test_labels,
            input_bound=LARGEST_SCALED,
            mode=mode,
        )
        for mode in (ComputeMode.ENCRYPTED_DATA, ComputeMode.ENCRYPTED_BOTH)
    ]
    events += [event for _, _, event in computed]
    clear_weights, encrypted_weights = (report for report, _, _ in computed)
    show(4, (clear_weights, encrypted_weights))

    recorded, ledger_cost = recording.record(around, events)
    show(5, recorded)
    return Outcome(
        deid=deidentified,
        federated=training_run.report,
        sealed=sealed_model,
        clear_weights=clear_weights,
        encrypted_weights=encrypted_weights,
        ledger=recorded,
        costs=(masking_cost, *training_run.costs, sealing_cost, *(cost for _, cost, _ in computed), ledger_cost),
        seconds=around.clock_s() - started_s,
    )
