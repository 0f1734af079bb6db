from dataclasses import replace

import numpy as np
import pytest

from federated_cases import PRIVACY, SESSION, byte_source, make_nodes, regression_sites, task_over
from mibao.errors import InputError, ProtocolError
from mibao.events import SecureSumReleased
from mibao.federated import FedAvg, Instruction, Records, pool
from mibao.federated.simulation import BEFORE

PARTS = regression_sites(sites=5)
SET_ASIDE = regression_sites(sites=5, seed=9)


def evaluated_task(*, held_out=SET_ASIDE.__getitem__, aggregation="secagg", strategy=None):
    made = task_over(PARTS, strategy=strategy or FedAvg(lr=0.1))
    return replace(made, held_out=held_out, aggregation=aggregation)


@pytest.mark.parametrize(("engine", "aggregation"), [("messages", "secagg"), ("sums", "secagg"), ("sums", "plain")])
def test_the_loss_at_clients_is_the_loss_on_all_their_records_set_aside(engine, aggregation):
    task = evaluated_task(aggregation=aggregation)
    result = task.simulate(clients=5, rounds=3, engine=engine, randomness=byte_source(1))
    expected = task.model.evaluate(result.weights, pool(SET_ASIDE))["loss"]
    assert result.metrics["client_loss"] == pytest.approx(expected, abs=1e-6)
    assert "client_accuracy" not in result.metrics


def test_both_evaluations_stand_beside_one_another_as_often_as_asked():
    result = evaluated_task().simulate(clients=5, rounds=4, every=3, evaluate=PARTS[0], randomness=byte_source(1))
    both = ["client_loss", "loss"]
    assert [sorted(report.metrics) for report in result.reports] == [[], [], both, both]


@pytest.mark.parametrize(("engine", "aggregation"), [("messages", "secagg"), ("sums", "plain")])
def test_the_model_that_training_starts_from_is_measured_where_asked(engine, aggregation):
    task = evaluated_task(aggregation=aggregation)
    seen = []
    given = {"clients": 5, "rounds": 2, "engine": engine, "randomness": byte_source(1), "evaluate": PARTS[0]}
    result = task.simulate(before=True, watch=seen.append, **given)
    assert [report.round for report in seen] == [BEFORE, 0, 1]
    for name, records in (("client_loss", pool(SET_ASIDE)), ("loss", PARTS[0])):
        expected = task.model.evaluate(task.model.initial(), records)["loss"]
        assert seen[0].metrics[name] == pytest.approx(expected, abs=1e-6)
    assert result.rounds == 2
    assert sum(report.upload_bytes for report in seen) == result.upload_bytes
    np.testing.assert_allclose(task.simulate(**given).weights, result.weights, atol=1e-6)


def test_a_site_that_cannot_measure_before_training_is_named():
    task = evaluated_task(
        held_out=lambda site: SET_ASIDE[site] if site else Records(features=np.zeros((2, 7)), targets=np.zeros(2))
    )
    result = task.simulate(clients=5, rounds=1, before=True, randomness=byte_source(1))
    assert [(each.site, each.round) for each in result.refused] == [(0, BEFORE), (0, 0)]


def test_evaluation_with_masks_is_a_sum_of_its_own_in_the_ledger():
    result = evaluated_task().simulate(clients=5, rounds=1, engine="messages", randomness=byte_source(1))
    sums = [event for event in result.events if isinstance(event, SecureSumReleased)]
    assert len(sums) == 2
    assert len({event.session for event in sums}) == 2


def test_personal_parameters_are_in_place_when_a_client_measures():
    sites = [replace(part, targets=part.targets + 3.0 * number) for number, part in enumerate(PARTS)]
    strategy = FedAvg(lr=0.2, local_epochs=20, personal=("intercept",))
    task = replace(task_over(sites, strategy=strategy), held_out=sites.__getitem__, aggregation="plain")
    result = task.simulate(clients=5, rounds=5, randomness=byte_source(1))
    assert result.metrics["client_loss"] < 0.1 < task.model.evaluate(result.weights, pool(sites))["loss"]


def test_a_client_that_set_nothing_aside_adds_nothing():
    def held_out(site):
        return SET_ASIDE[site] if site < 2 else None

    task = evaluated_task(held_out=held_out)
    result = task.simulate(clients=5, rounds=1, engine="messages", randomness=byte_source(1))
    expected = task.model.evaluate(result.weights, pool(SET_ASIDE[:2]))["loss"]
    assert result.metrics["client_loss"] == pytest.approx(expected, abs=1e-6)
    nobody = evaluated_task(held_out=lambda site: None)
    assert nobody.simulate(clients=5, rounds=1, randomness=byte_source(1)).metrics == {}


@pytest.mark.parametrize("engine", ["messages", "sums"])
def test_a_client_whose_records_set_aside_do_not_fit_is_named_and_the_others_are_measured(engine):
    def held_out(site):
        return SET_ASIDE[site] if site else Records(features=np.zeros((2, 7)), targets=np.zeros(2))

    task = evaluated_task(held_out=held_out)
    result = task.simulate(clients=5, rounds=1, engine=engine, randomness=byte_source(1))
    assert [each.why for each in result.refused] == ["site 0, evaluation: expected records of 4 features, got 7"]
    expected = task.model.evaluate(result.weights, pool(SET_ASIDE[1:]))["loss"]
    assert result.metrics["client_loss"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("engine", ["messages", "sums"])
def test_with_too_few_clients_nothing_is_measured_and_training_goes_on(engine):
    def held_out(site):
        if site < 3:
            raise InputError("disk gone")
        return SET_ASIDE[site]

    result = evaluated_task(held_out=held_out).simulate(clients=5, rounds=2, engine=engine, randomness=byte_source(1))
    assert (result.metrics, result.rounds, len(result.refused)) == ({}, 2, 6)


def test_a_site_measures_once_a_round():
    task = evaluated_task()
    nodes, _ = make_nodes(task, sites=5)
    instruction = Instruction(session_id=SESSION, round=2, weights=np.zeros(5))
    nodes[0].measure(instruction)
    with pytest.raises(ProtocolError, match="stale, site 0 has answered round 2"):
        nodes[0].measure(instruction)
    nodes[0].join(replace(instruction, round=3))


def test_a_site_that_was_asked_to_measure_without_records_set_aside_refuses():
    nodes, _ = make_nodes(task_over(PARTS), sites=5)
    with pytest.raises(InputError, match="expected 'held_out'"):
        nodes[0].measure(Instruction(session_id=SESSION, round=0, weights=np.zeros(5)))


def test_a_loss_that_is_not_finite_is_refused_by_name():
    nodes, _ = make_nodes(evaluated_task(), sites=5)
    with pytest.raises(InputError, match="site 1, evaluation: "):
        nodes[1].measure(Instruction(session_id=SESSION, round=0, weights=np.full(5, 1e25)))


def test_evaluation_at_clients_with_privacy_is_refused():
    with pytest.raises(InputError, match="metrics of the sites' own records have no account of privacy"):
        replace(task_over(PARTS, privacy=PRIVACY), held_out=SET_ASIDE.__getitem__)


def test_sites_must_agree_on_whether_they_are_measured():
    assert evaluated_task().fingerprint() != task_over(PARTS, strategy=FedAvg(lr=0.1)).fingerprint()
