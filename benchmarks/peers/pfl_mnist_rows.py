"""pfl: the accuracy of FedAvg on MNIST after 10, 20 and 30 rounds; each client counts as many as it has records."""

import json
import time
from collections.abc import Iterator
from typing import Any

import torch
from mnist import BATCH, COHORT, EVERY, LR, ROUNDS, cohort, data, module
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.hyperparam import NNTrainHyperParams
from pfl.model.pytorch import PyTorchModel
from pfl_rows import Wrapped
from workloads import accuracy


def main() -> dict[str, Any]:
    """The curve, and CPU seconds of the rounds."""
    torch.set_num_threads(1)
    inner = module()
    clients, test = data()
    tensors = [(torch.from_numpy(images), torch.from_numpy(classes)) for images, classes in clients]
    wrapped = Wrapped(inner)
    model = PyTorchModel(wrapped, torch.optim.SGD, torch.optim.SGD(wrapped.parameters(), lr=1.0))
    ids: Iterator[int] = (client for number in range(ROUNDS) for client in cohort(number))
    users = FederatedDataset(lambda client: Dataset(raw_data=list(tensors[client])), lambda: next(ids))
    backend = SimulatedBackend(training_data=users, val_data=users, postprocessors=[WeightByDatapoints()])
    curve, spent = {}, 0.0
    for number in range(EVERY, ROUNDS + 1, EVERY):
        params = NNAlgorithmParams(
            central_num_iterations=EVERY,
            evaluation_frequency=EVERY + 1,
            train_cohort_size=COHORT,
            val_cohort_size=None,
        )
        started = time.process_time()
        FederatedAveraging().run(
            algorithm_params=params,
            backend=backend,
            model=model,
            model_train_params=NNTrainHyperParams(local_num_epochs=1, local_learning_rate=LR, local_batch_size=BATCH),
            send_metrics_to_platform=False,
        )
        spent += time.process_time() - started
        curve[f"{number}"] = accuracy(inner, test)
    return {"seconds": spent, **curve}


if __name__ == "__main__":
    print(json.dumps(main()))
