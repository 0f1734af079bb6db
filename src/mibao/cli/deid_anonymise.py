"""Tables made k-anonymous, and the page of what a table still says of a person."""

from __future__ import annotations

import json
import sys
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mibao.cli.deid_files import new_file
from mibao.errors import InputError

if TYPE_CHECKING:
    from mibao.deid.generalising import Demand, Generalised
    from mibao.deid.hierarchies import Hierarchy

_MAX_HIERARCHY_BYTES = 1 << 26


def anonymise(
    table: Path,
    output: Path,
    quasi: Sequence[str],
    demand: Demand,
    *,
    sensitive: str | None,
    hierarchies: Sequence[str],
    keep: Sequence[str],
    as_json: bool,
) -> None:
    """Write the table that meets ``demand`` and loses least, and say what it lost.

    Raises:
        InputError: nothing meets the demand, or a column holds personal data that nobody said is to be kept.
    """
    from mibao.cli.deid_tables import numbers_in, read_columns
    from mibao.deid import anonymity
    from mibao.deid.generalising import generalise, generalised_columns

    columns = read_columns(table)
    if missing := [name for name in (*quasi, *([sensitive] if sensitive else [])) if name not in columns]:
        raise InputError(f"{table}: no column {missing[0]}; there are {', '.join(columns)}")
    _check_others(columns, {*quasi, *keep, sensitive or ""}, table)
    chosen = _hierarchies(columns, quasi, hierarchies)
    ordered = numbers_in({sensitive: columns[sensitive]}) if sensitive else {}
    found = generalise({**columns, **ordered}, chosen, demand, sensitive=sensitive)
    made = generalised_columns(columns, chosen, found)
    compared = {**made, **(numbers_in({sensitive: made[sensitive]}) if sensitive else {})}
    measured = {"k": float(anonymity.k_anonymity(compared, quasi))}
    if sensitive:
        measured["l"] = float(anonymity.l_diversity(compared, quasi, sensitive))
        measured["t"] = anonymity.t_closeness(compared, quasi, sensitive)
    _write(output, made)
    _tell(columns, chosen, found, measured, as_json=as_json)


def _check_others(columns: Mapping[str, Sequence[Hashable]], spoken_of: set[str], table: Path) -> None:
    from mibao.deid.columns import infer
    from mibao.deid.detection import default_engine
    from mibao.deid.tables import SAMPLE_ROWS

    for name in [name for name in columns if name not in spoken_of]:
        sample = [str(value) for value in columns[name][:SAMPLE_ROWS] if value not in (None, "")]
        column = infer(name, sample, engine=default_engine())
        if column.entity is not None:
            raise InputError(
                f"{table}: column {name} holds {column.entity.value} ({column.why}) and would stay as it is: mask the "
                "table first (mibao mask), name the column in --quasi, or in --keep"
            )
        sys.stderr.write(f"column {name}: stays as it is\n")


def _hierarchies(
    columns: Mapping[str, Sequence[Hashable]], quasi: Sequence[str], given: Sequence[str]
) -> dict[str, Hierarchy]:
    from mibao.deid.hierarchies import hierarchy_of, parse_hierarchy

    files: dict[str, Path] = {}
    for each in given:
        name, _, file = each.partition("=")
        if name not in quasi or not file:
            raise InputError(f"--hierarchy {each}: expected COLUMN=FILE, a column of --quasi")
        files[name] = Path(file)
    made = {}
    for name in quasi:
        if name not in files:
            made[name] = hierarchy_of(columns[name])
            continue
        path = files[name]
        if not path.is_file() or path.stat().st_size > _MAX_HIERARCHY_BYTES:
            raise InputError(f"{path}: expected a file of at most {_MAX_HIERARCHY_BYTES >> 20} MiB")
        made[name] = parse_hierarchy(path.read_text(encoding="utf-8"), columns[name], source=str(path))
    return made


def _write(output: Path, made: Mapping[str, Sequence[Hashable]]) -> None:
    from mibao.deid.files import table_batches, writer

    with new_file(output) as part, writer(part, output.suffix.lower()) as write:
        for batch in table_batches(made):
            write(batch)


def _tell(
    columns: Mapping[str, Sequence[Hashable]],
    chosen: Mapping[str, Hierarchy],
    found: Generalised,
    measured: Mapping[str, float],
    *,
    as_json: bool,
) -> None:
    rows = len(next(iter(columns.values())))
    loss = found.loss
    if as_json:
        summary = {
            "rows": rows, "left_out": rows - len(found.rows), "suppressed": loss.suppressed,
            "certainty": loss.certainty,
            "discernibility": loss.discernibility, "levels": dict(found.levels), "best": found.is_best, **measured,
        }  # fmt: skip
        sys.stdout.write(json.dumps(summary) + "\n")
        return
    for name, hierarchy in chosen.items():
        level = found.levels[name]
        example = next(iter(hierarchy.levels[level].values()))
        sys.stdout.write(
            f"{name}: level {level} of {hierarchy.height}, such as {example}\n" if level else f"{name}: kept\n"
        )
    reached = ", ".join(f"{name} = {figure:,.4g}" for name, figure in measured.items())
    best = "the least lossy of all combinations" if found.is_best else "no single step further down holds"
    sys.stdout.write(
        f"reached: {reached}\n"
        f"lost: {rows - len(found.rows):,} of {rows:,} rows left out ({loss.suppressed:.1%}), certainty penalty "
        f"{loss.certainty:.1%}, discernibility {loss.discernibility:,}; {best} ({found.nodes_tried:,} tried)\n"
        "Less risky, not anonymous: mibao deid risk says what is left for other columns.\n"
    )


def write_page(
    path: Path, found: Mapping[str, float], sizes: Sequence[int], quasi: Sequence[str], *, chinese: bool
) -> None:
    """The report of ``mibao deid risk`` as a page."""
    from mibao.deid.risk_page import RiskFigures, risk_page
    from mibao.types import Language

    figures = RiskFigures(
        sizes=sizes, quasi=quasi, prosecutor=found["prosecutor"], journalist=found.get("journalist"),
        marketer=found["marketer"],
        measures={name: float(figure) for name, figure in found.items()},
    )  # fmt: skip
    with new_file(path) as part:
        page = risk_page(figures, language=Language.CHINESE if chinese else Language.ENGLISH)
        part.write_text(page, encoding="utf-8")
