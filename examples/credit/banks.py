"""UCI German credit (Hofmann, 1994): is the credit paid back.

``german.data``: 20 attributes a line, separated by spaces or commas, then 1 for good and 2 for bad.
"""

from pathlib import Path

import numpy as np
from torch import nn

from mibao.federated import Records, partition

FILE = Path(__file__).with_name("german.data")
# (place, centre, spread) of the numbers: duration, amount, rate, residence, age, credits, dependants.
NUMBERS = ((1, 24, 12), (4, 3000, 3000), (7, 3, 1), (10, 3, 1), (12, 35, 11), (15, 1, 1), (17, 1, 1))
# (place, codes) of the categories, as the file's description lists them.
CODES = (
    (0, 4, "A1"), (2, 5, "A3"), (5, 5, "A6"), (6, 5, "A7"), (8, 5, "A9"), (9, 3, "A10"), (11, 4, "A12"),
    (13, 3, "A14"), (14, 3, "A15"), (16, 4, "A17"), (18, 2, "A19"), (19, 2, "A20"),
)  # fmt: skip
HELD_OUT = 4  # every fourth line


class Scorer(nn.Sequential):
    """Two layers over the numbers and the categories."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(len(NUMBERS) + sum(count for _, count, _ in CODES), 16), nn.ReLU(), nn.Linear(16, 2))


def _features(line: list[str]) -> list[float]:
    found = [(float(line[place]) - centre) / spread for place, centre, spread in NUMBERS]
    for place, count, prefix in CODES:
        code = line[place].removeprefix(prefix)
        chosen = int(code) - (0 if prefix in ("A3",) else 1)
        found += [float(each == chosen) for each in range(count)]
    return found


def _read() -> tuple[Records, Records, "np.ndarray[tuple[int], np.dtype[np.float32]]"]:
    lines = [line.replace(",", " ").split() for line in FILE.read_text(encoding="ascii").splitlines() if line]
    features = np.array([_features(line) for line in lines], dtype=np.float32)
    bad = np.array([int(line[20]) - 1 for line in lines], dtype=np.int64)
    apart = np.arange(len(lines)) % HELD_OUT == 0
    return (
        Records(features=features[~apart], targets=bad[~apart]),
        Records(features=features[apart], targets=bad[apart]),
        features[~apart, 1],
    )


_RECORDS, _HELD_OUT, _AMOUNTS = _read()
load_site = partition.sites_of(_RECORDS, partition.by_column(_AMOUNTS, sites=6))


def held_out() -> Records:
    """Records that no bank has."""
    return _HELD_OUT
