"""A linear layer as a matrix product over residues, for the layout of one ciphertext a feature.

In the NTT domain a ciphertext times an integer is its residues times that integer, coefficient by coefficient. A layer
whose weights are rounded to integers is therefore ``weights @ residues`` modulo each prime. Residues and weights are
cut into limbs so small that a product of float64 matrices is exact; the limbs' products meet again modulo the prime.

Source: Dumas, Giorgi, Pernet, "Dense Linear Algebra over Word-Size Prime Fields", ACM TOMS 35(3), 2008, section 2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, Real, UInt64
from numpy import ndarray

from mibao.errors import InputError

MAX_PRIME_BITS = 60
MAX_WEIGHT_BITS = 60
_EXACT = 1 << 53  # integers up to here are exact in float64, and so are their sums
_MAX_LIMB_BITS = 51
_MOST_SUM_BITS = 62
_QUOTIENT_BITS = 48  # in float64 such a quotient is off by less than a sixteenth
_MOST_PRODUCTS = 12  # half a prime of 60 bits each, and their sum must stay in 63 bits
_WORDS_AT_ONCE = 1 << 16  # of one block of limbs: half of a 1 MiB second-level cache, the products beside them
_SMALLEST_BLOCK = 128
_MAGIC = np.uint64(0x4330 << 48)  # the bits of 2.0**52: an integer below 2**52 put under them is a float64
_MAGIC_VALUE = 2.0**52


@dataclass(frozen=True, slots=True, kw_only=True)
class LimbSplit:
    """Into how many limbs residues and weights are cut, and how wide each is, in bits."""

    residue_limbs: int
    residue_bits: int
    weight_limbs: int
    weight_bits: int

    @property
    def products(self) -> int:
        """Products of float64 matrices that this split takes."""
        return self.residue_limbs * self.weight_limbs


def integer_weights(
    weights: Real[ndarray, "outputs features"], *, scale_bits: int
) -> Int64[ndarray, "outputs features"]:
    """``weights`` times ``2**scale_bits``, rounded to the nearest integers.

    Raises:
        InputError: a value is not finite, or takes more than 60 bits.
    """
    scaled = np.rint(np.asarray(weights, dtype=np.float64) * 2.0**scale_bits)
    if not np.all(np.abs(scaled) < 2.0**MAX_WEIGHT_BITS):  # a NaN compares false
        raise InputError(f"residue product: expected finite weights under {MAX_WEIGHT_BITS} bits at their scale")
    return scaled.astype(np.int64)


def choose_split(weights: Int64[ndarray, "outputs features"], *, prime: int) -> LimbSplit:
    """The split that keeps every sum under ``2**53`` with the fewest matrix products; among equals, few weight limbs.

    Centred limbs of b bits are at most ``2**(b - 1)`` in magnitude, so a sum is at most that times the largest sum of
    one output's weights in magnitude, which is known exactly.

    Raises:
        InputError: there are so many features that no split is exact.
    """
    weight_width = int(np.max(np.abs(weights), initial=1)).bit_length() + 1
    best: LimbSplit | None = None
    for weight_limbs in range(1, weight_width + 1):
        weight_bits = -(-weight_width // weight_limbs)
        limbs = _weight_limbs(weights, weight_limbs, weight_bits)
        largest_sum = max(float(np.max(np.sum(np.abs(limb), axis=1), initial=1.0)) for limb in limbs)
        room = math.floor(math.log2(_EXACT / largest_sum))  # b - 1
        residue_limbs = (
            max(-(-prime.bit_length() // min(room + 1, _MAX_LIMB_BITS)), 1) if room > 0 else 1 + _MOST_PRODUCTS
        )
        if best is None or weight_limbs * residue_limbs < best.products:
            best = LimbSplit(
                residue_limbs=residue_limbs,
                residue_bits=-(-prime.bit_length() // residue_limbs),
                weight_limbs=weight_limbs,
                weight_bits=weight_bits,
            )
        if weight_limbs >= best.products:
            break
    if best is None or best.products > _MOST_PRODUCTS:
        raise InputError(f"residue product: {weights.shape[1]} features are more than a sum in float64 can hold")
    return best


class ResidueMatrix:
    """Integer weights, cut into limbs for each prime once and multiplied with many requests."""

    __slots__ = ("_layers", "_primes", "_shape")

    def __init__(self, weights: Int64[ndarray, "outputs features"], *, primes: Sequence[int]) -> None:
        """Prepare ``weights`` for residues modulo ``primes``.

        Raises:
            InputError: no int64 matrix under 60 bits, a prime over 60 bits, or too many features.
        """
        if 0 in weights.shape:
            raise InputError(f"residue product: expected outputs and features, got a matrix of shape {weights.shape}")
        if max(-int(weights.min()), int(weights.max())) >> MAX_WEIGHT_BITS:
            raise InputError(f"residue product: expected weights under {MAX_WEIGHT_BITS} bits")
        if not primes or not all(1 < prime < 1 << MAX_PRIME_BITS for prime in primes):
            raise InputError(f"residue product: expected primes under {MAX_PRIME_BITS} bits")
        self._shape = weights.shape
        self._primes = tuple(primes)
        self._layers = [_PrimeLayer.of(weights, prime) for prime in primes]

    @property
    def products(self) -> int:
        """Products of float64 matrices for each component of a ciphertext, over all primes."""
        return sum(layer.split.products for layer in self._layers)

    def product(
        self, residues: UInt64[ndarray, "features components primes degree"]
    ) -> UInt64[ndarray, "outputs components primes degree"]:
        """``weights @ residues``, exact modulo each prime.

        Raises:
            InputError: another shape, or a residue that is not under its prime.
        """
        if residues.shape[0] != self._shape[1] or residues.shape[2] != len(self._primes):
            raise InputError(
                f"residue product: expected residues of shape ({self._shape[1]}, components, {len(self._primes)}, "
                f"degree), got {residues.shape}"
            )
        total = np.empty((self._shape[0], *residues.shape[1:]), dtype=np.uint64)
        for index, layer in enumerate(self._layers):
            for component in range(residues.shape[1]):
                layer.multiply(residues[:, component, index], out=total[:, component, index])
        return total


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class _PrimeLayer:
    """The weights' limbs one upon another, so that one product serves them all, for one prime."""

    prime: int
    split: LimbSplit
    stacked: Float64[ndarray, "stacked features"]
    offsets: Int64[ndarray, "outputs 1"]  # what centring the residues' limbs took away
    sums_fit: bool  # in 63 bits as they are, and their quotients in float64: one reduction at the end does

    @classmethod
    def of(cls, weights: Int64[ndarray, "outputs features"], prime: int) -> _PrimeLayer:
        split = choose_split(weights, prime=prime)
        limbs = list(_weight_limbs(weights, split.weight_limbs, split.weight_bits))
        centre = sum(1 << (split.residue_bits * (limb + 1) - 1) for limb in range(split.residue_limbs))
        offsets = [sum(row) * centre % prime for row in weights.tolist()]
        return cls(
            prime=prime,
            split=split,
            stacked=np.concatenate(limbs),
            offsets=np.array(offsets, dtype=np.int64)[:, None],
            sums_fit=prime + _largest_total(limbs, split) < min(1 << _MOST_SUM_BITS, prime << _QUOTIENT_BITS),
        )

    def multiply(self, residues: UInt64[ndarray, "features degree"], *, out: UInt64[ndarray, "outputs degree"]) -> None:
        block = max(_WORDS_AT_ONCE // (residues.shape[0] * self.split.residue_limbs), _SMALLEST_BLOCK)
        for start in range(0, residues.shape[1], block):
            held = np.ascontiguousarray(residues[:, start : start + block])
            if int(held.max()) >= self.prime:
                raise InputError("residue product: a residue is not under its prime")
            out[:, start : start + block] = self._block(held)

    def _block(self, residues: UInt64[ndarray, "features block"]) -> UInt64[ndarray, "outputs block"]:
        total = np.repeat(self.offsets, residues.shape[1], axis=1)
        for index, limb in enumerate(_residue_limbs(residues, self.split)):
            sums = (self.stacked @ limb).reshape(self.split.weight_limbs, *total.shape)
            for weight_index, part in enumerate(sums):
                power = self.split.residue_bits * index + self.split.weight_bits * weight_index
                if self.sums_fit:
                    whole = part.astype(np.int64)
                    total += np.left_shift(whole, np.int64(power), out=whole)
                else:
                    total += _shifted(part, power, self.prime)
        return _reduced(total, self.prime)


def _largest_total(limbs: Sequence[Float64[ndarray, "outputs features"]], split: LimbSplit) -> int:
    """What the limbs' sums, each at its place, add up to at most, in magnitude."""
    largest = 0
    for index, limb in enumerate(limbs):
        weight = int(np.max(np.sum(np.abs(limb), axis=1))) << (split.weight_bits * index)
        largest += sum(weight << (split.residue_bits * (place + 1) - 1) for place in range(split.residue_limbs))
    return largest


def _residue_limbs(residues: UInt64[ndarray, "n m"], split: LimbSplit) -> Iterator[Float64[ndarray, "n m"]]:
    """Limbs from the lowest, each less half its range. An integer below 2**52 in the bits of 2.0**52 is that float."""
    mask = np.uint64((1 << split.residue_bits) - 1)
    centre = _MAGIC_VALUE + 2.0 ** (split.residue_bits - 1)
    for index in range(split.residue_limbs):
        limb = residues >> np.uint64(split.residue_bits * index)
        limb &= mask
        limb |= _MAGIC
        floats = limb.view(np.float64)
        floats -= centre
        yield floats


def _weight_limbs(
    weights: Int64[ndarray, "outputs features"], limbs: int, bits: int
) -> Iterator[Float64[ndarray, "outputs features"]]:
    """Signed limbs from the lowest, each in ``[-2**(bits - 1), 2**(bits - 1))``; the last keeps what is left."""
    rest = weights
    for _ in range(limbs - 1):
        low = ((rest + (1 << (bits - 1))) & ((1 << bits) - 1)) - (1 << (bits - 1))
        yield low.astype(np.float64)
        rest = (rest - low) >> bits
    yield rest.astype(np.float64)


def _shifted(sums: Float64[ndarray, "n m"], power: int, prime: int) -> Int64[ndarray, "n m"]:
    """``sums * 2**power`` modulo the prime, at most 0.51 primes in magnitude; sums are whole and under 2**53.

    The quotient in float64 is off by at most 3, so the difference is under 4 primes, hence right although both
    products wrap around 2**64; a second quotient, now of a few units, is off by a rounding only.
    """
    factor = pow(2, power, prime)
    quotient = sums * (factor / prime)
    np.rint(quotient, out=quotient)
    rest = sums.astype(np.int64)
    if factor != 1:
        rest *= np.int64(factor)
    rest -= quotient.astype(np.int64) * np.int64(prime)
    return rest if factor == 1 else _centred(rest, prime)


def _centred(values: Int64[ndarray, "n m"], prime: int) -> Int64[ndarray, "n m"]:
    quotient = values * (1.0 / prime)
    np.rint(quotient, out=quotient)
    values -= quotient.astype(np.int64) * np.int64(prime)
    return values


def _reduced(values: Int64[ndarray, "n m"], prime: int) -> UInt64[ndarray, "n m"]:
    """Into ``[0, prime)``: of a negative number's bits and those of a prime more, the smaller stand for a residue."""
    residues = _centred(values, prime).view(np.uint64)
    np.minimum(residues, residues + np.uint64(prime), out=residues)
    return residues
