"""`mibao demo`: the whole chain on real data, with what each protection cost."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mibao.errors import InputError, MissingExtra, ProtocolError

if TYPE_CHECKING:
    from mibao.demo.outcome import StepResult

HOST_TIMEOUT_S = 60


def demo(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else.")
    ] = False,
    keep: Annotated[
        Path | None, typer.Option("--keep", metavar="DIR", help="Leave every artefact in this new or empty folder.")
    ] = None,
) -> None:
    """Run the whole chain on real hospital records, offline, in about ten seconds.

    De-identify a note, train over five hospitals, seal the model, compute on ciphertexts, keep the ledger, and see
    what each protection cost. Exit code 0: every promise was kept.
    """
    started_s = time.perf_counter()
    from mibao.cli import demo_screen
    from mibao.crypto import rng
    from mibao.demo import chain
    from mibao.demo.surroundings import Surroundings

    _check_extras()
    screen = demo_screen.console()

    def show(number: int, result: StepResult) -> None:
        if not as_json:
            screen.print(demo_screen.step(number, result, width=screen.width))

    with ExitStack() as stack:
        folder = _empty_folder(keep) if keep else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        around = Surroundings(
            folder=folder, randomness=rng.random_bytes, clock_s=time.perf_counter, compute_host=_compute_host
        )
        if not as_json:
            screen.print(demo_screen.opening())
        outcome = chain.run(around, show=show, started_s=started_s)
    if as_json:
        typer.echo(json.dumps(outcome.to_json(), allow_nan=False))
    else:
        screen.print(demo_screen.closing(outcome, kept=None if keep is None else str(keep), width=screen.width))
    if not outcome.ok:
        raise typer.Exit(1)


def _check_extras() -> None:
    """Nothing is begun that cannot be ended. Raises ``MissingExtra``."""
    if any(importlib.util.find_spec(name) is None for name in ("sklearn", "seal")):
        raise MissingExtra("the demo", extra="demo")


def _empty_folder(folder: Path) -> Path:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--keep {folder}: expected a new or empty folder, got a file")
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"--keep {folder}: expected a new or empty folder, got one with something in it")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _compute_host(bundle: Path, server_keys: Path, request: Path, answer: Path) -> None:
    """Evaluate in another process, which is told three files to read, one to write, and nothing else."""
    files = (str(bundle), "--keys", str(server_keys), str(request), "-o", str(answer))
    command = [sys.executable, "-m", "mibao", "he", "evaluate", *files]
    try:
        host = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=HOST_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ProtocolError(f"compute host: no answer within {HOST_TIMEOUT_S} s") from error
    if host.returncode != 0:
        raise ProtocolError(f"compute host: ended with exit code {host.returncode}: {host.stderr.strip()[-300:]}")
