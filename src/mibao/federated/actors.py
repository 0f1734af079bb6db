"""A cohort's local work on the actors of a Ray cluster: the same engine on many machines, one thread an actor.

The sums stay here. Records travel to the actors, which is what a simulation may do and a deployment never does.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from jaxtyping import Float64
from numpy import ndarray

from mibao.errors import MissingExtra
from mibao.federated.local_training import LocalWork
from mibao.federated.task import Task
from mibao.federated.uploads import Own, Uploads, uploads

_JOB_MODULES = "mibao_job_"  # of the Python files beside a job, which no other machine can import


class Actors:
    """As many actors as the cluster has processors; without a cluster, one is started on this machine and stopped.

    Raises:
        MissingExtra: Ray is not installed.
    """

    def __init__(self, task: Task) -> None:
        self._ray = _import_ray()
        self._started = not self._ray.is_initialized()
        if self._started:
            self._ray.init(include_dashboard=False, log_to_driver=False, logging_level="error")
        for name, module in list(sys.modules.items()):
            if name.startswith(_JOB_MODULES):
                self._ray.cloudpickle.register_pickle_by_value(module)
        processors = max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        shared = self._ray.put(task)
        remote = self._ray.remote(num_cpus=1)(_Worker)
        self._actors = [remote.remote(shared) for _ in range(processors)]

    def __call__(
        self, weights: Float64[ndarray, "weights"], planned: Sequence[LocalWork], owns: Mapping[int, Own]
    ) -> Iterator[Uploads]:
        """The uploads of all works, in the order of the actors; what clients keep is left in ``owns``."""
        shared = self._ray.put(weights)
        waiting = []
        for place, actor in enumerate(self._actors):
            part = list(planned[place :: len(self._actors)])
            if part:
                kept = {work.client: owns[work.client] for work in part}
                waiting.append(actor.train.remote(shared, part, kept))
        for answer in waiting:
            found, kept = self._ray.get(answer)
            for client, own in kept.items():
                owns[client].update(own)
            yield from found

    def __enter__(self) -> Actors:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for actor in self._actors:
            self._ray.kill(actor)
        if self._started:
            self._ray.shutdown()


class _Worker:
    """One actor: it holds the task and trains what it is sent."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def train(
        self, weights: Float64[ndarray, "weights"], part: Sequence[LocalWork], owns: dict[int, Own]
    ) -> tuple[list[Uploads], dict[int, Own]]:
        """The uploads, and what clients keep now."""
        kept: dict[int, Own] = {client: dict(own) for client, own in owns.items()}
        return list(uploads(self._task, weights, part, kept)), kept


def _import_ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise MissingExtra("the engine 'ray'", extra="ray") from error
