import os
import signal
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file
from torch import nn
from torch.nn.functional import cross_entropy

from command_line import mibao
from federated_cases import byte_source, regression_sites, task_over
from mibao.errors import InputError, ProtocolError
from mibao.federated import FedAvg, Scaffold, Task
from mibao.federated.uploads import plan_work
from mibao.federated.workers import Workers

PARTS = regression_sites(sites=6, records=8)
JOB = """
model = "net.py:Net"
loss = "net.py:my_loss"
data = "net.py:load_site"
aggregation = "plain"

[strategy]
name = "fedavg"
lr = 0.1
momentum = 0.9
batch = 4

[run]
clients = 5
rounds = 2
cohort = 4
"""
NET = """
import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

class Net(nn.Sequential):
    def __init__(self):
        torch.manual_seed(0)
        super().__init__(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))

def my_loss(outputs, targets):
    return cross_entropy(outputs, targets)

def load_site(number):
    x = np.random.default_rng(number).normal(size=(10 + number, 3)).astype("float32")
    return x, (x[:, 0] > 0).astype("int64")
"""


def test_what_clients_keep_comes_back_from_the_workers():
    task = task_over(PARTS, strategy=Scaffold(lr=0.05, local_epochs=3, clients=6))
    one, several = (
        task.simulate(clients=6, rounds=4, engine="sums", workers=count, randomness=byte_source(1)) for count in (1, 2)
    )
    assert np.array_equal(one.weights, several.weights)  # whole numbers under a secure sum


def test_a_job_with_code_of_its_own_gives_the_same_model_on_workers(tmp_path):
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "job.toml").write_text(JOB)
    models = []
    for workers in ("1", "2"):
        done = mibao("train", "job.toml", "--json", "--workers", workers, "-o", workers, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        models.append(load_file(tmp_path / workers / "model.safetensors"))
    assert sorted(models[0]) == ["0.bias", "0.weight", "3.bias", "3.weight"]
    for name, tensor in models[0].items():
        assert np.allclose(tensor, models[1][name], rtol=0.0, atol=1e-6)
    none = mibao("train", "job.toml", "--workers", "0", "-o", "none", folder=tmp_path)
    assert (none.returncode, "expected 1 to 256 workers, got 0" in none.stderr) == (2, True)


def test_a_loss_that_cannot_be_sent_is_refused_before_anything_starts():
    def loss(outputs, targets):
        return cross_entropy(outputs, targets)

    task = Task(model=nn.Sequential(nn.Linear(4, 1)), loss=loss, data=PARTS.__getitem__, strategy=FedAvg(lr=0.1))
    with pytest.raises(InputError, match="several workers need a model and a loss that are importable by name"):
        task.simulate(clients=5, rounds=1, workers=2)


def test_an_error_of_a_worker_is_raised_here_and_a_dead_worker_is_named():
    sites = [replace(part, features=part.features[:, : 4 - (number == 3)]) for number, part in enumerate(PARTS)]
    task = replace(task_over(PARTS, strategy=FedAvg(lr=0.1)), aggregation="plain")
    with Workers(task, count=2) as workers:
        owns = {site: {} for site in range(6)}
        works = [
            plan_work(
                task, client=site, records=sites[site], weights=np.zeros(5), shared={}, own={}, seed=0, round_number=0
            )
            for site in range(6)
        ]
        with pytest.raises(InputError, match="client 3: expected records of shape"):
            list(workers(np.zeros(5), works, owns))
        good = [work for work in works if work.client != 3]
        assert sorted(site for each in workers(np.zeros(5), good, owns) for site in each.clients) == [0, 1, 2, 4, 5]
        process, _ = workers._running[1]
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        with pytest.raises(ProtocolError, match="worker 1: its process"):
            list(workers(np.zeros(5), good, owns))


@pytest.mark.parametrize("engine", ["messages", "ray"])
def test_several_workers_with_another_engine_are_refused(engine):
    with pytest.raises(InputError, match=f"several workers need the engine 'sums', got '{engine}'"):
        task_over(PARTS).simulate(clients=6, rounds=1, workers=2, engine=engine)
