"""A table made k-anonymous, l-diverse and t-close: each column generalised as a whole, and few rows left out.

Every combination of the columns' levels is a node of a lattice. On a small lattice all nodes are tried, so what is
found is the best one by the loss below; on a large one a search from the top goes down as long as a node holds, which
finds a node from which no single step further down holds.

Sources: Samarati, TKDE 2001 (full-domain generalisation with suppression); El Emam et al., JAMIA 2009 (optimal lattice
search); Xu et al., KDD 2006 (normalised certainty penalty); Bayardo and Agrawal, ICDE 2005 (discernibility).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeAlias

import numpy as np
from numpy import ndarray

from mibao.deid.anonymity import Columns
from mibao.deid.hierarchies import Hierarchy
from mibao.errors import InputError

MOST_NODES = 4096
Node: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a table must be: classes of at least ``k`` rows, ``l`` distinct sensitive values in each, ``t``-close."""

    k: int
    l: int = 1  # noqa: E741 - its name in every paper
    t: float = 1.0
    most_suppressed: float = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What was lost, each from 0 to 1 but the last.

    ``suppressed``: share of rows left out. ``certainty``: normalised certainty penalty, averaged over the cells of the
    quasi-identifiers, 1 for each cell of a row that is left out. ``discernibility``: squares of the sizes of classes,
    summed, and for each row that is left out the size of the table.
    """

    suppressed: float
    certainty: float
    discernibility: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Generalised:
    """What was found: a level for each column, the rows that stay, what was lost, and whether no node is better."""

    levels: Mapping[str, int]
    rows: tuple[int, ...]
    loss: Loss
    is_best: bool
    nodes_tried: int


def generalise(
    table: Columns, hierarchies: Mapping[str, Hierarchy], demand: Demand, *, sensitive: str | None = None
) -> Generalised:
    """The least lossy way to meet ``demand``: by the certainty penalty, then by discernibility.

    Args:
        table: All columns, as long as one another.
        hierarchies: For each quasi-identifier, how it is made less exact.
        sensitive: The column that ``l`` and ``t`` are about; its numbers have an order for ``t``.

    Raises:
        InputError: the demand is none, there is no such column, or even the whole table as one class does not meet it.
    """
    _check(table, hierarchies, demand, sensitive)
    lattice = _Lattice(table, hierarchies, demand, sensitive)
    nodes = [range(each.height, -1, -1) for each in hierarchies.values()]
    top = tuple(each.height for each in hierarchies.values())
    is_small = int(np.prod([len(levels) for levels in nodes], dtype=np.int64)) <= MOST_NODES
    best = lattice.best(product(*nodes)) if is_small else lattice.descent(top)
    if best is None:
        raise InputError(
            f"anonymise: not even the whole table as one class meets k={demand.k}, l={demand.l}, t={demand.t:g} with "
            f"at most {demand.most_suppressed:.0%} of the rows left out"
        )
    node, kept, loss = best
    return Generalised(
        levels=dict(zip(hierarchies, node, strict=True)),
        rows=tuple(np.flatnonzero(kept[lattice.of_row]).tolist()),
        loss=loss, is_best=is_small, nodes_tried=lattice.tried,
    )  # fmt: skip


def generalised_columns(
    table: Columns, hierarchies: Mapping[str, Hierarchy], found: Generalised
) -> dict[str, list[Hashable]]:
    """The table that ``found`` describes: the rows that stay, quasi-identifiers at their levels."""
    made: dict[str, list[Hashable]] = {}
    for name, values in table.items():
        level = hierarchies[name].levels[found.levels[name]] if found.levels.get(name) else None
        made[name] = [values[row] if level is None else level[values[row]] for row in found.rows]
    return made


class _Lattice:
    """Tries nodes on the distinct rows of the quasi-identifiers, each with how often it stands in the table."""

    def __init__(
        self, table: Columns, hierarchies: Mapping[str, Hierarchy], demand: Demand, sensitive: str | None
    ) -> None:
        self._demand = demand
        own = [_codes(table[name], each.levels[0]) for name, each in hierarchies.items()]
        distinct, of_row = np.unique(np.stack(own), axis=1, return_inverse=True)
        self.of_row = of_row.reshape(-1)
        self._counts = np.bincount(self.of_row)
        self._rows = len(self.of_row)
        self._levels = [
            [_at_level(each, level, codes) for level in range(each.height + 1)]
            for each, codes in zip(hierarchies.values(), distinct, strict=True)
        ]
        self._sensitive = _Sensitive.of(table[sensitive], self.of_row) if sensitive is not None else None
        self.tried = 0

    def best(self, nodes: Iterator[Node]) -> tuple[Node, ndarray, Loss] | None:
        """The best of ``nodes``, which come from the top down: what is too fine for ``k`` is so further down too."""
        found: tuple[Node, ndarray, Loss] | None = None
        too_fine: set[Node] = set()
        for node in nodes:
            if any(above in too_fine for above in _above(node)):
                too_fine.add(node)
                continue
            if found is not None and self._least_certainty(node) > found[2].certainty + 1e-9:
                continue
            classes, large = self._classes(node)
            if self._suppressed(large[classes]) > self._demand.most_suppressed:
                too_fine.add(node)
                continue
            tried = self._try(node, classes, large)
            if tried is not None and (found is None or _order(tried[1]) < _order(found[2])):
                found = (node, *tried)
        return found

    def descent(self, top: Node) -> tuple[Node, ndarray, Loss] | None:
        """From ``top`` down, by the step that loses least, as long as one holds."""
        found = self.best(iter([top]))
        while found is not None and (below := self.best(_below(found[0]))):
            found = below
        return found

    def _classes(self, node: Node) -> tuple[ndarray, ndarray]:
        """The class of each distinct row, and which classes have ``k`` rows."""
        self.tried += 1
        classes = np.zeros(len(self._counts), dtype=np.int64)
        for column, level in zip(self._levels, node, strict=True):
            codes = column[level][0]
            _, classes = np.unique(classes * (int(codes.max()) + 1) + codes, return_inverse=True)
        return classes, np.bincount(classes, weights=self._counts) >= self._demand.k

    def _try(self, node: Node, classes: ndarray, holds: ndarray) -> tuple[ndarray, Loss] | None:
        """Which distinct rows stay, and what is lost; None where the demand is not met."""
        while self._sensitive is not None and holds.any():
            still = holds & self._sensitive.holds(classes, holds, self._demand)
            if (still == holds).all():  # measured against the rows that stay
                break
            holds = still
        kept = holds[classes]
        suppressed = self._suppressed(kept)
        if suppressed > self._demand.most_suppressed or not kept.any():
            return None
        lost = sum(
            (column[level][1] * self._counts)[kept].sum() for column, level in zip(self._levels, node, strict=True)
        )
        certainty = float(lost) / (self._rows * len(node)) + suppressed
        sizes = [int(size) for size in np.bincount(classes, weights=self._counts)[holds]]
        left_out = self._rows - sum(sizes)
        discernibility = sum(size * size for size in sizes) + left_out * self._rows
        return kept, Loss(suppressed=suppressed, certainty=certainty, discernibility=discernibility)

    def _suppressed(self, kept: ndarray) -> float:
        return 1 - float(self._counts[kept].sum()) / self._rows

    def _least_certainty(self, node: Node) -> float:
        """What is lost if no row is left out; a row that is left out loses more."""
        lost = sum((column[level][1] * self._counts).sum() for column, level in zip(self._levels, node, strict=True))
        return float(lost) / (self._rows * len(node))


@dataclass(frozen=True, slots=True)
class _Sensitive:
    """How often each value of the sensitive column stands beside each distinct row."""

    rows: ndarray
    values: ndarray
    counts: ndarray
    distinct: int
    is_ordered: bool

    @classmethod
    def of(cls, column: Sequence[Hashable], of_row: ndarray) -> _Sensitive:
        is_ordered = all(isinstance(value, int | float) for value in column)
        ordered: list[Any] = sorted(set(column), key=None if is_ordered else str)
        at = {value: code for code, value in enumerate(ordered)}
        codes = np.array([at[value] for value in column], dtype=np.int64)
        pairs, counts = np.unique(of_row * len(ordered) + codes, return_counts=True)
        return cls(pairs // len(ordered), pairs % len(ordered), counts, len(ordered), is_ordered)

    def holds(self, classes: ndarray, among: ndarray, demand: Demand) -> ndarray:
        """Which classes have ``l`` values and are ``t``-close to all the rows of the classes ``among``."""
        number = np.cumsum(among) - 1
        of_pair = classes[self.rows]
        inside = among[of_pair]
        cells = number[of_pair[inside]] * self.distinct + self.values[inside]
        table = np.bincount(cells, weights=self.counts[inside], minlength=int(among.sum()) * self.distinct)
        table = table.reshape(-1, self.distinct)
        shares = table / table.sum(axis=1, keepdims=True)
        distances = _distances(shares, table.sum(axis=0) / table.sum(), is_ordered=self.is_ordered)
        held = np.zeros(len(among), dtype=bool)
        held[among] = ((table > 0).sum(axis=1) >= demand.l) & (distances <= demand.t + 1e-12)
        return held


def _distances(inside: ndarray, everywhere: ndarray, *, is_ordered: bool) -> ndarray:
    """The earth mover's distance of each row, as :func:`mibao.deid.anonymity.t_closeness` has it."""
    gaps = inside[:, everywhere > 0] - everywhere[everywhere > 0]
    if not is_ordered:
        return np.asarray(np.abs(gaps).sum(axis=1) / 2)
    return np.asarray(np.abs(np.cumsum(gaps, axis=1)).sum(axis=1) / max(1, gaps.shape[1] - 1))


def _codes(values: Sequence[Hashable], level: Mapping[Hashable, str]) -> ndarray:
    at = {value: code for code, value in enumerate(level)}
    return np.array([at[value] for value in values], dtype=np.int64)


def _at_level(hierarchy: Hierarchy, level: int, codes: ndarray) -> tuple[ndarray, ndarray]:
    """For each distinct row, a code of its value at a level, and what is lost there."""
    texts: dict[str, int] = {}
    of_value = np.array([texts.setdefault(text, len(texts)) for text in hierarchy.levels[level].values()])
    lost = np.array([hierarchy.penalty[level][text] for text in texts])
    return of_value[codes], lost[of_value][codes]


def _above(node: Node) -> Iterator[Node]:
    for index, level in enumerate(node):
        yield (*node[:index], level + 1, *node[index + 1 :])


def _below(node: Node) -> Iterator[Node]:
    for index, level in enumerate(node):
        if level:
            yield (*node[:index], level - 1, *node[index + 1 :])


def _order(loss: Loss) -> tuple[float, int]:
    return round(loss.certainty, 12), loss.discernibility


def _check(table: Columns, hierarchies: Mapping[str, Hierarchy], demand: Demand, sensitive: str | None) -> None:
    for name in (*hierarchies, *([sensitive] if sensitive else [])):
        if name not in table:
            raise InputError(f"anonymise: no column {name}; there are {', '.join(table)}")
    if not hierarchies or not len(next(iter(table.values()))):
        raise InputError("anonymise: expected at least one quasi-identifier, and a row")
    if sensitive in hierarchies:
        raise InputError(f"anonymise: expected {sensitive} to be sensitive or a quasi-identifier, not both")
    if demand.k < 1 or demand.l < 1 or not 0 <= demand.t <= 1 or not 0 <= demand.most_suppressed < 1:
        raise InputError("anonymise: expected k and l from 1 on, t from 0 to 1, and most_suppressed from 0 to under 1")
    if sensitive is None and (demand.l > 1 or demand.t < 1):
        raise InputError("anonymise: expected a sensitive column, which l and t are about")
