"""Flower's simulation on workload B, cut down: wall milliseconds a client, one actor on one thread.

100 clients, 10 a round, its own FedAvg on its Ray engine. The first round starts actors and imports PyTorch there; it
is told apart from the two that follow. Records are drawn anew by each client, of workload B's shape.
"""

import importlib
import json
import os
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ |= {
    "FLWR_TELEMETRY_ENABLED": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "PYTHONPATH": str(Path(__file__).parent),
}

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from torch.nn import functional

CLIENTS, COHORT, ROUNDS = 100, 10, 3
NAME = "B"
client, server = ClientApp(), ServerApp()
begun: list[float] = []


def train(message: Message, context: Context) -> Message:
    """One epoch of SGD on the client's own records."""
    from workloads import BATCH, RECORDS, WORKLOADS, module

    torch.set_num_threads(1)
    workload, model = WORKLOADS[NAME], module(NAME)
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    rng = np.random.default_rng(int(context.node_config["partition-id"]))
    features = torch.from_numpy(rng.normal(size=(RECORDS, *workload.shape)).astype(np.float32))
    classes = features[:, : workload.classes].argmax(1)
    optimiser = torch.optim.SGD(model.parameters(), lr=workload.lr)
    for part, wanted in zip(features.split(BATCH), classes.split(BATCH), strict=True):
        optimiser.zero_grad()
        functional.cross_entropy(model(part), wanted).backward()
        optimiser.step()
    content = {"arrays": ArrayRecord(model.state_dict()), "metrics": MetricRecord({"num-examples": RECORDS})}
    return Message(content=RecordDict(content), reply_to=message)


class Timed(FedAvg):  # type: ignore[misc]  # flwr is not installed where types are checked
    """Its FedAvg; notes when rounds begin."""

    def configure_train(self, *given: Any, **named: Any) -> Any:
        """As its own."""
        begun.append(time.perf_counter())
        return super().configure_train(*given, **named)


def main(grid: Grid, context: Context) -> None:
    """All rounds; one JSON object at the end."""
    from workloads import module

    strategy = Timed(fraction_train=COHORT / CLIENTS, fraction_evaluate=0.0, min_available_nodes=CLIENTS)
    result = strategy.start(grid=grid, initial_arrays=ArrayRecord(module(NAME).state_dict()), num_rounds=ROUNDS)
    begun.append(time.perf_counter())
    answered = len(result.train_metrics_clientapp)
    assert answered == ROUNDS, f"expected {ROUNDS} rounds that came out, got {answered}"


def simulated() -> dict[str, float]:
    """The figures of one run."""
    client.train()(train)
    server.main()(main)
    one = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": {"num_cpus": 1}}
    run_simulation(server_app=server, client_app=client, num_supernodes=CLIENTS, backend_config=one)
    spans = [(end - start) * 1e3 / COHORT for start, end in pairwise(begun)]
    return {"ms": sum(spans[1:]) / len(spans[1:]), "first_ms": spans[0]}


if __name__ == "__main__":
    by_name = importlib.import_module(Path(__file__).stem)  # what actors are sent must have a module's name
    print(json.dumps(by_name.simulated()))
