"""Records on their way into a circuit: checked against its width and range, cut into columns."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float64, Real
from numpy import ndarray

from mibao.errors import InputError
from mibao.he.spec import MAX_ROWS, CircuitSpec


def checked_records(spec: CircuitSpec, records: Real[ndarray, "..."]) -> Float64[ndarray, "rows features"]:
    """``records`` as float64, once they are known to suit ``spec``.

    Raises:
        InputError: not two-dimensional, another width, no rows or too many, a NaN or an infinity, or a value outside
            the declared range. The message gives column numbers, never values.
    """
    if records.ndim != 2 or records.shape[1] != spec.features:
        raise InputError(f"records: expected the shape (rows, {spec.features}), got {records.shape}")
    if not 1 <= records.shape[0] <= MAX_ROWS:
        raise InputError(f"records: expected 1 to {MAX_ROWS} rows, got {records.shape[0]}")
    values = np.ascontiguousarray(records, dtype=np.float64)
    if not np.all(np.isfinite(values)):
        raise InputError("records: expected finite values, got a NaN or an infinity")
    outside = np.flatnonzero(np.any(np.abs(values) > spec.input_bound, axis=0))
    if outside.size:
        raise InputError(
            f"records: expected values within ±{spec.input_bound:g}, "
            f"got one outside in column {outside[0]} ({outside.size} such columns)"
        )
    return values


def columns(spec: CircuitSpec, records: Float64[ndarray, "rows features"]) -> Iterator[Float64[ndarray, "count"]]:
    """Batch by batch, each feature's values for up to N / 2 rows: what goes into one ciphertext."""
    slots = spec.parameters.slots
    for start in range(0, records.shape[0], slots):
        yield from np.ascontiguousarray(records[start : start + slots].T)
