"""How much a table still says of one person: k-anonymity, l-diversity, t-closeness, and re-identification risk.

Measured on classes of rows that agree in their quasi-identifiers, what somebody may know of a person from elsewhere.

Sources: Sweeney, 2002 (k); Machanavajjhala et al., 2007 (l, distinct and entropy); Li, Li and Venkatasubramanian, ICDE
2007 (t, sections 4.1 and 4.2); El Emam and Dankar, JAMIA 2008 (the three risks).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from mibao.errors import InputError

Columns: TypeAlias = Mapping[str, Sequence[Hashable]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Risk:
    """Chances of finding one person's row: of the worst row, of rows alone in their class, and on average."""

    prosecutor: float
    journalist_unique: float
    marketer: float


def classes(table: Columns, quasi: Sequence[str]) -> list[list[int]]:
    """The rows of each class, by number.

    Raises:
        InputError: there is no such column, or no row.
    """
    if missing := [name for name in quasi if name not in table]:
        raise InputError(f"anonymity: no column {missing[0]}; there are {', '.join(table)}")
    if not quasi:
        raise InputError("anonymity: expected at least one quasi-identifier")
    found: dict[tuple[Hashable, ...], list[int]] = defaultdict(list)
    for row, values in enumerate(zip(*(table[name] for name in quasi), strict=True)):
        found[values].append(row)
    if not found:
        raise InputError("anonymity: expected a table with rows")
    return list(found.values())


def k_anonymity(table: Columns, quasi: Sequence[str]) -> int:
    """The size of the smallest class. Raises as :func:`classes`."""
    return min(map(len, classes(table, quasi)))


def l_diversity(table: Columns, quasi: Sequence[str], sensitive: str) -> int:
    """The fewest distinct values of ``sensitive`` in a class. Raises as :func:`classes`."""
    values = _column(table, sensitive)
    return min(len({values[row] for row in rows}) for rows in classes(table, quasi))


def entropy_l_diversity(table: Columns, quasi: Sequence[str], sensitive: str) -> float:
    """The least exponential entropy of ``sensitive`` in a class: at least so many equally likely values."""
    values = _column(table, sensitive)
    least = math.inf
    for rows in classes(table, quasi):
        counts = Counter(values[row] for row in rows).values()
        entropy = -sum(count / len(rows) * math.log(count / len(rows)) for count in counts)
        least = min(least, math.exp(entropy))
    return least


def t_closeness(table: Columns, quasi: Sequence[str], sensitive: str) -> float:
    """The greatest distance between the distribution of ``sensitive`` in a class and in the whole table.

    The earth mover's distance: between neighbouring values of a numeric column 1 / (m - 1), m distinct ones; between
    any two values of another column 1.
    """
    values = _column(table, sensitive)
    distinct = sorted(set(values), key=lambda value: (not isinstance(value, int | float), value))
    numeric = all(isinstance(value, int | float) for value in distinct)
    everywhere = Counter(values)
    worst = 0.0
    for rows in classes(table, quasi):
        inside = Counter(values[row] for row in rows)
        gaps = [inside[value] / len(rows) - everywhere[value] / len(values) for value in distinct]
        worst = max(worst, _ordered_distance(gaps) if numeric else sum(map(abs, gaps)) / 2)
    return worst


def risk(table: Columns, quasi: Sequence[str]) -> Risk:
    """The chances of re-identification, taking the table for all of the population."""
    found = classes(table, quasi)
    rows = sum(map(len, found))
    return Risk(
        prosecutor=1 / min(map(len, found)),
        journalist_unique=sum(len(each) for each in found if len(each) == 1) / rows,
        marketer=len(found) / rows,
    )


def journalist(table: Columns, population: Columns, quasi: Sequence[str]) -> float:
    """The chance of finding a person of the table who is only known to belong to the population: of the worst row.

    Raises:
        InputError: as :func:`classes`, or the table has more rows of a class than the population.
    """
    rows_of = Counter(zip(*(population[name] for name in quasi if name in population), strict=True))
    classes(population, quasi)
    worst = 0.0
    for rows in classes(table, quasi):
        known = rows_of[tuple(table[name][rows[0]] for name in quasi)]
        if known < len(rows):
            raise InputError("anonymity: expected a population that holds every row of the table")
        worst = max(worst, 1 / known)
    return worst


def _column(table: Columns, name: str) -> Sequence[Hashable]:
    if name not in table:
        raise InputError(f"anonymity: no column {name}; there are {', '.join(table)}")
    return table[name]


def _ordered_distance(gaps: Sequence[float]) -> float:
    if len(gaps) < 2:
        return 0.0
    total = carried = 0.0
    for gap in gaps:
        carried += gap
        total += abs(carried)
    return total / (len(gaps) - 1)
