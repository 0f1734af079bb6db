"""Bounding what one record can change: clip each row, put it on the integer grid, check the norm there exactly."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Float64, Int64
from numpy import ndarray

from mibao.codec import fixed_point
from mibao.errors import InputError

MAX_CLIP_BITS = 30


def clip_rows(rows: Float64[ndarray, "records d"], *, bound: float) -> Float64[ndarray, "records d"]:
    """Each row scaled down to an L2 norm of ``bound`` if it is longer, up to float rounding; else unchanged.

    Bit for bit, a row's result does not depend on the other rows.

    Raises:
        InputError: ``bound`` is not positive and finite, or a value is not finite.

    Source: Abadi et al., CCS 2016, algorithm 1.
    """
    if not (math.isfinite(bound) and bound > 0):
        raise InputError(f"clipping: expected a positive bound, got {bound:g}")
    if not np.all(np.isfinite(rows)):
        raise InputError("clipping: expected finite values, got a NaN or an infinity")
    rows = np.ascontiguousarray(rows)  # sums over a row then run the same way however many rows there are
    # Rows are first divided by their largest entry: squares of large entries would overflow.
    largest = np.max(np.abs(rows), axis=1, initial=0.0, keepdims=True)
    scaled = rows / np.where(largest > 0.0, largest, 1.0)
    norms = np.sqrt(np.sum(scaled * scaled, axis=1, keepdims=True))
    too_long = largest > bound / np.where(norms > 0.0, norms, 1.0)
    clipped: Float64[ndarray, "records d"] = np.where(too_long, scaled * (bound / np.maximum(norms, 1.0)), rows)
    return clipped


def squared_sensitivity(*, clip: float, scale_bits: int, dimension: int) -> int:
    """The largest squared L2 norm of one record on the grid of ``2**-scale_bits``, in squared grid units.

    Rounding ``dimension`` values to nearest moves a vector by at most ``sqrt(dimension) / 2`` units, so the norm is
    at most ``clip * 2**scale_bits + sqrt(dimension) / 2``. Squared norms on the grid are integers, hence the floor.

    Raises:
        InputError: ``clip`` is not positive, or ``clip * 2**scale_bits`` lies outside ``[1, 2**30]``.
    """
    if not (clip > 0 and dimension > 0 and 1.0 <= math.ldexp(clip, scale_bits) <= 2.0**MAX_CLIP_BITS):
        raise InputError(
            f"clipping: expected clip * 2**scale_bits within 1..2**{MAX_CLIP_BITS}, "
            f"got a clip of {clip:g} and {scale_bits} bits"
        )
    return math.floor((math.ldexp(clip, scale_bits) + math.sqrt(dimension) / 2.0) ** 2)


def clip_to_grid(rows: Float64[ndarray, "records d"], *, clip: float, scale_bits: int) -> Int64[ndarray, "records d"]:
    """Each row clipped and rounded to units of ``2**-scale_bits``.

    The squared norm of every row is at most :func:`squared_sensitivity`, in integer arithmetic: a row that float
    rounding left above it is moved towards zero by one unit in each coordinate.

    Raises:
        InputError: as :func:`clip_rows` and :func:`squared_sensitivity`.
    """
    limit = squared_sensitivity(clip=clip, scale_bits=scale_bits, dimension=rows.shape[1])
    clipped = clip_rows(rows, bound=clip)
    flat = fixed_point.to_integers(clipped.ravel(), scale_bits=scale_bits, bound=2.0 * clip)
    grid: Int64[ndarray, "records d"] = flat.reshape(rows.shape)
    while np.any(too_long := np.sum(grid * grid, axis=1) > limit):
        grid[too_long] -= np.sign(grid[too_long])
    return grid


def clip_updates(rows: Float[ndarray, "clients d"], *, clip: float, scale_bits: int) -> Float64[ndarray, "clients d"]:
    """Whole updates, one a client, clipped and rounded to units of ``2**-scale_bits``; integers kept as floats.

    As :func:`clip_to_grid`, for long rows: the squared norm of every row is at most :func:`squared_sensitivity`. A
    row that is not finite counts as zeros: refusing it would say something about that client.

    Raises:
        InputError: as :func:`squared_sensitivity`.
    """
    limit = squared_sensitivity(clip=clip, scale_bits=scale_bits, dimension=rows.shape[1])
    grid = np.empty(rows.shape)
    for row, out in zip(rows, grid, strict=True):
        _clip_update(row, out, clip=clip, scale_bits=scale_bits, limit=limit)
    return grid


def _clip_update(
    row: Float[ndarray, "d"], out: Float64[ndarray, "d"], *, clip: float, scale_bits: int, limit: int
) -> None:
    with np.errstate(all="ignore"):
        np.multiply(row, 2.0**scale_bits, out=out)
        norm = math.sqrt(_squares(out))
        if not math.isfinite(norm):  # a number that is not finite, or whose square is not
            largest = float(np.max(np.abs(out)))
            if not math.isfinite(largest):
                out[:] = 0.0
                return
            out /= largest
            norm = math.sqrt(_squares(out))
            out *= math.ldexp(clip, scale_bits) / norm
        elif norm > math.ldexp(clip, scale_bits):
            out *= math.ldexp(clip, scale_bits) / norm
    np.rint(out, out=out)
    # The float sum of squares is off by far less than one part in 2**20.
    while _squares(out) * (1.0 + 2.0**-20) > limit and sum(int(value) ** 2 for value in out.tolist()) > limit:
        out -= np.sign(out)


def _squares(values: Float64[ndarray, "d"]) -> float:
    """The sum of squares, on one thread: BLAS would start several for a few microseconds' work."""
    return float(np.einsum("i,i->", values, values))
