"""UCI heart disease, Cleveland (Janosi, Steinbrunn, Pfisterer and Detrano, 1988): is there disease, yes or no.

``processed.cleveland.data``: 13 numbers a line and the diagnosis, 0 for none; "?" where a value is missing.
"""

from pathlib import Path

import numpy as np

from mibao.federated import Records, partition

FILE = Path(__file__).with_name("processed.cleveland.data")
# (centre, spread) of age, sex, chest pain, blood pressure, cholesterol, blood sugar, ECG, pulse, angina, ST, slope,
# vessels, thallium: round numbers from textbooks and the file's description, not from the records.
SCALES = ((55, 10), (0.5, 0.5), (3, 1), (130, 20), (240, 50), (0.2, 0.4), (1, 1), (150, 25), (0.3, 0.5), (1, 1),
          (1.5, 0.5), (1, 1), (5, 2))  # fmt: skip
HELD_OUT = 5  # every fifth line


def _read() -> tuple[Records, Records]:
    lines = [line.split(",") for line in FILE.read_text(encoding="ascii").splitlines() if line and line[0] != "#"]
    rows = np.array([[float(value) if value != "?" else np.nan for value in line[:14]] for line in lines])
    centres, spreads = np.array(SCALES, dtype=np.float64).T
    features = np.nan_to_num((rows[:, :13] - centres) / spreads)  # a missing value counts as the centre
    sick = (rows[:, 13] > 0).astype(np.float64)
    apart = np.arange(len(rows)) % HELD_OUT == 0
    return (
        Records(features=features[~apart], targets=sick[~apart]),
        Records(features=features[apart], targets=sick[apart]),
    )


_RECORDS, _HELD_OUT = _read()
load_site = partition.sites_of(_RECORDS, partition.by_column(_RECORDS.features[:, 0], sites=5))


def held_out() -> Records:
    """Records that no hospital has."""
    return _HELD_OUT
