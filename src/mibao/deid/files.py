"""Tables on disk, read and written in batches, so that memory does not grow with them: CSV, Parquet, JSON lines."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from mibao.deid.tables import SAMPLE_ROWS, TableMasker
from mibao.errors import InputError, MissingExtra

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv, parquet
except ImportError as error:
    raise MissingExtra("a table", extra="tables") from error

Batch: TypeAlias = "pa.RecordBatch"

ROWS = 8192
_BLOCK_BYTES = 1 << 22


def batches(path: Path) -> Iterator[Batch]:
    """The rows of a table; those of CSV as text, exactly as they stand.

    Raises:
        InputError: the file is no table of its kind.
    """
    try:
        match path.suffix.lower():
            case ".csv" | ".tsv":
                yield from _csv_batches(path)
            case ".parquet":
                with parquet.ParquetFile(path) as file:
                    yield from file.iter_batches(batch_size=ROWS)
            case suffix:
                raise InputError(f"{path}: expected .csv, .tsv or .parquet, got {suffix or 'no suffix'}")
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read as a table ({_first_line(error)})") from error


@contextmanager
def writer(path: Path, kind: str) -> Iterator[Callable[[Batch], None]]:
    """Takes batches and writes them to ``path``, in the format of ``kind``, a file's suffix.

    Raises:
        InputError: the format is none that is written.
    """
    opened: list[Any] = []

    def write(batch: Batch) -> None:
        if not opened:
            opened.append(_open_writer(path, kind, batch.schema))
        opened[0].write(pa.Table.from_batches([batch]) if kind == ".parquet" else batch)

    try:
        yield write
    finally:
        for each in opened:
            each.close()


def table_batches(columns: Mapping[str, Sequence[Hashable]]) -> Iterator[Batch]:
    """A table in memory, in batches; columns of one kind of number keep it, all others become text."""
    made = {name: _column_of(values) for name, values in columns.items()}
    yield from pa.table(made).to_batches(max_chunksize=ROWS)


def _column_of(values: Sequence[Hashable]) -> Any:
    kinds = {type(value) for value in values if value is not None}
    if kinds == {float} and all(value.is_integer() for value in values if isinstance(value, float)):
        return pa.array([None if value is None else int(value) for value in values])  # type: ignore[call-overload]
    if len(kinds) == 1:
        return pa.array(values)
    return pa.array([None if value is None else str(value) for value in values], pa.string())


def sample_of(batch: Batch) -> dict[str, list[str]]:
    """The first values of each column, as text: what its type is inferred from."""
    return {
        name: [_text(value) or "" for value in batch.column(index).slice(0, SAMPLE_ROWS).to_pylist()]
        for index, name in enumerate(batch.schema.names)
    }


def masked_batch(masker: TableMasker, batch: Batch) -> Batch:
    """``batch`` with each column changed; a number that is somebody's, and could not stay one, is left out."""
    names = batch.schema.names
    columns = [_masked_column(masker, name, batch.column(index)) for index, name in enumerate(names)]
    return pa.RecordBatch.from_arrays(columns, names=names)


def _masked_column(masker: TableMasker, name: str, column: Any) -> Any:
    if masker.keeps(name) or pa.types.is_boolean(column.type) or pa.types.is_null(column.type):
        return column
    before = [_text(value) for value in column.to_pylist()]
    after = masker.column(name, before)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)) and masker.is_text(name):
        hidden = pa.array([one != other for one, other in zip(before, after, strict=True)])
        masker.changes.replaced += hidden.true_count
        return pc.if_else(hidden, pa.scalar(None, column.type), column)
    return pa.array(after, type=pa.string())


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value)


def _csv_batches(path: Path) -> Iterator[Batch]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    parsing = csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    reading = csv.ReadOptions(block_size=_BLOCK_BYTES)
    with csv.open_csv(path, read_options=reading, parse_options=parsing) as head:
        names = head.schema.names
    kept = csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False, null_values=[], check_utf8=True
    )
    with csv.open_csv(path, read_options=reading, parse_options=parsing, convert_options=kept) as reader:
        for batch in reader:
            for start in range(0, batch.num_rows, ROWS):
                yield batch.slice(start, ROWS)


def _open_writer(path: Path, kind: str, schema: pa.Schema) -> Any:
    match kind:
        case ".parquet":
            return parquet.ParquetWriter(path, schema)
        case ".csv" | ".tsv":
            options = csv.WriteOptions(delimiter="\t" if kind == ".tsv" else ",", quoting_style="needed")
            return csv.CSVWriter(path, schema, write_options=options)
        case _:
            raise InputError(f"{path}: expected .csv, .tsv or .parquet, got {kind or 'no suffix'}")


def _first_line(error: Exception) -> str:
    """The first line of Arrow's message, without the values that it may quote."""
    return str(error).splitlines()[0].partition(":")[0][:80] if str(error) else type(error).__name__
