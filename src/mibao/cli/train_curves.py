"""What `mibao train` leaves for looking at, with extra `plots`: Parquet, curves as PNG, and TensorBoard's events."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PARQUET, PNG, TENSORBOARD = "metrics.parquet", "curves.png", "tensorboard"
_NEEDED = ("matplotlib", "pyarrow", "tensorboardX")
_AT_CLIENTS = "client_"
_COLUMNS, _PANEL_INCHES, _DPI = 2, (5.0, 3.2), 120


class Curves:
    """The files of one run in ``folder``, round after round; nothing where the extra is not installed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None  # of tensorboardX
        self._there = all(find_spec(name) is not None for name in _NEEDED)

    @property
    def written(self) -> tuple[str, ...]:
        """The names of what is left in the folder."""
        return (PARQUET, PNG, TENSORBOARD) if self._there else ()

    def add(self, line: Mapping[str, Any]) -> None:
        """One round's metrics, as TensorBoard shows them at once; of a round that is run again, the last holds."""
        if not self._there:
            return
        if self._writer is None:
            from tensorboardX import SummaryWriter

            # TensorBoard reads files in the order of their names, which hold the second.
            suffix, first = f".{line['round']:08d}", line["round"]
            self._writer = SummaryWriter(str(self._folder / TENSORBOARD), purge_step=first, filename_suffix=suffix)
        for name, value in _numbers(line).items():
            self._writer.add_scalar(name, value, line["round"])
        self._writer.flush()

    def close(self, lines: Sequence[str]) -> None:
        """The metrics of all rounds, as Parquet and as curves."""
        if self._writer is not None:
            self._writer.close()
        rounds = [json.loads(line) for line in lines]
        if self._there and rounds:
            _write_parquet(self._folder / PARQUET, rounds)
            _write_png(self._folder / PNG, rounds)


def _numbers(line: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in line.items() if name != "round" and isinstance(value, int | float)}


def _write_parquet(path: Path, rounds: Sequence[Mapping[str, Any]]) -> None:
    """A row a round, a column a metric; what a round does not have is null."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = dict.fromkeys(name for each in rounds for name in each)
    new = path.with_suffix(".new")
    pq.write_table(pa.table({name: [each.get(name) for each in rounds] for name in names}), new)
    new.replace(path)


def _write_png(path: Path, rounds: Sequence[Mapping[str, Any]]) -> None:
    """A panel a metric, that at the clients beside that at the server."""
    from matplotlib.figure import Figure

    names = dict.fromkeys(name for each in rounds for name in _numbers(each))
    panels = list(dict.fromkeys(name.removeprefix(_AT_CLIENTS) for name in names))
    down = -(-len(panels) // _COLUMNS)
    figure = Figure(figsize=(_PANEL_INCHES[0] * _COLUMNS, _PANEL_INCHES[1] * down), layout="constrained")
    for place, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(down, _COLUMNS, place)
        for name in (panel, _AT_CLIENTS + panel):
            points = [(each["round"], each[name]) for each in rounds if name in each]
            if points:
                axes.plot(*zip(*points, strict=True), marker=".", label=name)
        axes.set_xlabel("round")
        axes.legend()
        axes.grid(visible=True, alpha=0.3)
    new = path.with_suffix(".new")
    figure.savefig(new, format="png", dpi=_DPI)
    new.replace(path)
