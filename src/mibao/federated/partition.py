"""One data set shared out among sites for a simulation: every record at exactly one of them.

    >>> parts = partition.dirichlet(records.targets, sites=100, alpha=0.3, seed=1)
    >>> task = Task(..., data=partition.sites_of(records, parts))

Each function gives, for each site, the places of its records. Partitioners of flwr-datasets, and others with
``load_partition`` and ``num_partitions``, are taken by :func:`from_partitioner`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Int64, Num, Shaped
from numpy import ndarray

from mibao.errors import InputError
from mibao.federated.records import Records

Parts: TypeAlias = list[Int64[ndarray, "_"]]

_MOST_TRIES = 100


def sites_of(records: Records, parts: Sequence[Int64[ndarray, "_"]]) -> Callable[[int], Records]:
    """What a task takes as ``data``: a site's records by its number."""

    def load(site: int) -> Records:
        if not 0 <= site < len(parts):
            raise InputError(f"partition: expected a site of 0 to {len(parts) - 1}, got {site}")
        return Records(features=records.features[parts[site]], targets=records.targets[parts[site]])

    return load


def from_partitioner(
    partitioner: Any, *, features: str | Sequence[str], targets: str
) -> Callable[[int], tuple[Num[ndarray, "records ..."], Num[ndarray, "records ..."]]]:
    """What a task takes as ``data``, from a partitioner; a site is a partition.

    Args:
        partitioner: With ``num_partitions`` and ``load_partition(site)``, which gives a data set of Hugging Face or
            columns by name.
        features: The column of the features, of any shape, or several columns of one number each.
        targets: The column of the targets.

    Raises:
        InputError: no partitioner; when called, a site that is not there, or a column that is not.
    """
    if not hasattr(partitioner, "num_partitions") or not callable(getattr(partitioner, "load_partition", None)):
        raise InputError(
            f"partition: expected a partitioner with 'load_partition' and 'num_partitions', "
            f"got {type(partitioner).__name__}"
        )

    def load(site: int) -> tuple[Num[ndarray, "records ..."], Num[ndarray, "records ..."]]:
        if not 0 <= site < partitioner.num_partitions:
            raise InputError(f"partition: expected a site of 0 to {partitioner.num_partitions - 1}, got {site}")
        rows = partitioner.load_partition(site)
        if hasattr(rows, "with_format"):  # a data set of Hugging Face gives arrays when asked, of 32-bit floats
            rows = rows.with_format("numpy")[:]
        for name in [targets, *([features] if isinstance(features, str) else features)]:
            if name not in rows:
                raise InputError(f"partition: expected the columns {', '.join(map(str, rows))}, got '{name}'")
        if isinstance(features, str):
            columns = np.asarray(rows[features])
            return (columns if columns.ndim > 1 else columns[:, None]), np.asarray(rows[targets])
        return np.stack([np.asarray(rows[name]) for name in features], axis=1), np.asarray(rows[targets])

    return load


def iid(count: int, *, sites: int, seed: int) -> Parts:
    """Shuffled, then cut into parts whose sizes differ by one at most. Raises ``InputError`` for too few records."""
    _check(count, sites)
    shuffled = np.random.default_rng(seed).permutation(count)
    return [np.sort(part) for part in np.array_split(shuffled, sites)]


def dirichlet(labels: Shaped[ndarray, "records"], *, sites: int, alpha: float, seed: int, least: int = 1) -> Parts:
    """Each class shared out in proportions drawn from a Dirichlet distribution: the smaller ``alpha``, the more uneven.

    Drawn again until every site has ``least`` records.

    Raises:
        InputError: a number is out of range, or no draw gave every site its records.

    Source: Hsu, Qi and Brown, "Measuring the Effects of Non-Identical Data Distribution", 2019, section 2.
    """
    _check(len(labels), sites * least)
    if not 0.0 < alpha < float("inf"):
        raise InputError(f"partition: expected a positive alpha, got {alpha:g}")
    rng = np.random.default_rng(seed)
    classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    for _ in range(_MOST_TRIES):
        pieces: list[list[Int64[ndarray, "_"]]] = [[] for _ in range(sites)]
        for places in classes:
            cuts = np.cumsum(rng.dirichlet(np.full(sites, alpha)))[:-1] * len(places)
            for site, piece in enumerate(np.split(rng.permutation(places), cuts.astype(np.int64))):
                pieces[site].append(piece)
        parts = [np.sort(np.concatenate(each)) for each in pieces]
        if min(map(len, parts)) >= least:
            return parts
    raise InputError(f"partition: no draw gave each of {sites} sites {least} records: raise alpha or take fewer sites")


def shards(labels: Shaped[ndarray, "records"], *, sites: int, per_site: int, seed: int) -> Parts:
    """Records sorted by class, cut into shards, ``per_site`` of them to each site: few classes a site.

    Raises ``InputError`` for too few records.

    Source: McMahan et al., AISTATS 2017, section 3 ("pathological non-IID").
    """
    _check(len(labels), sites * per_site)
    pieces = np.array_split(np.argsort(labels, kind="stable"), sites * per_site)
    order = np.random.default_rng(seed).permutation(len(pieces)).reshape(sites, per_site)
    return [np.sort(np.concatenate([pieces[piece] for piece in own])) for own in order]


def by_column(column: Num[ndarray, "records"], *, sites: int) -> Parts:
    """Sites by rank in a column, such as age or amount: the lowest values at site 0, the highest at the last.

    Raises ``InputError`` for too few records.
    """
    _check(len(column), sites)
    return [np.sort(part) for part in np.array_split(np.argsort(column, kind="stable"), sites)]


def by_id(ids: Shaped[ndarray, "records"]) -> Parts:
    """A site for each distinct id, in ascending order: who holds the records in fact."""
    _, inverse = np.unique(ids, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    return [np.sort(part) for part in np.split(order, np.cumsum(np.bincount(inverse))[:-1])]


def _check(count: int, least: int) -> None:
    if not 1 <= least <= count:
        raise InputError(f"partition: expected 1 to {count} parts of {count} records, got {least}")
