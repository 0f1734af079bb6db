"""Any trained model that this package knows, as a network: the way in for :func:`mibao.he.compile`."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from mibao.errors import InputError
from mibao.he.forests import Forest
from mibao.he.models_sklearn import feature_names, network_of_estimator
from mibao.he.models_trees import forest_of, holds_trees
from mibao.he.network import Network

DEFAULT_MARGIN = 0.1


def network_of(
    model: Any,
    *,
    calibration: Any,
    margin: float = DEFAULT_MARGIN,
    input_range: tuple[float | int, float | int] | None = None,
) -> Network:
    """A trained model as a network whose input bounds come from ``calibration``.

    Args:
        model: A fitted scikit-learn estimator or pipeline, or a ``torch.nn.Module``.
        calibration: Records like those that will be asked about, an array or a DataFrame; shape (rows, features), or
            (rows, channels, height, width) for a model of images.
        margin: How far beyond its smallest and largest value in ``calibration`` each feature may lie, as a share of
            its width; a feature that never varies there gets the margin of the widest one.
        input_range: Smallest and largest value of every feature, where they are known, such as (0, 255).

    Raises:
        InputError: records or ranges that do not fit, or a model that cannot be computed on ciphertexts.
    """
    names = feature_names_of(model)
    low, high = bounds_from(calibration, names=names, margin=margin, input_range=input_range)
    module = _family(model)
    if module == "torch":
        from mibao.he.models_torch import network_of_module  # noqa: PLC0415 - torch is an extra

        return network_of_module(model, low=low, high=high, input_shape=records_of(calibration).shape[1:])
    if holds_trees(model):
        raise InputError("compile: expected a model of layers, got trees")
    if module == "sklearn":
        return network_of_estimator(model, low=low, high=high)
    raise InputError(
        f"compile: expected a fitted scikit-learn estimator or a torch.nn.Module, got {type(model).__name__}"
    )


def forest_from(
    model: Any,
    *,
    calibration: Any,
    margin: float = DEFAULT_MARGIN,
    input_range: tuple[float | int, float | int] | None = None,
) -> Forest:
    """A tree or an ensemble of trees as a forest whose input bounds come from ``calibration``.

    Arguments and errors are those of :func:`network_of`; :func:`~mibao.he.models_trees.holds_trees` tells which of the
    two a model is for.
    """
    low, high = bounds_from(calibration, names=feature_names_of(model), margin=margin, input_range=input_range)
    return forest_of(model, low=low, high=high)


def records_of(records: Any, *, names: tuple[str, ...] = ()) -> Float64[ndarray, "rows ..."]:
    """``records`` as float64, the columns of a DataFrame checked against ``names`` where both have them.

    Raises:
        InputError: not an array or DataFrame of finite numbers with at least one row and two axes, or columns with
            other names or in another order; the message gives positions and names of columns, never values.
    """
    columns = getattr(records, "columns", None)
    if columns is not None and names:
        _check_columns(tuple(str(column) for column in columns), names)
    try:
        values = np.asarray(records, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError("records: expected numbers, in an array or a DataFrame") from error
    if values.ndim < 2 or not values.size:
        raise InputError(f"records: expected the shape (rows, features) with at least one row, got {values.shape}")
    if not np.all(np.isfinite(values)):
        row, *place = (str(index) for index in np.argwhere(~np.isfinite(values))[0])
        raise InputError(
            f"records: expected finite values, got a NaN or an infinity in row {row}, feature {', '.join(place)}"
        )
    return np.ascontiguousarray(values)


def _check_columns(columns: tuple[str, ...], names: tuple[str, ...]) -> None:
    if columns == names:
        return
    missing = [name for name in names if name not in columns]
    surplus = [column for column in columns if column not in names]
    if missing or surplus:
        raise InputError(
            f"records: columns missing: {missing or 'none'}; columns that the model lacks: {surplus or 'none'}"
        )
    place = next(index for index, (column, name) in enumerate(zip(columns, names, strict=True)) if column != name)
    raise InputError(f"records: column {place} is {columns[place]!r}, and the model expects {names[place]!r} there")


def bounds_of(
    records: Float64[ndarray, "rows features"], *, margin: float
) -> tuple[Float64[ndarray, "features"], Float64[ndarray, "features"]]:
    """The range of each feature, ``margin`` of its width added on both sides. Raises ``InputError``."""
    if not 0.0 <= margin <= 10.0:
        raise InputError(f"calibration: expected a margin of 0 to 10 widths, got {margin:g}")
    low, high = records.min(axis=0), records.max(axis=0)
    width = high - low
    room = margin * np.where(width > 0, width, width.max() if width.max() > 0 else 1.0)
    return low - room, high + room


def bounds_from(
    calibration: Any,
    *,
    names: tuple[str, ...] = (),
    margin: float = DEFAULT_MARGIN,
    input_range: tuple[float | int, float | int] | None = None,
) -> tuple[Float64[ndarray, "features"], Float64[ndarray, "features"]]:
    """The smallest and the largest value of each feature, flat, that a client may send; see :func:`network_of`."""
    records = records_of(calibration, names=names)
    flat = records.reshape(len(records), -1)
    if input_range is None:
        return bounds_of(flat, margin=margin)
    low, high = (float(bound) for bound in input_range)
    if not low < high:
        raise InputError(f"input_range: expected a smaller and a larger number, got {input_range}")
    if flat.min() < low or flat.max() > high:
        raise InputError("input_range: a record of the calibration lies outside it")
    width = flat.shape[1]
    return np.full(width, low), np.full(width, high)


def feature_names_of(model: Any) -> tuple[str, ...]:
    """The columns of the DataFrame that a scikit-learn or XGBoost model was fitted on, or nothing."""
    family = _family(model)
    if family == "sklearn":
        return feature_names(model)
    return tuple(str(name) for name in getattr(model, "feature_names_in_", ())) if family == "xgboost" else ()


def _family(model: Any) -> str:
    """The library that ``model`` belongs to, without importing any; XGBoost's estimators derive from scikit-learn's."""
    roots = {base.__module__.partition(".")[0] for base in type(model).__mro__}
    return next((root for root in ("xgboost", "torch", "sklearn") if root in roots), "")
