"""Tables and JSON lines, masked batch by batch."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mibao.cli.deid_files import Held, Place, new_file, opened, written
from mibao.cli.deid_work import Progress, notes
from mibao.errors import InputError, MibaoError

if TYPE_CHECKING:
    from mibao.deid.operations import Operator
    from mibao.deid.policies import Policy
    from mibao.deid.tables import TableMasker


def mask_table(source: Path, output: Path | None, policy: Policy, held: Held, *, explain: bool) -> int:
    """The table ``source`` masked into ``output``; returns how many records were withheld."""
    from mibao.deid.operations import Operator

    operator = Operator(policy, scope_key=held.scope_key, vault=held.vault)
    if source.suffix.lower() in (".jsonl", ".ndjson"):
        return _mask_lines(source, output, operator, held, explain=explain)
    if output is None:
        raise InputError(f"{source}: expected -o FILE, where the masked table goes")
    with opened(str(source)) as place:
        _mask_batches(source, output, operator, held, place, explain=explain)
    return 0


def _mask_batches(source: Path, output: Path, operator: Operator, held: Held, place: Place, *, explain: bool) -> None:
    from mibao.deid.detection import default_engine
    from mibao.deid.files import batches, writer
    from mibao.deid.tables import SAMPLE_ROWS, TableMasker

    import pyarrow as pa  # isort: skip - the line above says which extra brings it
    import pyarrow.compute  # isort: skip

    progress = Progress(place)
    masker: TableMasker | None = None
    with new_file(output) as part, writer(part, output.suffix.lower()) as write:
        for batch in batches(source):
            if masker is None:
                sample = {
                    name: [_text(value) or "" for value in batch.column(index).slice(0, SAMPLE_ROWS).to_pylist()]
                    for index, name in enumerate(batch.schema.names)
                }
                masker = TableMasker(operator, sample, engine=default_engine())
                _show_columns(masker, explain=explain)
            changed = [
                _masked_column(masker, name, batch.column(index), pa) for index, name in enumerate(batch.schema.names)
            ]
            write(pa.RecordBatch.from_arrays(changed, names=batch.schema.names))
            progress.records += batch.num_rows
            place.read += batch.nbytes
            progress.counts = _counts(masker)
            progress.tick()
        held.save()
    replaced = masker.changes.replaced if masker else 0
    progress.close(done=f"masked by {operator.policy.name}", notes=notes(replaced, held))


def _masked_column(masker: TableMasker, name: str, column: Any, pa: Any) -> Any:
    if masker.keeps(name) or pa.types.is_boolean(column.type) or pa.types.is_null(column.type):
        return column
    before = [_text(value) for value in column.to_pylist()]
    after = masker.column(name, before)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)) and masker.is_text(name):
        # A number that is somebody's cannot be changed and stay a number: it is left out.
        hidden = pa.array([one != other for one, other in zip(before, after, strict=True)])
        masker.changes.replaced += hidden.true_count
        return pa.compute.if_else(hidden, pa.scalar(None, column.type), column)
    return pa.array(after, type=pa.string())


def _mask_lines(source: Path, output: Path | None, operator: Operator, held: Held, *, explain: bool) -> int:
    from mibao.deid.detection import default_engine
    from mibao.deid.tables import TableMasker, in_strings, records

    with opened(str(source)) as place, written(output) as out:
        progress = Progress(place)
        masker = TableMasker(operator, _sample_of(source), engine=default_engine())
        _show_columns(masker, explain=explain)
        for number, record in records(place.lines()):
            progress.records += 1
            try:
                if isinstance(record, InputError):
                    raise record
                line = json.dumps(in_strings(record, masker.cell), ensure_ascii=False)
            except Exception as error:  # noqa: BLE001 - whatever goes wrong, this record is left out and the rest go on
                progress.withheld.append(number)
                reason = str(error) if isinstance(error, MibaoError) else type(error).__name__
                sys.stderr.write(f"line {number} withheld: {reason}\n")
                continue
            out.write(line + "\n")
            progress.counts = _counts(masker)
            progress.tick()
        held.save()
        progress.close(done=f"masked by {operator.policy.name}", notes=notes(masker.changes.replaced, held))
    return len(progress.withheld)


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


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value)


def measure(table: Path, quasi: Sequence[str], sensitive: str | None) -> dict[str, float]:
    """The measures of :mod:`mibao.deid.anonymity`, by name; numbers in the columns count as numbers.

    Raises:
        InputError: there is no such table or column.
    """
    from mibao.deid import anonymity
    from mibao.deid.files import batches

    wanted = [*quasi, *([sensitive] if sensitive else [])]
    columns: dict[str, list[Hashable]] = {}
    with opened(str(table)):
        for batch in batches(table):
            if missing := [name for name in wanted if name not in batch.schema.names]:
                raise InputError(f"{table}: no column {missing[0]}; there are {', '.join(batch.schema.names)}")
            for name in wanted:
                columns.setdefault(name, []).extend(batch.column(batch.schema.names.index(name)).to_pylist())
    columns = {name: _as_numbers(values) for name, values in columns.items()}
    measured = anonymity.risk(columns, quasi)
    found: dict[str, float] = {"rows": len(columns[quasi[0]]), "k": anonymity.k_anonymity(columns, quasi)}
    if sensitive:
        found["l_distinct"] = anonymity.l_diversity(columns, quasi, sensitive)
        found["l_entropy"] = anonymity.entropy_l_diversity(columns, quasi, sensitive)
        found["t"] = anonymity.t_closeness(columns, quasi, sensitive)
    return found | {
        "prosecutor": measured.prosecutor, "alone_in_their_class": measured.journalist_unique,
        "marketer": measured.marketer,
    }  # fmt: skip


def _as_numbers(values: list[Hashable]) -> list[Hashable]:
    try:
        return [float(value) if isinstance(value, str) else value for value in values]
    except ValueError:
        return values
