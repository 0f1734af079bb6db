"""What `mibao train` shows while it runs, and at the end."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from mibao.federated.job import Job
    from mibao.federated.simulation import Result, RoundReport

_LAST = 12
_LINES = 10
_PIPE_WIDTH = 100


class TrainScreen:
    """A table of the last rounds and a bar; without a terminal some lines, and nothing if ``quiet``."""

    def __init__(self, job: Job, *, quiet: bool) -> None:
        self._rounds, self._private, self._quiet = job.plan.rounds, job.task.privacy is not None, quiet
        console = Console(highlight=False)
        self._console = console if console.is_terminal else Console(highlight=False, width=_PIPE_WIDTH)
        self._live_view = console.is_terminal and not quiet
        self._last: deque[RoundReport] = deque(maxlen=_LAST)
        self._known: dict[str, float] = {}
        self._bar = Progress(
            TextColumn("rounds"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=self._console
        )
        self._all = self._bar.add_task("rounds", total=job.plan.rounds)
        self._live = Live(console=self._console, refresh_per_second=4, transient=True)

    def __enter__(self) -> TrainScreen:
        if self._live_view:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live_view:
            self._live.stop()

    def show(self, report: RoundReport) -> None:
        """One round."""
        self._last.append(report)
        if self._live_view:
            self._bar.update(self._all, completed=report.round + 1)
            self._live.update(Group(self._table(), self._bar))
        elif not self._quiet and self._is_due(report):
            self._console.print(self._line(report), markup=False)

    def close(self, result: Result, folder: Path, *, also: Sequence[str] = ()) -> None:
        """The end."""
        if self._last:
            self._console.print(self._table())
        if result.stopped:
            self._console.print(f"stopped: {result.stopped}", markup=False, style="yellow")
        if result.epsilon is not None:
            self._console.print(
                f"epsilon {result.epsilon:.3g} at delta {result.delta:g} against whoever sees the models; "
                f"{result.epsilon_against_witness:.3g} against one who also sees who takes part"
            )
        for each in result.refused[:_LINES]:
            self._console.print(f"round {each.round} went on without {each.why}", markup=False, style="yellow")
        if len(result.refused) > _LINES:
            self._console.print(f"... and {len(result.refused) - _LINES} more, in the metrics", style="yellow")
        self._console.print(f"trained  {folder}  {', '.join(['model, metrics, ledger', *also])}", markup=False)
        self._console.print("         mibao ledger verify ledger.db --key ledger.pub", style="dim")

    def _is_due(self, report: RoundReport) -> bool:
        return (
            report.round < 0 or report.round + 1 == self._rounds or report.round % max(1, self._rounds // _LINES) == 0
        )

    def _line(self, report: RoundReport) -> str:
        measured = "  ".join(f"{name} {value:.4g}" for name, value in report.metrics.items())
        epsilon = "" if report.epsilon is None else f"  epsilon {report.epsilon:.3g}"
        gone = f"  given up: {report.abandoned}" if report.abandoned else ""
        return f"{_name(report)}  {report.survivors} of {report.invited} clients  {measured}{epsilon}{gone}"

    def _table(self) -> Table:
        names = list(dict.fromkeys(name for report in self._last for name in report.metrics))
        columns = ["round", *names, *(["epsilon"] if self._private else []), "clients", "dropped", "bytes", "seconds"]
        table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
        for name in columns:
            table.add_column(name, justify="right", no_wrap=True)
        for report in self._last:
            measured = [f"{report.metrics[name]:.4g}" if name in report.metrics else "" for name in names]
            epsilon = ["" if report.epsilon is None else f"{report.epsilon:.3g}"] if self._private else []
            table.add_row(
                _name(report).removeprefix("round "), *measured, *epsilon, str(report.survivors),
                str(report.invited - report.survivors), f"{report.upload_bytes:,}", f"{report.seconds:.3f}",
                style="yellow" if report.abandoned else None,
            )  # fmt: skip
        return table


def _name(report: RoundReport) -> str:
    return "before" if report.round < 0 else f"round {report.round}"
