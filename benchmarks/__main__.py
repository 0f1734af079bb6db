"""``python -m benchmarks [pillar ...]``: one JSON line a row on standard output, a table on standard error.

It returns 0 whenever it measured: a missed target is a finding, not a failure of the benchmark.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.harness import QUICK, Row, load_targets, pillars, run_pillar


def machine() -> str:
    """One line: processor, cores this process may use, memory, kernel, Python."""
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")]
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{names[0] if names else platform.machine()}, {len(os.sched_getaffinity(0))} cores, {memory_gib:.0f} GiB, "
        f"Linux {platform.release()}, Python {platform.python_version()}"
    )


def table(rows: Sequence[Row]) -> Table:
    """The rows for people."""
    shown = Table(title="Ours beside the peer (medians)", title_justify="left", header_style="bold")
    shown.add_column("row", ratio=5)
    for figure in ("ours", "peer", "ratio"):
        shown.add_column(figure, justify="right", no_wrap=True)
    shown.add_column("unit", no_wrap=True)
    shown.add_column("target", ratio=5)
    shown.add_column("met", no_wrap=True)
    for row in rows:
        figures = [_shown(row[key]) for key in ("ours", "peer", "ratio")]
        verdict = Text("yes", style="green") if row["met"] else Text("no", style="bold red")
        shown.add_row(Text(str(row["name"])), *figures, str(row["unit"]), Text(str(row["target"])), verdict)
    return shown


def reasons(rows: Sequence[Row]) -> list[str]:
    """One line for each distinct reason why a side is missing, with the rows that it concerns."""
    concerned: dict[str, list[str]] = {}
    for row in rows:
        if "why" in row:
            concerned.setdefault(str(row["why"]), []).append(str(row["id"]))
    return [f"{', '.join(ids)}: {why}" for why, ids in concerned.items()]


def _shown(figure: object) -> str:
    return f"{figure:,.4g}" if isinstance(figure, float) and figure < 10_000 else _shown_large(figure)


def _shown_large(figure: object) -> str:
    return f"{figure:,.0f}" if isinstance(figure, float) else "-"


def _meant(name: str, known: Sequence[str]) -> list[str]:
    """A pillar and those whose names go on from its own: ``he`` and ``he_networks``; what is unknown, as it is."""
    return [pillar for pillar in known if pillar == name or pillar.startswith(f"{name}_")] or [name]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the pillars named in ``arguments``, or all of them."""
    targets = load_targets()
    known = pillars(targets)
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Ours and the peer, measured in turn.")
    parser.add_argument(
        "pillar",
        nargs="*",
        help=f"one or more of: {', '.join(known)} (default: all); he stands for all that begin with it",
    )
    parser.add_argument("--quick", action="store_true", help="two rounds only: to try things out, not for figures")
    given = parser.parse_args(arguments)
    wanted = [pillar for name in given.pillar for pillar in _meant(name, known)] or known
    if given.quick:
        os.environ[QUICK] = "1"
    if unknown := [pillar for pillar in wanted if pillar not in known]:
        parser.error(f"no rows for {', '.join(unknown)}; there are: {', '.join(known)}")
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 110)
    console.print(machine(), style="dim", highlight=False)
    rows: list[Row] = []
    for pillar in dict.fromkeys(wanted):
        for row in run_pillar(pillar, targets):
            print(json.dumps(row, ensure_ascii=False), flush=True)
            rows.append(row)
    console.print(table(rows))
    for line in reasons(rows):
        console.print(Text(f"not measured: {line}", style="yellow"))
    for row in rows:
        if "note" in row:
            console.print(Text(f"{row['id']}: {row['note']}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
