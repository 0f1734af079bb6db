"""Values outside the range that a circuit was calibrated for: found before encryption, named by place, not by value."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray

from mibao.errors import InputError

SHOWN = 5


def outside(
    records: Float64[ndarray, "rows features"], *, low: Float64[ndarray, "features"], high: Float64[ndarray, "features"]
) -> Bool[ndarray, "rows features"]:
    """Where a value lies outside ``[low, high]``, or is no number."""
    return ~((records >= low) & (records <= high))


def check_range(
    records: Float64[ndarray, "rows features"],
    *,
    low: Float64[ndarray, "features"],
    high: Float64[ndarray, "features"],
    names: tuple[str, ...] = (),
) -> None:
    """Return if every value lies within ``[low, high]``.

    Args:
        names: Of the features, where they are known; else their numbers stand in the message.

    Raises:
        InputError: a value is outside; the message gives row and feature of the first five, and how many there are.
    """
    places = np.argwhere(outside(records, low=low, high=high))
    if not len(places):
        return
    shown = [f"row {row}, feature {_named(int(feature), names)}" for row, feature in places[:SHOWN]]
    more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
    rows = len(np.unique(places[:, 0]))
    raise InputError(
        f"records: {len(places)} values in {rows} rows are outside the calibrated range: {'; '.join(shown)}{more}. "
        "An answer there would mean nothing: leave these rows out, or compile with a calibration that covers them"
    )


def _named(feature: int, names: tuple[str, ...]) -> str:
    return f"{feature} ({names[feature]})" if names else str(feature)
