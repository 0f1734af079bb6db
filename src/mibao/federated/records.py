"""The records of one site: what never leaves it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from mibao.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Records:
    """Rows of features and one target a row, copied and read-only. Its ``repr`` shows counts only.

    Raises:
        InputError: there is no record, rows and targets do not match, or a value is not finite.
    """

    features: Float64[ndarray, "records features"]
    targets: Float64[ndarray, "targets"]

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or self.targets.ndim != 1 or len(self.features) != len(self.targets):
            raise InputError(
                "records: expected one row of features for each target, "
                f"got shapes {self.features.shape} and {self.targets.shape}"
            )
        if len(self.targets) == 0:
            raise InputError("records: expected at least one record, got none")
        if not (np.all(np.isfinite(self.features)) and np.all(np.isfinite(self.targets))):
            raise InputError("records: expected finite values, got a NaN or an infinity")
        # Row after row in memory, so that sums over a row do not depend on how many rows there are.
        for name in ("features", "targets"):
            held = np.array(getattr(self, name), dtype=np.float64, order="C")
            held.setflags(write=False)
            object.__setattr__(self, name, held)

    def __len__(self) -> int:
        return len(self.targets)

    def __repr__(self) -> str:
        return f"<Records: {len(self)} rows of {self.features.shape[1]} features>"


def pool(parts: list[Records]) -> Records:
    """All records in one place: the unprotected run that others are measured against.

    Raises:
        InputError: there is no part, or they differ in their number of features.
    """
    if len({part.features.shape[1] for part in parts}) != 1:
        raise InputError("records: expected parts with the same number of features")
    return Records(
        features=np.concatenate([part.features for part in parts]),
        targets=np.concatenate([part.targets for part in parts]),
    )
