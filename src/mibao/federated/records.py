"""The records of one site: what never leaves it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Num
from numpy import ndarray

from mibao.errors import InputError

_KEPT = (np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.int64))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Records:
    """Records and one target each, copied and read-only. Its ``repr`` shows counts only.

    Attributes:
        features: One record a row, of any shape: numbers, an image, a sequence of tokens.
        targets: One a record: a number, a class from 0, or an array.

    32-bit and 64-bit floats and whole numbers are kept, other numbers become 64-bit floats.

    Raises:
        InputError: there is no record, rows and targets do not match, or a value is not finite.
    """

    features: Num[ndarray, "records ..."]
    targets: Num[ndarray, "targets ..."]

    def __post_init__(self) -> None:
        if self.features.ndim < 2 or self.targets.ndim < 1 or len(self.features) != len(self.targets):
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
            given = getattr(self, name)
            held = np.array(given, dtype=given.dtype if given.dtype in _KEPT else _wider(given.dtype), order="C")
            held.setflags(write=False)
            object.__setattr__(self, name, held)

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that they take."""
        return int(self.features.nbytes + self.targets.nbytes)

    def __repr__(self) -> str:
        shape = "×".join(map(str, self.features.shape[1:]))
        return f"<Records: {len(self)} rows of {shape} features>"


def as_records(given: object) -> Records:
    """What a task's ``data`` gave as :class:`Records`: records, or a pair of features and targets.

    Arrays of NumPy and tensors of PyTorch on the processor are taken.

    Raises:
        InputError: something else, or as :class:`Records`.
    """
    if isinstance(given, Records):
        return given
    if isinstance(given, tuple | list) and len(given) == 2:
        try:
            features, targets = (np.asarray(part) for part in given)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError("records: expected arrays or tensors of numbers in the processor's memory") from error
        if all(part.dtype.kind in "fiub" for part in (features, targets)):
            return Records(features=_numbers(features), targets=_numbers(targets))
    raise InputError(
        f"records: expected Records, or a pair of features and targets as arrays of numbers, got {type(given).__name__}"
    )


def pool(parts: Sequence[Records]) -> Records:
    """All records in one place: the unprotected run that others are measured against.

    Raises:
        InputError: there is no part, or they differ in the shape of their features or targets.
    """
    if len({(part.features.shape[1:], part.targets.shape[1:]) for part in parts}) != 1:
        raise InputError("records: expected parts with the same number of features")
    return Records(
        features=np.concatenate([part.features for part in parts]),
        targets=np.concatenate([part.targets for part in parts]),
    )


def _wider(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.int64) if dtype.kind in "iu" and dtype.itemsize < 8 else np.dtype(np.float64)


def _numbers(array: Num[ndarray, "..."]) -> Num[ndarray, "..."]:
    return array.astype(np.float64) if array.dtype.kind == "b" else array
