"""`mibao train`: a job file in, a live view, and a folder with the model, the metrics and the ledger."""

from __future__ import annotations

import json
import math
import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mibao.errors import InputError

if TYPE_CHECKING:
    from mibao.cli.train_curves import Curves
    from mibao.crypto.keys import SignerPrivateKey
    from mibao.federated.job import Job
    from mibao.federated.simulation import Result, RoundReport

MODEL, METRICS, LEDGER, KEY, CHECKPOINT = "model.safetensors", "metrics.jsonl", "ledger.db", "ledger.key", "checkpoint"
ORIGIN = "mibao.train/ledger"


def train(  # noqa: PLR0917 - typer's options
    job: Annotated[Path, typer.Argument(metavar="JOB", help="The job: a TOML file. It runs the Python it names.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="Where the results go. Default: the job's name + .result."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in that folder, after whatever happened.")
    ] = False,
    engine: Annotated[
        str | None,
        typer.Option("--engine", metavar="NAME", help="auto, messages, sums or ray, instead of what the job says."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", metavar="N", help="Processes for the local work, instead of what the job says."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as one JSON object, nothing else.")
    ] = False,
) -> None:
    """Train one model across data holders, on this machine, as a job file says.

    Leaves the model, the metrics as JSON lines, the ledger with its public key, and a checkpoint of the last round;
    with the extra plots the metrics also as Parquet, as curves and for TensorBoard.
    """
    from mibao.cli.train_curves import Curves
    from mibao.cli.train_screen import TrainScreen
    from mibao.federated.job import read_job

    folder = output or job.with_suffix(".result")
    _check_folder(folder, resume=resume)
    read = read_job(job)
    if engine is not None:
        read = replace(read, plan=replace(read.plan, engine=engine))
    if workers is not None:
        read = replace(read, plan=replace(read.plan, workers=workers))
    folder.mkdir(parents=True, exist_ok=True)
    screen, curves = TrainScreen(read, quiet=as_json), Curves(folder)
    with ExitStack() as stack:
        book = stack.enter_context(_Book(folder, every_round=screen.show, curves=curves))
        stack.enter_context(screen)
        result = _run(read, folder, book)
    _write_model(folder / MODEL, result)
    book.conclude(result)
    summary = _summary(result, folder)
    if as_json:
        typer.echo(json.dumps(summary, allow_nan=False))
    else:
        screen.close(result, folder, also=curves.written)


def _run(job: Job, folder: Path, book: _Book) -> Result:
    plan = job.plan
    return job.task.simulate(
        clients=plan.clients,
        rounds=plan.rounds,
        cohort=plan.cohort,
        dropouts=plan.dropouts,
        engine=plan.engine,
        committee=plan.committee,
        seed=plan.seed,
        evaluate=job.evaluate,
        every=plan.every,
        before=plan.before,
        stop_at_budget=True,
        workers=plan.workers,
        watch=book.write,
        folder=folder / CHECKPOINT,
    )


def _check_folder(folder: Path, *, resume: bool) -> None:
    if resume:
        if not folder.is_dir():
            raise InputError(f"{folder}: nothing to resume there; leave out --resume")
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: expected a new or empty folder; --resume goes on with what is there")


class _Book:
    """Metrics and ledger of one run, a round at a time; a round that is run again replaces its metrics."""

    def __init__(self, folder: Path, *, every_round: Any, curves: Curves) -> None:
        self._path, self._show, self._curves = folder / METRICS, every_round, curves
        self._lines = self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else []
        self._signer = _signer(folder / KEY)
        self._ledger = folder / LEDGER
        self._concluded = False

    def __enter__(self) -> _Book:
        from mibao.ledger import Log

        if self._ledger.exists():
            self._log = Log.open(self._ledger, signer=self._signer)
        else:
            self._log = Log.create(self._ledger, signer=self._signer, origin=ORIGIN)
        return self

    def __exit__(self, *_: object) -> None:
        if not self._concluded:
            self._log.close()

    def write(self, report: RoundReport) -> None:
        """One round: durable before its checkpoint is."""
        kept = [line for line in self._lines if _round_of(line) < report.round]
        line = json.dumps(_metrics(report), allow_nan=False)
        if len(kept) == len(self._lines):
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())
        else:
            new = self._path.with_suffix(".new")
            new.write_text("".join(f"{each}\n" for each in [*kept, line]), encoding="utf-8")
            new.replace(self._path)
        self._lines = [*kept, line]
        self._curves.add(json.loads(line))
        if report.events:
            self._log.append(report.events)
        self._show(report)

    def conclude(self, result: Result) -> None:
        """What was stated at the end only."""
        from mibao.ledger import Log

        stated = {id(event) for report in result.reports for event in report.events}
        late = [event for event in result.events if id(event) not in stated]
        self._concluded = True
        self._curves.close(self._lines)
        if late:
            with Log.open(self._ledger, signer=self._signer) as log:
                log.append(late)


def _round_of(line: str) -> int:
    """A metrics line's round; one that was cut off by a crash counts as later than all."""
    try:
        return int(json.loads(line)["round"])
    except (ValueError, KeyError, TypeError):
        return 1 << 62


def _metrics(report: RoundReport) -> dict[str, Any]:
    return {
        "round": report.round,
        "seconds": round(report.seconds, 6),
        "invited": report.invited,
        "survivors": report.survivors,
        "upload_bytes": report.upload_bytes,
        **{name: value for name, value in report.metrics.items() if math.isfinite(value)},
        **({} if report.epsilon is None else {"epsilon": report.epsilon}),
        **({"abandoned": report.abandoned} if report.abandoned else {}),
        **({"refused": [{"site": each.site, "why": each.why} for each in report.refused]} if report.refused else {}),
    }


def _signer(path: Path) -> SignerPrivateKey:
    """The ledger's key: made on the first run, beside the ledger, for its owner's eyes only."""
    from mibao.cli import keys_io
    from mibao.crypto import keys, rng

    if path.exists():
        return keys_io.read_signer_private(path)
    suite = keys.SignerSuite.ED25519
    signer = keys.generate_signer(suite, rng.random_bytes(keys.SEED_BYTES[suite]))
    path.with_suffix(".pub").unlink(missing_ok=True)  # of a key whose writing was cut off
    keys_io.write_pair(path, signer, passphrase=None)
    return signer


def _write_model(path: Path, result: Result) -> None:
    import numpy as np
    from safetensors.numpy import save

    tensors = {name: np.ascontiguousarray(each) for name, each in result.task.model.tensors(result.weights).items()}
    new = path.with_suffix(".new")
    new.write_bytes(save(tensors))
    new.replace(path)


def _summary(result: Result, folder: Path) -> dict[str, Any]:
    return {
        "rounds": result.rounds,
        "metrics": dict(result.metrics),
        "epsilon": result.epsilon,
        "epsilon_against_witness": result.epsilon_against_witness,
        "delta": result.delta,
        "refused": len(result.refused),
        "abandoned": len(result.abandoned),
        "stopped": result.stopped,
        "upload_bytes": result.upload_bytes,
        "seconds": result.seconds,
        "folder": str(folder),
    }
