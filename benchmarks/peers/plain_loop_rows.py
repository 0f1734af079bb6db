"""The lean loop that anyone would write: one module, one optimiser, one client after the other: ``A|B|C``."""

import json
import resource
import sys
import time

import numpy as np
import torch
from torch.nn import functional
from workloads import BATCH, WORKLOADS, accuracy, cohort, data, module


def main(name: str) -> dict[str, float]:
    """CPU milliseconds a client, and what came of it."""
    torch.set_num_threads(1)
    workload, trained = WORKLOADS[name], module(name)
    clients, held_out = data(name)
    tensors = [(torch.from_numpy(features), torch.from_numpy(classes)) for features, classes in clients]
    parameters = list(trained.parameters())
    optimiser = torch.optim.SGD(parameters, lr=workload.lr)

    def run(rounds: int) -> None:
        for number in range(rounds):
            start = [each.detach().clone() for each in parameters]
            total = [torch.zeros_like(each) for each in parameters]
            for client in cohort(name, number):
                features, classes = tensors[client]
                with torch.no_grad():
                    for each, begun in zip(parameters, start, strict=True):
                        each.copy_(begun)
                for first in range(0, len(features), BATCH):
                    optimiser.zero_grad()
                    part = slice(first, first + BATCH)
                    functional.cross_entropy(trained(features[part]), classes[part]).backward()
                    optimiser.step()
                for place, each in enumerate(parameters):
                    total[place] += each.detach()
            with torch.no_grad():
                for each, moved in zip(parameters, total, strict=True):
                    each.copy_(moved / workload.cohort)

    first = [each.detach().clone() for each in parameters]
    run(1)
    with torch.no_grad():
        for each, begun in zip(parameters, first, strict=True):
            each.copy_(begun)
    started = time.process_time()
    run(workload.rounds)
    spent = time.process_time() - started
    weights = np.concatenate([each.detach().numpy().ravel() for each in parameters])
    return {
        "ms": spent * 1e3 / (workload.rounds * workload.cohort),
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "accuracy": accuracy(trained, held_out),
        "norm": float(np.linalg.norm(weights)),
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
