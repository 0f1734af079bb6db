"""Evaluation at the clients: each measures the model on records that it set aside, and the sum is what leaves.

A client adds four numbers: its mean loss and its accuracy times the records that they are over, and those two counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64, Int64, Num
from numpy import ndarray

from mibao.codec import fixed_point
from mibao.errors import InputError
from mibao.federated.records import Records, as_records

if TYPE_CHECKING:
    from mibao.federated.task import Task

LENGTH = 4
PREFIX = "client_"  # of the metrics' names, beside those of records set aside centrally


def held_out(task: Task, site: int) -> Records | None:
    """What a site set aside, checked; ``None`` where it has nothing.

    Raises:
        InputError: the task has no such records, or they do not fit the model; names the site.
    """
    if task.held_out is None:
        raise InputError("task: expected 'held_out', the records that each site sets aside")
    try:
        given = task.held_out(site)
        if given is None:
            return None
        records = as_records(given)
        task.model.check(records)
    except InputError as error:
        raise InputError(f"site {site}, evaluation: {error}") from error
    return records


def measured(
    task: Task,
    weights: Float64[ndarray, "weights"],
    *,
    site: int,
    records: Records | None,
    own: Mapping[str, Num[ndarray, "..."]],
) -> Float64[ndarray, "4"]:
    """A site's part of the sum, measured with its personal parameters in place; zeros where it set nothing aside.

    Raises:
        InputError: the loss is not finite; names the site.
    """
    part = np.zeros(LENGTH)
    if records is None:
        return part
    if "personal" in own:
        weights = weights.copy()
        weights[task.personal_places()] = own["personal"]
    with np.errstate(all="ignore"):
        found = task.model.evaluate(weights, records)
    for place, name in enumerate(("loss", "accuracy")):
        if name in found:
            part[[place, place + 2]] = found[name] * len(records), len(records)
    if not np.all(np.isfinite(part)):
        raise InputError(f"site {site}, evaluation: the loss on its records is not finite")
    return part


def to_grid(task: Task, part: Float64[ndarray, "4"], *, site: int, sites: int) -> Int64[ndarray, "4"]:
    """A site's part as integers. Raises ``InputError`` where ``sites`` of its size might not sum exactly."""
    try:
        return fixed_point.to_integers(part, scale_bits=task.scale_bits, bound=task.plain_bound(sites=sites))
    except InputError as error:
        raise InputError(f"site {site}, evaluation: {error}") from error


def means(total: Float64[ndarray, "4"]) -> dict[str, float]:
    """The metrics over all records set aside at clients, from the sum over clients."""
    counted = zip(("loss", "accuracy"), total[:2], total[2:], strict=True)
    return {PREFIX + name: float(value / count) for name, value, count in counted if count > 0.0}
