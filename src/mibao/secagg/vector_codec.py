"""Real vectors as the small integers of a secure sum: clipped, rotated, rounded at random, weighted, thinned out.

Error bounds, stated here once, in units of the values, with ``step`` the codec's:

* one client's rounding moves a coordinate by less than ``step``, is 0 in the mean (but for the few draws that are
  thrown away because their norm is over its bound), and has variance at most ``step**2 / 4``; a sum of ``n`` is off
  by less than ``n * step`` and has variance at most ``n * step**2 / 4``;
* a rotation keeps Euclidean errors; a coordinate that it makes larger than ``bound`` is cut, with probability at most
  ``2**-40`` a vector;
* with ``kept`` of ``d`` coordinates sent, the same random ones by all, the estimate of a sum is right in the mean, with
  error of variance at most ``(d / kept - 1) * |x|**2`` over the choice.

Sources: Suresh et al., "Distributed Mean Estimation with Limited Communication", ICML 2017;
Kairouz, Liu and Steinke, ICML 2021, on conditional rounding (rounding until the norm is within its bound).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float64, Int64, UInt64
from numpy import ndarray

from mibao.crypto import kdf, prg
from mibao.errors import InputError

MAX_VALUE_BITS = 32
MAX_WEIGHT = 1 << 20
_CUT_BITS = 40
# Rounding is drawn again while the norm is over a bound that it keeps with at least this probability.
_NORM_BETA = math.exp(-0.5)
_MAX_DRAWS = 200


@dataclass(frozen=True)
class VectorCodec:
    """How all clients of a sum turn vectors into integers, and the server turns the sum back.

    Attributes:
        length: Values of a vector, d.
        clip: The Euclidean norm that a vector is clipped to.
        value_bits: Bits of one rounded value, its sign among them: 2 to 32.
        max_weight: The largest weight of a client; 1 for plain sums.
        seed: 32 public bytes, new each round, for the rotation and the choice of coordinates.
        rotated: Whether vectors are rotated, which evens out their coordinates.
        kept: How many coordinates are sent; ``None`` for all.

    Raises:
        InputError: a number is out of range, or there is no seed where one is needed.
    """

    length: int
    clip: float
    value_bits: int = 16
    max_weight: int = 1
    seed: bytes = b""
    rotated: bool = False
    kept: int | None = None

    def __post_init__(self) -> None:
        if not (self.length >= 1 and 0.0 < self.clip < math.inf):
            raise InputError(f"codec: expected a length and a positive clip, got {self.length} and {self.clip:g}")
        if not (2 <= self.value_bits <= MAX_VALUE_BITS and 1 <= self.max_weight <= MAX_WEIGHT):
            raise InputError(
                f"codec: expected 2 to {MAX_VALUE_BITS} bits and a weight of 1 to {MAX_WEIGHT}, "
                f"got {self.value_bits} and {self.max_weight}"
            )
        if (self.rotated or self.kept is not None) and len(self.seed) != prg.SEED_BYTES:
            raise InputError(f"codec: expected a public seed of {prg.SEED_BYTES} bytes, got {len(self.seed)}")
        if self.kept is not None and not 1 <= self.kept <= self.width:
            raise InputError(f"codec: expected 1 to {self.width} coordinates to keep, got {self.kept}")

    @property
    def width(self) -> int:
        """Coordinates before some are left out: a rotation fills up to a power of two."""
        return 1 << (self.length - 1).bit_length() if self.rotated else self.length

    @property
    def weighted(self) -> bool:
        """Whether the weight is sent along, as one more element."""
        return self.max_weight > 1

    @property
    def upload_length(self) -> int:
        """Elements of the vector that goes into the secure sum."""
        return (self.kept or self.width) + self.weighted

    @property
    def input_bits(self) -> int:
        """Bits of one such element, its sign among them."""
        return self.value_bits + (self.max_weight.bit_length() if self.weighted else 0)

    @property
    def bound(self) -> float:
        """The largest coordinate, in magnitude: the clip, or much less once rotated.

        A rotated coordinate of a vector of norm ``c`` exceeds ``t`` with probability at most
        ``2 exp(-t**2 w / 2 c**2)``.
        """
        if not self.rotated:
            return self.clip
        spread = math.sqrt(2.0 * (math.log(2.0 * self.width) + _CUT_BITS * math.log(2.0)) / self.width)
        return self.clip * min(1.0, spread)

    @property
    def step(self) -> float:
        """The distance between two neighbouring values."""
        return self.bound / ((1 << (self.value_bits - 1)) - 1)

    @property
    def squared_sensitivity(self) -> int:
        """The largest squared norm of one client's integers at weight 1, rotation and rounding included.

        Source: Kairouz et al. 2021: the smaller of the sure bound and the one of conditional rounding.
        """
        norm, width = self.clip / self.step, self.kept or self.width
        sure = (norm + math.sqrt(width)) ** 2
        likely = norm**2 + width / 4.0 + math.sqrt(2.0 * -math.log(_NORM_BETA)) * (norm + math.sqrt(width) / 2.0)
        return math.ceil(min(sure, likely) * (1.0 + 1e-9))

    def encode(
        self, values: Float64[ndarray, " d"], *, randomness: Callable[[int], bytes], weight: int = 1
    ) -> Int64[ndarray, " upload"]:
        """The integers of one client, of ``input_bits`` each.

        Raises:
            InputError: a value is not finite, the length or the weight is another, or ``randomness`` gives too few
                bytes.
        """
        if values.shape != (self.length,) or not np.all(np.isfinite(values)):
            raise InputError(f"codec: expected {self.length} finite values, got shape {values.shape}")
        if not 1 <= weight <= self.max_weight:
            raise InputError(f"codec: expected a weight of 1 to {self.max_weight}, got {weight}")
        flat = self._spread(_clipped(values, self.clip))
        scaled = np.clip(flat, -self.bound, self.bound) / self.step
        rounded = self._round(scaled, randomness) * np.int64(weight)
        return np.append(rounded, np.int64(weight)) if self.weighted else rounded

    def decode(self, total: Int64[ndarray, " upload"]) -> Float64[ndarray, " d"]:
        """The sum of the clients' clipped vectors, or their weighted mean where weights are sent.

        Raises:
            InputError: another length, or a sum of weights that is not positive.
        """
        if total.shape != (self.upload_length,):
            raise InputError(f"codec: expected a sum of {self.upload_length} elements, got shape {total.shape}")
        values = (total[:-1] if self.weighted else total).astype(np.float64) * self.step
        if self.weighted:
            if total[-1] < 1:
                raise InputError(f"codec: expected a positive sum of weights, got {int(total[-1])}")
            values /= float(total[-1])
        if self.kept is not None:
            whole = np.zeros(self.width)
            whole[self._places] = values * (self.width / self.kept)
            values = whole
        return _hadamard(values)[: self.length] * self._signs[: self.length] if self.rotated else values

    def _spread(self, values: Float64[ndarray, " d"]) -> Float64[ndarray, " sent"]:
        if self.rotated:
            padded = np.zeros(self.width)
            padded[: self.length] = values * self._signs[: self.length]
            values = _hadamard(padded)
        return values if self.kept is None else values[self._places]

    def _round(self, scaled: Float64[ndarray, " n"], randomness: Callable[[int], bytes]) -> Int64[ndarray, " n"]:
        limit = self.squared_sensitivity
        for _ in range(_MAX_DRAWS):
            drawn = randomness(8 * len(scaled))
            if len(drawn) != 8 * len(scaled):
                raise InputError(f"codec: expected {8 * len(scaled)} random bytes, got {len(drawn)}")
            coins = (np.frombuffer(drawn, dtype="<u8") >> np.uint64(11)) * 2.0**-53
            rounded: Int64[ndarray, " n"] = np.floor(scaled + coins).astype(np.int64)
            if float(np.sum(rounded.astype(np.float64) ** 2)) <= limit:
                return rounded
        raise InputError("codec: expected fresh random bytes, got some from a generator that does not work")

    @cached_property
    def _signs(self) -> Float64[ndarray, " width"]:
        stream = prg.keystream(kdf.derive(self.seed, purpose="secagg/codec/signs"), -(-self.width // 8))
        return 1.0 - 2.0 * np.unpackbits(np.frombuffer(stream, dtype=np.uint8))[: self.width]

    @cached_property
    def _places(self) -> Int64[ndarray, " kept"]:
        seed = kdf.derive(self.seed, purpose="secagg/codec/places")
        order = np.argsort(prg.ring_elements(seed, self.width, modulus_bits=64), kind="stable")
        return np.sort(order[: self.kept])


def to_ring(integers: Int64[ndarray, " n"], *, modulus_bits: int) -> UInt64[ndarray, " n"]:
    """Signed integers modulo ``2**modulus_bits``, as two's complement."""
    return integers.astype(np.uint64) & np.uint64((1 << modulus_bits) - 1)


def from_ring(elements: UInt64[ndarray, " n"], *, modulus_bits: int) -> Int64[ndarray, " n"]:
    """The signed integers nearest to zero behind elements of the ring."""
    spare = np.uint64(64 - modulus_bits)
    return (elements << spare).astype(np.int64) >> np.int64(spare)


def _clipped(values: Float64[ndarray, " d"], bound: float) -> Float64[ndarray, " d"]:
    largest = float(np.max(np.abs(values), initial=0.0))
    if largest == 0.0:
        return values
    norm = float(np.sqrt(np.sum((values / largest) ** 2))) * largest
    return values if norm <= bound else values * (bound / norm)


def _hadamard(values: Float64[ndarray, " width"]) -> Float64[ndarray, " width"]:
    """The orthonormal Walsh-Hadamard transform, which is its own inverse."""
    rows = values.reshape(1, -1)
    while rows.shape[1] > 1:
        half = rows.shape[1] // 2
        rows = np.stack([rows[:, :half] + rows[:, half:], rows[:, :half] - rows[:, half:]], axis=1).reshape(-1, half)
    return rows.ravel() / math.sqrt(len(values))
