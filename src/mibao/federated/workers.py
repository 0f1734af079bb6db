"""A cohort's local work on several processes of this machine, one thread each; the sums stay here."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import pickle
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from jaxtyping import Float64
from numpy import ndarray

from mibao.errors import InputError, MibaoError, ProtocolError
from mibao.federated.local_training import LocalWork
from mibao.federated.task import Task
from mibao.federated.uploads import Own, Uploads, uploads

_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_JOB_MODULES = "mibao_job_"  # of the Python files beside a job, which a new process finds by their paths
_LEAVE_S = 5.0


class Workers:
    """``count`` fresh processes that train what they are sent; ended by leaving the context.

    They are started anew, not copied, so that threads and accelerators of this process do not matter. Records travel
    to them with each round's work; what gives the records stays here.

    Raises:
        InputError: the task's model or loss cannot be sent to another process.
    """

    def __init__(self, task: Task, *, count: int) -> None:
        try:
            sent = pickle.dumps(replace(task, data=_nowhere, held_out=None, loss=None))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise InputError(
                f"simulation: several workers need a model and a loss that are importable by name ({error})"
            ) from error
        files = [(name, str(module.__file__)) for name, module in sys.modules.items() if name.startswith(_JOB_MODULES)]
        context = multiprocessing.get_context("spawn")
        self._running: list[tuple[Any, Connection]] = []
        with _environment(_ONE_THREAD):
            for _ in range(count):
                ours, theirs = context.Pipe()
                process = context.Process(target=_work, args=(theirs, files, sent), daemon=True)
                process.start()
                theirs.close()
                self._running.append((process, ours))

    def __call__(
        self, weights: Float64[ndarray, "weights"], planned: Sequence[LocalWork], owns: Mapping[int, Own]
    ) -> Iterator[Uploads]:
        """The uploads of all works, worker after worker; what clients keep is left in ``owns``.

        Raises:
            ProtocolError: a worker ended.
            InputError: as :func:`~mibao.federated.uploads.uploads`.
        """
        busy = []
        for place, (_, connection) in enumerate(self._running):
            part = list(planned[place :: len(self._running)])
            if part:
                self._send(place, connection, (weights, part, {work.client: owns[work.client] for work in part}))
                busy.append((place, connection))
        # All answers are taken in before one is raised: the next round finds every worker waiting.
        answers = [self._receive(place, connection) for place, connection in busy]
        for answer in answers:
            if isinstance(answer, MibaoError):
                raise answer
            found, kept = answer
            for client, own in kept.items():
                owns[client].update(own)
            yield from found

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, connection in self._running:
            connection.close()
        for process, _ in self._running:
            process.join(_LEAVE_S)
            if process.is_alive():
                process.terminate()
                process.join()

    @staticmethod
    def _send(place: int, connection: Connection, work: object) -> None:
        try:
            connection.send(work)
        except (BrokenPipeError, ConnectionError) as error:
            raise ProtocolError(f"worker {place}: its process has ended") from error

    @staticmethod
    def _receive(place: int, connection: Connection) -> Any:
        try:
            return connection.recv()
        except (EOFError, ConnectionError) as error:
            raise ProtocolError(f"worker {place}: its process ended without an answer") from error


def _work(connection: Connection, files: Sequence[tuple[str, str]], sent: bytes) -> None:
    """One worker's life: the task once, then work after work until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one is interrupted, and closes
    for name, path in files:
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is not None and spec.loader is not None:
            sys.modules[name] = module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
    task = pickle.loads(sent)  # noqa: S301 - from the process that started this one
    while True:
        try:
            weights, part, kept = connection.recv()
        except EOFError:
            return
        try:
            answer: object = (list(uploads(task, weights, part, kept)), kept)
        except MibaoError as error:
            answer = error
        connection.send(answer)


def _nowhere(site: int) -> Any:
    raise InputError(f"site {site}: its records are not at a worker")


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """The environment of processes started meanwhile; the libraries of this one have read theirs."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
