"""pfl: CPU milliseconds a client of FedAvg on a workload, ``A|B|C``; same data, cohorts and batches."""

import json
import resource
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.hyperparam import NNTrainHyperParams
from pfl.model.pytorch import PyTorchModel
from torch import nn
from torch.nn import functional
from workloads import BATCH, WORKLOADS, accuracy, cohort, data, module


class Wrapped(nn.Module):
    """The module as pfl wants it, with its loss and metrics."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, features: torch.Tensor) -> Any:
        """The outputs."""
        return self.inner(features)

    def loss(self, features: torch.Tensor, classes: torch.Tensor) -> Any:
        """The mean cross entropy."""
        self.train()
        return functional.cross_entropy(self(features), classes)

    def metrics(self, features: torch.Tensor, classes: torch.Tensor) -> dict[str, Any]:
        """None: nothing is evaluated."""
        return {}


def main(name: str) -> dict[str, float]:
    """CPU milliseconds a client, and what came of it."""
    torch.set_num_threads(1)
    workload, inner = WORKLOADS[name], module(name)
    clients, held_out = data(name)
    tensors = [(torch.from_numpy(features), torch.from_numpy(classes)) for features, classes in clients]

    def run(rounds: int) -> float:
        wrapped = Wrapped(inner)
        first = {key: each.clone() for key, each in wrapped.state_dict().items()}
        model = PyTorchModel(wrapped, torch.optim.SGD, torch.optim.SGD(wrapped.parameters(), lr=1.0))
        ids: Iterator[int] = (client for number in range(rounds) for client in cohort(name, number))
        users = FederatedDataset(lambda client: Dataset(raw_data=list(tensors[client])), lambda: next(ids))
        params = NNAlgorithmParams(
            central_num_iterations=rounds,
            evaluation_frequency=rounds + 1,
            train_cohort_size=workload.cohort,
            val_cohort_size=None,
        )
        train = NNTrainHyperParams(local_num_epochs=1, local_learning_rate=workload.lr, local_batch_size=BATCH)
        started = time.process_time()
        FederatedAveraging().run(
            algorithm_params=params,
            backend=SimulatedBackend(training_data=users, val_data=users),
            model=model,
            model_train_params=train,
            send_metrics_to_platform=False,
        )
        spent = time.process_time() - started
        if rounds < workload.rounds:
            wrapped.load_state_dict(first)
        return spent

    run(1)
    spent = run(workload.rounds)
    return {
        "ms": spent * 1e3 / (workload.rounds * workload.cohort),
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "accuracy": accuracy(inner, held_out),
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
