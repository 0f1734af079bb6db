"""Records with named columns: a CSV or Parquet file's, in the form in which a DataFrame hands them on."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from mibao.errors import InputError, MissingExtra


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """Numbers with a name for each column; taken wherever a DataFrame is."""

    columns: tuple[str, ...]
    values: Float64[ndarray, "rows features"]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """The numbers."""
        return np.array(self.values, dtype=dtype) if copy else np.asarray(self.values, dtype=dtype)


def table_of_csv(data: bytes, *, name: str) -> Table:
    """The table in a CSV file whose first line names the columns; ``name`` stands in errors.

    Raises:
        InputError: not text, no header, lines of different lengths, or a cell that is no number; the message gives
            its line and column, never what stands there.
    """
    try:
        lines = list(csv.reader(data.decode("utf-8-sig").splitlines(), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{name}: expected a CSV file in UTF-8") from error
    if len(lines) < 2 or not lines[0]:
        raise InputError(f"{name}: expected a line of column names and at least one record")
    columns, rows = tuple(lines[0]), lines[1:]
    values = np.empty((len(rows), len(columns)))
    for index, row in enumerate(rows):
        if len(row) != len(columns):
            raise InputError(f"{name}: expected {len(columns)} cells in line {index + 2}, got {len(row)}")
        for column, cell in enumerate(row):
            try:
                values[index, column] = float(cell)
            except ValueError:
                raise InputError(
                    f"{name}: expected a number in line {index + 2}, column {column} ({columns[column]})"
                ) from None
    return Table(columns=columns, values=values)


def table_of_parquet(data: bytes, *, name: str) -> Table:
    """The table in a Parquet file; ``name`` stands in errors.

    Raises:
        InputError: not such a file, no record, or a column that holds no numbers or lacks some; the message names it.
        MissingExtra: pyarrow is not installed.
    """
    try:
        import pyarrow  # noqa: PLC0415 - an extra
        from pyarrow import parquet  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise MissingExtra("A calibration in Parquet", extra="tables") from error
    try:
        held = parquet.read_table(pyarrow.BufferReader(data))
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{name}: expected a Parquet file") from error
    if not held.num_rows or not held.num_columns:
        raise InputError(f"{name}: expected at least one column and one record")
    columns = []
    for column, values in zip(held.column_names, held.columns, strict=True):
        kind = values.type
        if not (pyarrow.types.is_floating(kind) or pyarrow.types.is_integer(kind) or pyarrow.types.is_boolean(kind)):
            raise InputError(f"{name}: expected numbers in column {column!r}, got {kind}")
        if values.null_count:
            raise InputError(f"{name}: expected a number in every row of column {column!r}")
        columns.append(np.asarray(values.to_numpy(), dtype=np.float64))
    return Table(columns=tuple(held.column_names), values=np.ascontiguousarray(np.stack(columns, axis=1)))
