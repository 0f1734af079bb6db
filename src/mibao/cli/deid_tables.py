"""Tables and JSON lines, masked batch by batch."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mibao.cli.deid_files import Held, Place, new_file, opened, written
from mibao.cli.deid_work import Progress, notes
from mibao.errors import InputError, MibaoError

if TYPE_CHECKING:
    from mibao.cli.deid_search import Search
    from mibao.deid.operations import Operator
    from mibao.deid.policies import Policy
    from mibao.deid.tables import TableMasker


def mask_table(source: Path, output: Path | None, policy: Policy, held: Held, search: Search, *, explain: bool) -> int:
    """The table ``source`` masked into ``output``; returns how many records were withheld."""
    from mibao.deid.operations import Operator

    operator = Operator(policy, scope_key=held.scope_key, vault=held.vault)
    if source.suffix.lower() in (".jsonl", ".ndjson"):
        return _mask_lines(source, output, operator, held, search, explain=explain)
    if output is None:
        raise InputError(f"{source}: expected -o FILE, where the masked table goes")
    with opened(str(source)) as place:
        _mask_batches(source, output, operator, held, search, place, explain=explain)
    return 0


def _mask_batches(  # noqa: PLR0917
    source: Path, output: Path, operator: Operator, held: Held, search: Search, place: Place, *, explain: bool
) -> None:
    from mibao.deid.files import batches, masked_batch, sample_of, writer

    progress = Progress(place)
    masker: TableMasker | None = None
    with new_file(output) as part, writer(part, output.suffix.lower()) as write:
        for batch in batches(source):
            if masker is None:
                masker = _table_masker(operator, sample_of(batch), search)
                _show_columns(masker, explain=explain)
            write(masked_batch(masker, batch))
            progress.records += batch.num_rows
            place.read += batch.nbytes
            progress.counts = _counts(masker)
            progress.tick()
    replaced = masker.changes.replaced if masker else 0
    progress.close(done=f"masked by {operator.policy.name}", notes=notes(replaced, held, search))


def _table_masker(operator: Operator, sample: Mapping[str, Sequence[str]], search: Search) -> TableMasker:
    from mibao.deid.tables import TableMasker

    return TableMasker(operator, sample, engine=search.engine, detectors=search.detectors)


def _mask_lines(
    source: Path, output: Path | None, operator: Operator, held: Held, search: Search, *, explain: bool
) -> int:
    from mibao.deid.tables import in_strings, records

    with opened(str(source)) as place, written(output) as out:
        progress = Progress(place)
        masker = _table_masker(operator, _sample_of(source), search)
        _show_columns(masker, explain=explain)
        for number, record in records(place.lines()):
            progress.records += 1
            try:
                if isinstance(record, InputError):
                    raise record
                line = json.dumps(in_strings(record, masker.cell), ensure_ascii=False)
            except Exception as error:  # noqa: BLE001 - a detector or a vault may raise anything: the record is left out, not passed on
                progress.withheld.append(number)
                reason = str(error) if isinstance(error, MibaoError) else type(error).__name__
                sys.stderr.write(f"line {number} withheld: {reason}\n")
                continue
            out.write(line + "\n")
            progress.counts = _counts(masker)
            progress.tick()
        progress.close(done=f"masked by {operator.policy.name}", notes=notes(masker.changes.replaced, held, search))
    return len(progress.withheld)


def mask_resource(  # noqa: PLR0917
    source: str,
    resource: dict[str, Any],
    output: Path | None,
    policy: Policy,
    held: Held,
    search: Search,
    *,
    explain: bool,
) -> int:
    """A FHIR resource masked in its own shape, into ``output``."""
    from mibao.deid.fhir import COLUMNS, masked_resource
    from mibao.deid.operations import Operator

    operator = Operator(policy, scope_key=held.scope_key, vault=held.vault)
    masker = _table_masker(operator, {}, search)
    masker.columns = dict(COLUMNS)
    with opened(source) as place, written(output) as out:
        progress = Progress(place)
        place.read = place.size or 0
        if explain:
            _show_columns(masker, explain=explain)
        out.write(json.dumps(masked_resource(resource, masker.cell), ensure_ascii=False, indent=2) + "\n")
        progress.counts = _counts(masker)
        progress.close(done=f"masked by {policy.name}", notes=notes(masker.changes.replaced, held, search))
    return 0


def _sample_of(source: Path) -> dict[str, list[str]]:
    """Strings of the first records, by their names."""
    from mibao.deid.tables import SAMPLE_ROWS, in_strings, records

    found: dict[str, list[str]] = {}

    def note(name: str, value: str) -> str:
        found.setdefault(name, []).append(value)
        return value

    with opened(str(source)) as place:
        for number, record in records(place.lines()):
            if number > SAMPLE_ROWS:
                break
            if not isinstance(record, InputError):
                in_strings(record, note)
    return found


def _show_columns(masker: TableMasker, *, explain: bool) -> None:
    """What each column was taken for, before anything is written."""
    for column in masker.columns.values():
        kind = column.entity.value if column.entity else "text"
        share = f", {column.share:.0%} of the sample" if column.entity and column.share else ""
        if explain or column.entity is not None:
            sys.stderr.write(f"column {column.name}: {kind} ({column.why}{share})\n")


def _counts(masker: TableMasker) -> Counter[str]:
    return Counter({entity.value: count for entity, count in masker.changes.found.items() if count})


def measure(
    table: Path, quasi: Sequence[str], sensitive: str | None, population: Path | None = None
) -> tuple[dict[str, float], list[int]]:
    """The measures of :mod:`mibao.deid.anonymity`, by name, and the size of each class.

    Numbers in the columns count as numbers.

    Raises:
        InputError: there is no such table or column.
    """
    from mibao.deid import anonymity

    columns = numbers_in(read_columns(table, [*quasi, *([sensitive] if sensitive else [])]))
    measured = anonymity.risk(columns, quasi)
    found: dict[str, float] = {"rows": len(columns[quasi[0]]), "k": anonymity.k_anonymity(columns, quasi)}
    if sensitive:
        found["l_distinct"] = anonymity.l_diversity(columns, quasi, sensitive)
        found["l_entropy"] = anonymity.entropy_l_diversity(columns, quasi, sensitive)
        found["t"] = anonymity.t_closeness(columns, quasi, sensitive)
    found |= {
        "prosecutor": measured.prosecutor, "alone_in_their_class": measured.journalist_unique,
        "marketer": measured.marketer,
    }  # fmt: skip
    if population is not None:
        found["journalist"] = anonymity.journalist(columns, numbers_in(read_columns(population, quasi)), quasi)
    return found, [len(rows) for rows in anonymity.classes(columns, quasi)]


def read_columns(table: Path, wanted: Sequence[str] | None = None) -> dict[str, list[Hashable]]:
    """The columns of a table, those named or all, in memory.

    Raises:
        InputError: there is no such table or column.
    """
    from mibao.deid.files import batches

    columns: dict[str, list[Hashable]] = {}
    with opened(str(table)):
        for batch in batches(table):
            names = batch.schema.names
            if missing := [name for name in wanted or () if name not in names]:
                raise InputError(f"{table}: no column {missing[0]}; there are {', '.join(names)}")
            for name in wanted or names:
                columns.setdefault(name, []).extend(batch.column(names.index(name)).to_pylist())
    if not columns:
        raise InputError(f"{table}: expected a table with rows")
    return columns


def numbers_in(columns: Mapping[str, list[Hashable]]) -> dict[str, list[Hashable]]:
    """The columns; text that is numbers throughout as numbers."""
    return {name: _as_numbers(values) for name, values in columns.items()}


def _as_numbers(values: list[Hashable]) -> list[Hashable]:
    try:
        return [float(value) if isinstance(value, str) else value for value in values]
    except ValueError:
        return values
