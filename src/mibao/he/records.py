"""Records on their way into a circuit: checked against its width and range, cut into batches."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float64, Real
from numpy import ndarray

from mibao.errors import InputError
from mibao.he.calibrated_range import check_range
from mibao.he.spec import MAX_ROWS, CircuitSpec


def checked_records(spec: CircuitSpec, records: Real[ndarray, "..."]) -> Float64[ndarray, "rows features"]:
    """``records`` as float64 rows, once they are known to suit ``spec``.

    Raises:
        InputError: another shape, no rows or too many, a NaN or an infinity, or a value outside the range that the
            circuit was calibrated for. The message gives rows and features by number, never values.
    """
    shape = spec.input_shape or (spec.features,)
    if records.shape[1:] not in (shape, (spec.features,)):
        wanted = ", ".join(map(str, ("rows", *shape)))
        raise InputError(f"records: expected the shape ({wanted}), got {records.shape}")
    if not 1 <= records.shape[0] <= MAX_ROWS:
        raise InputError(f"records: expected 1 to {MAX_ROWS} rows, got {records.shape[0]}")
    values = np.ascontiguousarray(records, dtype=np.float64).reshape(len(records), spec.features)
    if not np.all(np.isfinite(values)):
        raise InputError("records: expected finite values, got a NaN or an infinity")
    check_range(values, low=spec.low, high=spec.high)
    return values


def batches(spec: CircuitSpec, records: Float64[ndarray, "rows features"]) -> Iterator[Float64[ndarray, "count slots"]]:
    """Batch by batch, what goes into each ciphertext."""
    for start in range(0, records.shape[0], spec.request.rows):
        yield spec.request.pack(records[start : start + spec.request.rows], slots=spec.parameters.slots)
