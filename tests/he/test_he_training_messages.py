"""Training's messages as bytes: what comes back is what was sent, and anything else is refused."""

import numpy as np
import pytest

from he_cases import reframed
from mibao.errors import InputError, IntegrityError, KeyMismatch
from mibao.he.engine_seal import engine_for
from mibao.he.envelope import Kind
from mibao.he.training import PARAMETERS, TrainingHost, TrainingKeyHolder, TrainingPlan, fit_in_clear
from mibao.he.training_messages import TrainingMessages
from mibao.types import RandomId

PLAN = TrainingPlan(rows=40, features=3, iterations=1, step=1.0)


@pytest.fixture(scope="module")
def sent():
    """Both sides joined by bytes only: the messages of a run of one iteration, and what it must lead to."""
    engine = engine_for(PARAMETERS)
    messages = TrainingMessages(run_id=RandomId(bytes(16)), plan=PLAN, engine=engine)
    rng = np.random.default_rng(3)
    records = rng.normal(size=(40, 3))
    labels = records[:, 0] > 0
    holder = TrainingKeyHolder(records, labels, plan=PLAN, engine=engine, secret=engine.generate_secret_key())
    written = {
        "records": messages.records_bytes(holder.encrypt_records()),
        "keys": messages.keys_bytes(holder.evaluation_keys()),
        "weights": messages.weights_bytes(holder.start(), iteration=0),
    }
    return messages, holder, written, fit_in_clear(records, labels, plan=PLAN)


def test_a_run_by_bytes_leads_to_the_weights_of_the_same_iterations_in_clear(sent):
    messages, holder, written, clear = sent
    keys = messages.keys_from(written["keys"])
    host = TrainingHost(messages.records_from(written["records"]), keys, plan=PLAN, engine=messages.engine)
    state = host.iterate(messages.weights_from(written["weights"], iteration=0), iteration=0)
    back = messages.weights_bytes(state, iteration=1)
    fitted = holder.finish(messages.weights_from(back, iteration=1))
    assert np.max(np.abs(fitted.coefficients - clear.coefficients)) < 1e-3
    assert fitted.intercept == pytest.approx(clear.intercept, abs=1e-3)


def _read(messages, name, data):
    if name == "weights":
        return messages.weights_from(data, iteration=0)
    return {"records": messages.records_from, "keys": messages.keys_from}[name](data)


@pytest.mark.parametrize("name", ["records", "keys", "weights"])
def test_one_changed_bit_is_refused_by_the_digest(sent, name):
    messages, _, written, _ = sent
    for at in (20, len(written[name]) - 1):
        changed = bytearray(written[name])
        changed[at] ^= 1
        with pytest.raises(IntegrityError):
            _read(messages, name, bytes(changed))


@pytest.mark.parametrize("name", ["records", "keys", "weights"])
def test_messages_of_another_run_are_refused(sent, name):
    messages, _, written, _ = sent
    other = TrainingMessages(run_id=RandomId(bytes([1]) * 16), plan=PLAN, engine=messages.engine)
    with pytest.raises(KeyMismatch, match=f"training {name}: made for another run"):
        _read(other, name, written[name])


def test_records_of_another_plan_and_weights_of_another_iteration_are_refused(sent):
    messages, _, written, _ = sent
    plan = TrainingPlan(rows=40, features=3, iterations=2, step=1.0)
    other = TrainingMessages(run_id=messages.run_id, plan=plan, engine=messages.engine)
    with pytest.raises(KeyMismatch, match="training records: made for another plan"):
        other.records_from(written["records"])
    with pytest.raises(KeyMismatch, match="training weights: expected those after 1 iterations, got 0"):
        messages.weights_from(written["weights"], iteration=1)


def test_messages_given_for_one_another_are_named(sent):
    messages, _, written, _ = sent
    with pytest.raises(InputError, match="expected training records, got training keys"):
        messages.records_from(written["keys"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"levels": [0]}, "fields levels and factors do not match"),
        ({"levels": [0, 99]}, "field levels is malformed"),
        ({"levels": [0, 1]}, "one is not under its prime|expected .* bytes|its size does not match its header"),
        ({"factors": [1]}, "field factors is malformed"),
        ({"factors": [1.0, 1.0, 1.0], "levels": [0] * 4}, "field factors is malformed"),
        ({"iteration": -1}, "field iteration is malformed"),
    ],
    ids=str,
)
def test_weights_with_one_wrong_field_are_refused(sent, fields, message):
    messages, _, written, _ = sent
    changed = reframed(written["weights"], Kind.TRAINING_WEIGHTS, header=lambda held: {**held, **fields})
    with pytest.raises(IntegrityError, match=message):
        messages.weights_from(changed, iteration=0)
