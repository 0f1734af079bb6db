"""Rows, targets and verdicts: what every benchmark shares.

A pillar's file ``benchmarks/<pillar>.py`` measures and lists its functions in ``BENCHES``::

    BENCHES = (Bench(rows=("ledger.append_batched",), measure=measure_appends),)

Each function returns or yields :class:`Measurement`. What a row must reach stands in ``targets.toml``; whether
it did is computed here, and every row of that file gets its line, measured or not.
"""

from __future__ import annotations

import importlib
import os
import statistics
import subprocess
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from mibao.errors import MibaoError

TARGETS = Path(__file__).with_name("targets.toml")
QUICK = "MIBAO_BENCH_QUICK"  # set by --quick

Row = dict[str, str | float | bool | None]


class Direction(Enum):
    """How a figure is held against its threshold."""

    AT_LEAST = "min"
    AT_MOST = "max"
    REPORT = "report"  # the issue asks for the figure and names no number


class Judged(Enum):
    """Which figure of a row its threshold is about."""

    OURS = "ours"
    RATIO = "ratio"


class NotMeasured(MibaoError):
    """A row could not be measured here; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One row of ``targets.toml``; ``text`` is the issue's own wording."""

    id: str
    pillar: str
    name: str
    unit: str
    text: str
    direction: Direction
    judged: Judged = Judged.OURS
    threshold: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Medians of one row; ``why`` says why a side is missing, ``note`` what else was seen, in one line."""

    id: str
    ours: float | None
    peer: float | None = None
    why: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """One measuring function and the rows that it fills."""

    rows: tuple[str, ...]
    measure: Callable[[], Iterable[Measurement]]


def load_targets(path: Path = TARGETS) -> list[Target]:
    """Every target in ``path``, in the order of the file.

    Raises:
        ValueError: a row repeats an id, names an unknown direction, or has no threshold to be held against.
    """
    targets = [_target(row) for row in tomllib.loads(path.read_text(encoding="utf-8"))["row"]]
    ids = [target.id for target in targets]
    if len(set(ids)) != len(ids):
        raise ValueError(f"{path.name}: a row id stands twice")
    return targets


def _target(row: dict[str, str | float]) -> Target:
    direction = Direction(row["direction"])
    threshold = row.get("threshold")
    if (threshold is None) is not (direction is Direction.REPORT):
        raise ValueError(f"row {row['id']}: a threshold goes with 'min' and 'max', none with 'report'")
    return Target(
        id=str(row["id"]),
        pillar=str(row["pillar"]),
        name=str(row["name"]),
        unit=str(row["unit"]),
        text=str(row["target"]),
        direction=direction,
        judged=Judged(row.get("judged", "ours")),
        threshold=None if threshold is None else float(threshold),
    )


def is_met(target: Target, *, ours: float | None, ratio: float | None) -> bool:
    """Whether the figure that ``target`` is about was measured and reaches its threshold."""
    figure = ours if target.judged is Judged.OURS else ratio
    if figure is None:
        return False
    match target.direction:
        case Direction.AT_LEAST:
            return target.threshold is not None and figure >= target.threshold
        case Direction.AT_MOST:
            return target.threshold is not None and figure <= target.threshold
        case Direction.REPORT:
            return True


def judge(target: Target, measurement: Measurement) -> Row:
    """One line of output: the figures, ours over the peer's, and whether the target is met."""
    ours, peer = measurement.ours, measurement.peer
    ratio = ours / peer if ours is not None and peer else None
    row: Row = {
        "id": target.id,
        "name": target.name,
        "ours": _rounded(ours),
        "peer": _rounded(peer),
        "ratio": _rounded(ratio),
        "unit": target.unit,
        "target": target.text,
        "met": is_met(target, ours=ours, ratio=ratio),
    }
    if measurement.why is not None:
        row["why"] = measurement.why
    elif ours is None:
        row["why"] = "not measured"
    if measurement.note is not None:
        row["note"] = measurement.note
    return row


def _rounded(figure: float | None) -> float | None:
    return None if figure is None else float(f"{figure:.6g}")


def pillars(targets: Iterable[Target]) -> list[str]:
    """The pillars that have rows, in the order of the file."""
    return list(dict.fromkeys(target.pillar for target in targets))


def run_pillar(pillar: str, targets: Sequence[Target], benches: Sequence[Bench] | None = None) -> Iterator[Row]:
    """Measure one pillar and yield the line of each of its rows exactly once, in the order of the file.

    Raises:
        ValueError: a benchmark returned a row that ``targets.toml`` does not list for it.
    """
    mine = [target for target in targets if target.pillar == pillar]
    found: dict[str, Measurement] = {}
    try:
        benches = benches if benches is not None else importlib.import_module(f"benchmarks.{pillar}").BENCHES
    except (ImportError, MibaoError) as error:
        benches = (Bench(rows=tuple(target.id for target in mine), measure=_refuse(_reason(error))),)
    for bench in benches:
        for measurement in _measured(bench):
            if measurement.id in found or measurement.id not in {target.id for target in mine}:
                raise ValueError(f"{pillar}: row {measurement.id} is unknown or was measured twice")
            found[measurement.id] = measurement
    for target in mine:
        yield judge(target, found.get(target.id, Measurement(id=target.id, ours=None, why="no benchmark fills it")))


def _measured(bench: Bench) -> Iterator[Measurement]:
    """What ``bench`` yields, and for each of its rows that stays open the reason."""
    open_rows = dict.fromkeys(bench.rows)
    why = "its benchmark returned no figure"
    try:
        for measurement in bench.measure():
            if measurement.id not in bench.rows:
                raise ValueError(f"row {measurement.id} is not among those its benchmark announced")
            open_rows.pop(measurement.id, None)
            yield measurement
    except (MibaoError, OSError, ImportError, subprocess.SubprocessError) as error:
        why = _reason(error)
    for row in open_rows:
        yield Measurement(id=row, ours=None, why=why)


def _refuse(why: str) -> Callable[[], Iterable[Measurement]]:
    def measure() -> Iterable[Measurement]:
        raise NotMeasured(why)

    return measure


def _reason(error: BaseException) -> str:
    """One line about ``error``, with the last line that a failed command wrote."""
    lines = [f"{type(error).__name__}: {error}" if not isinstance(error, MibaoError) else str(error)]
    if isinstance(error, subprocess.CalledProcessError) and error.stderr:
        lines.append(str(error.stderr).strip().splitlines()[-1])
    return " ".join(" ".join(lines).split())[:300]


def rounds(full: int) -> int:
    """How often to measure: ``full`` times, or 2 after ``--quick``, whose figures are for trying things out only."""
    return min(full, 2) if os.environ.get(QUICK) else full


def in_turn(*sides: Callable[[], float], rounds: int = 5) -> list[float]:
    """The median of each side over ``rounds``, the sides taking turns (A B A B), so that a busy spell hits both."""
    figures = [[side() for side in sides] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*figures, strict=True)]


def beside_peer(row: str, *, ours: Callable[[], float], peer: Callable[[], float], rounds: int = 5) -> Measurement:
    """Both sides' medians, measured in turn after one warm-up each; ours alone, with the reason, if the peer fails."""
    ours()
    try:
        peer()
    except (MibaoError, OSError, subprocess.SubprocessError) as error:
        return Measurement(id=row, ours=in_turn(ours, rounds=rounds)[0], why=f"peer: {_reason(error)}")
    mine, theirs = in_turn(ours, peer, rounds=rounds)
    return Measurement(id=row, ours=mine, peer=theirs)
