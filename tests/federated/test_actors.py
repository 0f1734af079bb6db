import sys
from dataclasses import replace

import numpy as np
import pytest

from federated_cases import byte_source, regression_sites, task_over
from mibao.errors import MissingExtra
from mibao.federated import Scaffold


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_actors_give_the_model_that_one_process_gives_and_keep_what_clients_keep():
    pytest.importorskip("ray")
    parts = regression_sites(sites=6, records=8)
    task = replace(task_over(parts, strategy=Scaffold(lr=0.05, local_epochs=3, clients=6)), data=parts.__getitem__)
    here, there = (
        task.simulate(clients=6, rounds=4, engine=engine, randomness=byte_source(1)) for engine in ("sums", "ray")
    )
    assert np.array_equal(here.weights, there.weights)
    assert here.survivors == there.survivors


def test_without_ray_the_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match="the engine 'ray' needs the extra 'ray'"):
        task_over(regression_sites()).simulate(clients=3, rounds=1, engine="ray")
