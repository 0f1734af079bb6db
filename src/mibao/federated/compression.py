"""Smaller uploads: some of an update's coordinates, and fewer bits for each.

Coordinates that all clients of a round share sum like whole updates, and so go through a secure sum. Each client's own
largest, and values with a scale of the client's own, are seen by the server one by one, or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from jaxtyping import Float, Float32, Int64, Num, UInt64
from numpy import ndarray

from mibao.errors import InputError
from mibao.federated.local_training import LocalWork

MAX_BITS, WHOLE_BITS = 16, 32
_PLACE_BYTES, _SCALE_BYTES = 4, 4
_LEFT = "left_out"


class Places(Enum):
    """Which coordinates of an update are sent."""

    SHARED = "shared"  # the same for all clients of a round, drawn anew each round
    LARGEST = "largest"  # each client's own largest; the others are kept there and added to its next update


@dataclass(frozen=True, slots=True, kw_only=True)
class Compression:
    """How updates are made smaller.

    Attributes:
        keep: The share of coordinates that are sent.
        places: ``"shared"``: the same of all clients, scaled so that their mean is right in the mean; goes with a
            secure sum. ``"largest"``: each client's own.
        bits: Of a value, 2 to 16, rounded at random to a multiple of the client's largest; 32: not rounded.

    Raises:
        InputError: a number is out of range, or nothing would be smaller.

    Source: Konečný et al., "Federated Learning: Strategies for Improving Communication Efficiency", 2016 (random
    masks); Stich, Cordonnier and Jaggi, NeurIPS 2018 (largest, with memory); Alistarh et al., QSGD, NeurIPS 2017.
    """

    keep: float = 1.0
    places: str = Places.SHARED.value
    bits: int = WHOLE_BITS

    def __post_init__(self) -> None:
        if not 0.0 < self.keep <= 1.0:
            raise InputError(f"compression: expected to keep a share of 0 to 1, got {self.keep:g}")
        if self.places not in [each.value for each in Places]:
            raise InputError(f"compression: expected the places 'shared' or 'largest', got '{self.places}'")
        if self.bits != WHOLE_BITS and not 2 <= self.bits <= MAX_BITS:
            raise InputError(f"compression: expected 2 to {MAX_BITS} bits, or {WHOLE_BITS}, got {self.bits}")
        if self.keep == 1.0 and self.bits == WHOLE_BITS:
            raise InputError("compression: expected to keep less than all, or fewer bits than 32")

    @property
    def summable(self) -> bool:
        """Whether compressed updates sum like whole ones, as under masks."""
        return self.places == Places.SHARED.value and self.bits == WHOLE_BITS

    def kept(self, size: int) -> int:
        """How many of ``size`` coordinates are sent."""
        return max(1, round(self.keep * size))

    def length(self, size: int) -> int:
        """How many numbers the server adds up for an update of ``size``."""
        return self.kept(size) if self.places == Places.SHARED.value else size

    def shared_places(self, size: int, *, seed: int, round_number: int) -> Int64[ndarray, "kept"] | None:
        """The coordinates of a round, ascending; ``None`` where clients choose or all are sent."""
        if self.places != Places.SHARED.value or self.kept(size) == size:
            return None
        drawn = np.random.default_rng([seed, round_number, 2]).choice(size, size=self.kept(size), replace=False)
        return np.sort(drawn)

    def compressed(
        self,
        rows: Float[ndarray, "clients weights"],
        group: Sequence[LocalWork],
        owns: Mapping[int, MutableMapping[str, Num[ndarray, "..."]]],
    ) -> tuple[Float[ndarray, "clients numbers"], int]:
        """What the server reads out of the clients' messages, and how many bytes those are.

        A row that is not finite stays so. What a client leaves out of its own choice is left in ``owns``.
        """
        found, sent = [], 0
        for row, work in zip(rows, group, strict=True):
            draws = np.random.default_rng([work.seed, 3])
            if self.places == Places.LARGEST.value:
                values, spent = self._largest(row, owns[work.client], draws)
            else:
                values = row if work.places is None else row[work.places]
                values, spent = self._through(values, draws)
            found.append(values)
            sent += spent
        return np.stack(found), sent

    def _largest(
        self, row: Float[ndarray, "weights"], own: MutableMapping[str, Num[ndarray, "..."]], draws: np.random.Generator
    ) -> tuple[Float[ndarray, "weights"], int]:
        wanted = row + own.get(_LEFT, np.zeros_like(row))
        if not np.isfinite(wanted.sum()):
            return wanted, 0
        kept = self.kept(len(row))
        places = np.argpartition(np.abs(wanted), len(row) - kept)[len(row) - kept :]
        values, spent = self._through(wanted[places], draws)
        arrived = np.zeros_like(wanted)
        arrived[places] = values
        own[_LEFT] = wanted - arrived
        # The places as numbers, or as one bit for each coordinate.
        return arrived, spent + min(_PLACE_BYTES * kept, -(-len(row) // 8))

    def _through(
        self, values: Float[ndarray, "numbers"], draws: np.random.Generator
    ) -> tuple[Float[ndarray, "numbers"], int]:
        if self.bits == WHOLE_BITS:
            return values, WHOLE_BITS // 8 * len(values)
        if not np.abs(values).max() <= np.finfo(np.float32).max:
            return np.full_like(values, np.nan), 0  # its training diverged
        message = pack(values, bits=self.bits, draws=draws)
        return unpack(message, count=len(values), bits=self.bits).astype(values.dtype), len(message)


def pack(values: Float[ndarray, "numbers"], *, bits: int, draws: np.random.Generator) -> bytes:
    """Finite values as their largest magnitude, a 32-bit float, and ``bits`` bits for each, rounded at random.

    A value is off by less than ``largest / (2**(bits - 1) - 1)``, and right in the mean.
    """
    steps = (1 << (bits - 1)) - 1
    largest = np.float32(np.abs(values).max(initial=0.0))
    scaled = values.astype(np.float64) * (steps / float(largest) if largest > 0.0 else 0.0)
    whole = np.clip(np.floor(scaled + draws.random(len(values))), -steps, steps).astype(np.int64) + steps
    digits = (whole[:, None] >> np.arange(bits)) & 1
    return largest.tobytes() + np.packbits(digits.astype(np.uint8)).tobytes()


def unpack(message: bytes, *, count: int, bits: int) -> Float32[ndarray, "count"]:
    """What :func:`pack` wrote.

    Raises:
        InputError: another length, or a scale that is no number.
    """
    if len(message) != _SCALE_BYTES + -(-count * bits // 8):
        raise InputError(f"compression: expected {_SCALE_BYTES + -(-count * bits // 8)} bytes, got {len(message)}")
    largest = np.frombuffer(message[:_SCALE_BYTES], dtype="<f4")[0]
    if not 0.0 <= largest < np.inf:
        raise InputError("compression: expected a finite scale")
    steps = (1 << (bits - 1)) - 1
    digits = np.unpackbits(np.frombuffer(message, dtype=np.uint8, offset=_SCALE_BYTES), count=count * bits)
    whole: UInt64[ndarray, "count"] = digits.reshape(count, bits).astype(np.uint64) @ (
        np.uint64(1) << np.arange(bits, dtype=np.uint64)
    )
    return ((whole.astype(np.float64) - steps) * (float(largest) / steps)).astype(np.float32)
