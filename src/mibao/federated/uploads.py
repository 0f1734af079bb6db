"""From a client's records to what it adds to the sum: local work, then clipping and the integer grid.

The same functions run for one client, in its :class:`~mibao.federated.node.Node`, and for a whole cohort at once, in
the simulator: what differs is how many works are passed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64, Num
from numpy import ndarray

from mibao import dp
from mibao.codec import fixed_point
from mibao.errors import InputError
from mibao.federated.local_training import LocalWork, plan_visits
from mibao.federated.records import Records
from mibao.federated.strategies import FedAvg, FedBuff, FedSGD, Scaffold

if TYPE_CHECKING:
    from mibao.federated.task import Task

Shared: TypeAlias = Mapping[str, Num[ndarray, "..."]]
Own: TypeAlias = MutableMapping[str, Num[ndarray, "..."]]
"""What a client keeps from round to round: its control variate, its personal parameters."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Uploads:
    """What some clients add to the sum, a row a client, before it is clipped or masked.

    Attributes:
        clients: Their numbers.
        rows: A client's row is not finite if its training diverged.
        counts: What each of them counts in the mean.
        message_bytes: Of all their messages, where updates are made smaller.
    """

    clients: tuple[int, ...]
    rows: Float[ndarray, "clients upload"]
    counts: Float64[ndarray, "clients"]
    message_bytes: int = 0

    @property
    def finite(self) -> Bool[ndarray, "clients"]:
        """Which rows hold numbers only."""
        with np.errstate(all="ignore"):
            return np.asarray(np.isfinite(self.rows.sum(axis=1)))


def plan_work(
    task: Task, *, client: int, records: Records, weights: Float64[ndarray, "weights"], shared: Shared, own: Own,
    seed: int, round_number: int, age: int = 0,
) -> LocalWork:  # fmt: skip
    """One client's work in a round; equal seeds give equal orders of its records."""
    strategy = task.strategy
    if not isinstance(strategy, FedAvg):
        return LocalWork(client=client, records=records, visits=np.empty((0, 1), dtype=np.int64))
    draws = np.random.default_rng([seed, round_number, client]) if strategy.shuffle else None
    start = None if age == 0 else np.asarray(shared["older"][age - 1], dtype=np.float64)
    if "personal" in own:
        start = weights.copy() if start is None else start
        start[task.personal_places()] = own["personal"]
    correction = None
    if isinstance(strategy, Scaffold):
        correction = strategy.correction(_variate(own, weights), shared)
    return LocalWork(
        client=client,
        records=records,
        visits=plan_visits(len(records), epochs=strategy.epochs_of(client), batch=strategy.batch, shuffled=draws),
        start=start,
        correction=correction,
        discount=1.0 / (1.0 + age) ** 0.5 if isinstance(strategy, FedBuff) else 1.0,
        places=task.shared_places(seed=seed, round_number=round_number),
        seed=(seed * 1_000_003 + round_number) * 1_000_003 + client & (1 << 62) - 1,
    )


def uploads(
    task: Task, weights: Float64[ndarray, "weights"], works: Sequence[LocalWork], owns: Mapping[int, Own]
) -> Iterator[Uploads]:
    """The uploads of all ``works``, in groups; what a client keeps for itself is left in ``owns``.

    Raises:
        InputError: a client's records do not fit; names the client.
    """
    strategy = task.strategy
    if isinstance(strategy, FedSGD):
        for work in works:
            row = strategy.upload(task.model, weights, work.records)
            yield Uploads(clients=(work.client,), rows=row[None], counts=np.ones(1))
        return
    if (local := strategy.local) is None:
        raise InputError(f"task: {type(strategy).__name__} says neither how clients train nor that they do not")
    plain = not isinstance(strategy, Scaffold | FedBuff) and not getattr(strategy, "personal", ())
    equal = isinstance(strategy, Scaffold) or (task.privacy is not None)
    for trained in task.model.train(weights, works, local):
        group = [works[place] for place in trained.places]
        rows = trained.moved if plain else _of_its_own(task, weights, group, trained.moved, owns)
        sent = 0
        if task.compression is not None:
            rows, sent = task.compression.compressed(rows, group, owns)
        counts = np.ones(len(group)) if equal else np.array([float(len(work.records)) for work in group])
        yield Uploads(clients=tuple(work.client for work in group), rows=rows, counts=counts, message_bytes=sent)


def _of_its_own(
    task: Task,
    weights: Float64[ndarray, "weights"],
    group: Sequence[LocalWork],
    moved: Float[ndarray, "clients weights"],
    owns: Mapping[int, Own],
) -> Float[ndarray, "clients upload"]:
    """The rows after what strategies do with each client's own state."""
    rows = []
    for work, row in zip(group, moved, strict=True):
        own, left = owns[work.client], row
        if task.personal_places().any() and np.isfinite(row.sum()):
            ended = (weights if work.start is None else work.start) + row
            own["personal"] = ended[task.personal_places()]
            left = np.where(task.personal_places(), 0.0, row)
        if isinstance(task.strategy, Scaffold) and work.correction is not None:
            variate = task.strategy.variate_moved(
                left.astype(np.float64),
                own=_variate(own, weights),
                correction=work.correction,
                steps=len(work.visits),
            )
            if np.isfinite(variate.sum()):
                own["variate"] = _variate(own, weights) + variate
            left = np.concatenate([left, variate])
        rows.append(left * work.discount)
    return np.stack(rows)


def _variate(own: Own, weights: Float64[ndarray, "weights"]) -> Float64[ndarray, "weights"]:
    held: Float64[ndarray, "weights"] = own.get("variate", np.zeros_like(weights))
    return held


def on_grid(task: Task, upload: Uploads, *, sites: int) -> Int64[ndarray, "clients numbers"]:
    """Uploads without differential privacy as integers, counts last where the strategy takes a weighted mean.

    Raises:
        InputError: a number is not finite, or too large for sums of ``sites`` to be exact.
    """
    rows = upload.rows.astype(np.float64)
    if not isinstance(task.strategy, FedSGD):
        rows = np.concatenate([rows * upload.counts[:, None], upload.counts[:, None]], axis=1)
    flat = fixed_point.to_integers(rows.ravel(), scale_bits=task.scale_bits, bound=task.plain_bound(sites=sites))
    return flat.reshape(rows.shape)


def private_sum(task: Task, weights: Float64[ndarray, "weights"], records: Records) -> Int64[ndarray, "weights"]:
    """A site's summed gradients, each record's clipped and on the grid: what record-level privacy is about."""
    privacy = task.privacy
    if privacy is None:
        raise InputError("task: expected differential privacy")
    with np.errstate(all="ignore"):
        rows = task.model.gradients(weights, records)
        # A record whose gradient overflows counts as zero: a refusal would give it away.
        rows = np.where(np.all(np.isfinite(rows), axis=1, keepdims=True), rows, 0.0)
        grid = dp.clip_to_grid(rows, clip=privacy.clip, scale_bits=privacy.scale_bits)
    total: Int64[ndarray, "weights"] = grid.sum(axis=0)
    return total


def personal_places(names: Mapping[str, Num[ndarray, "..."]], patterns: Sequence[str]) -> Bool[ndarray, "weights"]:
    """Which of the weights, named as in a file, stay with each client.

    Raises:
        InputError: a pattern fits no name, or all weights would stay.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InputError(f"task: the personal pattern '{pattern}' fits none of {', '.join(names)}")
    parts = [
        np.full(tensor.size, any(fnmatchcase(name, pattern) for pattern in patterns)) for name, tensor in names.items()
    ]
    places = np.concatenate(parts)
    if places.all():
        raise InputError("task: all parameters are personal, nothing would be shared")
    return places
