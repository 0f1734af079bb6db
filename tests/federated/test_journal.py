import numpy as np
import pytest

from federated_cases import byte_source, regression_sites, task_over
from mibao.errors import InputError, IntegrityError
from mibao.federated import FedAvg, FedAvgM, FedBuff, FedSGD, Scaffold
from mibao.federated.journal import OPENED, STATE, Journal

BINDING = {"task": "a", "seed": 1}


def test_what_was_saved_comes_back(tmp_path):
    journal = Journal(tmp_path, binding=BINDING)
    assert journal.load() is None
    journal.opened(0)
    assert journal.lost_rounds(since=0) == [0]
    arrays = {"weights": np.arange(3.0), "state.velocity": np.ones(3)}
    journal.closed(arrays, {"round": 1}, owns={7: {"variate": np.full(3, 2.0)}})
    saved = Journal(tmp_path, binding=BINDING).load()
    assert {name: array.tolist() for name, array in saved.arrays.items()} == {
        "weights": [0.0, 1.0, 2.0],
        "state.velocity": [1.0, 1.0, 1.0],
    }
    assert saved.values == {"round": 1}
    assert saved.owns[7]["variate"].tolist() == [2.0, 2.0, 2.0]
    assert journal.lost_rounds(since=1) == []


def test_a_checkpoint_of_another_run_or_one_that_was_altered_is_refused(tmp_path):
    journal = Journal(tmp_path, binding=BINDING)
    journal.closed({"weights": np.zeros(1)}, {"round": 1}, owns={})
    with pytest.raises(InputError, match="of another task or plan"):
        Journal(tmp_path, binding={**BINDING, "seed": 2}).load()
    (tmp_path / STATE).write_bytes((tmp_path / STATE).read_bytes()[:-20])
    with pytest.raises(IntegrityError, match="not a checkpoint"):
        journal.load()
    (tmp_path / OPENED).write_text("{")
    with pytest.raises(IntegrityError, match="not the mark"):
        journal.lost_rounds(since=0)


@pytest.mark.parametrize(
    "strategy",
    [
        FedAvg(lr=0.1, personal=("intercept",), batch=4),
        FedAvgM(lr=0.1, batch=4),
        FedBuff(lr=0.1, max_age=2),
        FedSGD(lr=0.5, divisor=150.0, average_last=3),
        Scaffold(lr=0.05, clients=4),
    ],
)
@pytest.mark.parametrize("engine", ["sums", "messages"])
def test_a_run_in_two_sittings_is_the_run_in_one(strategy, engine, tmp_path):
    if engine == "messages" and isinstance(strategy, FedBuff):
        engine = "auto"
    task = task_over(regression_sites(sites=4, records=9), strategy=strategy)
    plan = {"clients": 4, "engine": engine, "randomness": byte_source(1)}
    whole = task.simulate(rounds=6, **plan)
    task.simulate(rounds=3, folder=tmp_path / "run", **plan)
    rest = task.simulate(rounds=6, folder=tmp_path / "run", **plan)
    assert rest.rounds == 3
    assert np.array_equal(rest.weights, whole.weights)
