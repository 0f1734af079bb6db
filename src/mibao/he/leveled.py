"""Sums and products of ciphertexts that carry their level and scale, for computations that no compiler lays out.

Every value at level l stands at one scale, ``scales[l]``: two values multiplied and rescaled come to ``scales[l + 1]``
by the same roundings whatever they are, and a value brought down by several levels is multiplied by a one that is
encoded at just the scale that leads there. So any two values can be added.

Source: Kim, Papadimitriou, Rohloff, Vaikuntanathan, "Approximate Homomorphic Encryption with Reduced Approximation
Error", CT-RSA 2022, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float64
from numpy import ndarray

from mibao.errors import InputError, IntegrityError
from mibao.he.engine import Ciphertext, Engine, GaloisKeys, Operand, RelinearizationKey


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Leveled:
    """A ciphertext of two components and the level it stands at."""

    ciphertext: Ciphertext
    level: int


class Arithmetic:
    """Operations on :class:`Leveled` values under one set of evaluation keys.

    Each raises ``InputError`` when it needs a level more than there are, and ``IntegrityError`` when its result would
    be in clear or the library refuses its operands.
    """

    __slots__ = ("_engine", "_relinearization", "_rotations", "scales")

    def __init__(
        self, engine: Engine, *, relinearization: RelinearizationKey, rotations: GaloisKeys | None = None
    ) -> None:
        self._engine, self._relinearization, self._rotations = engine, relinearization, rotations
        self.scales = level_scales(engine)

    @property
    def last_level(self) -> int:
        """The level from which nothing can be rescaled."""
        return len(self._engine.primes) - 1

    def lowered(self, value: Leveled, level: int, *, factor: float = 1.0) -> Leveled:
        """``factor * value`` at a lower level; at its own level when ``factor`` is one.

        Raises:
            InputError: the level is above the value's, or its own and ``factor`` not one.
        """
        if level == value.level and factor == 1.0:
            return value
        if level <= value.level or level > self.last_level:
            raise InputError(f"levels: a value at level {value.level} cannot be brought to level {level}")
        near = self._engine.lower(value.ciphertext, level - 1) if level - 1 > value.level else value.ciphertext
        scale = self._leading_to(level, start=self.scales[value.level])
        plaintext = self._engine.encode_constant(factor, scale=scale, level=level - 1)
        return self._rescaled(self._summed([near], [plaintext]), level - 1)

    def product(self, left: Leveled, right: Leveled) -> Leveled:
        """``left * right``, one level under the lower of the two."""
        return self.sum_of_products([left], [right])

    def sum_of_products(self, left: Sequence[Leveled], right: Sequence[Leveled]) -> Leveled:
        """``sum(l * r)``: relinearised and rescaled once."""
        level = self._free(max(value.level for value in (*left, *right)))
        factors = [[self.lowered(value, level).ciphertext for value in side] for side in (left, right)]
        total = self._engine.relinearize(self._summed(*factors), self._relinearization)
        return self._rescaled(total, level)

    def square(self, value: Leveled) -> Leveled:
        """``value * value``, one level down."""
        self._free(value.level)
        squared = self._engine.relinearize(self._engine.square(value.ciphertext), self._relinearization)
        return self._rescaled(squared, value.level)

    def times(self, value: Leveled, factor: float | Float64[ndarray, "slots"]) -> Leveled:
        """The value times one number, or slot by slot times a vector, one level down."""
        scale = self.scales[self._free(value.level)]
        if isinstance(factor, ndarray):
            plaintext = self._engine.encode(factor, scale=scale, level=value.level)
        else:
            plaintext = self._engine.encode_constant(factor, scale=scale, level=value.level)
        return self._rescaled(self._summed([value.ciphertext], [plaintext]), value.level)

    def weighted(self, values: Sequence[Leveled], weights: Sequence[float], *, level: int | None = None) -> Leveled:
        """``sum(w * v)`` at ``level``, by default one under the lowest of the values; weights of zero add nothing."""
        lowest = self._free(max(value.level for value in values))
        level = lowest + 1 if level is None else level
        held = [self._engine.lower(value.ciphertext, level - 1) for value in values]
        plaintexts = [
            self._engine.encode_constant(
                weight, scale=self._leading_to(level, start=self.scales[value.level]), level=level - 1
            )
            for value, weight in zip(values, weights, strict=True)
        ]
        return self._rescaled(self._summed(held, plaintexts), level - 1)

    def counted(self, values: Sequence[Leveled], counts: Sequence[int]) -> Leveled:
        """``sum(k * v)`` for whole numbers, at the lowest level of the values: whole numbers take no level."""
        level = max(value.level for value in values)
        held = [self.lowered(value, level).ciphertext for value in values]
        plaintexts = [self._engine.encode_constant(float(count), scale=1.0, level=level) for count in counts]
        return Leveled(ciphertext=self._summed(held, plaintexts), level=level)

    def sum(self, left: Leveled, right: Leveled) -> Leveled:
        """``left + right`` at the lower of their levels."""
        level = max(left.level, right.level)
        addends = [self.lowered(value, level).ciphertext for value in (left, right)]
        return Leveled(ciphertext=self._engine.add(*addends), level=level)

    def shifted(self, value: Leveled, addend: float) -> Leveled:
        """The value plus one number in every slot."""
        plaintext = self._engine.encode_constant(addend, scale=self.scales[value.level], level=value.level)
        return Leveled(ciphertext=self._engine.add(value.ciphertext, plaintext), level=value.level)

    def folded(self, value: Leveled, steps: Sequence[int]) -> Leveled:
        """For each step in turn, the value plus itself with its slots moved left. Raises as :meth:`rotated`."""
        for step in steps:
            value = self.sum(value, self.rotated(value, step))
        return value

    def rotated(self, value: Leveled, step: int) -> Leveled:
        """The value with its slots moved left. Raises ``InputError`` without keys."""
        if self._rotations is None:
            raise InputError("levels: rotations take Galois keys")
        moved = self._engine.rotate(value.ciphertext, step, self._rotations) if step else value.ciphertext
        return Leveled(ciphertext=moved, level=value.level)

    def _summed(self, left: Sequence[Operand], right: Sequence[Operand]) -> Ciphertext:
        total = self._engine.sum_of_products(left, right)
        if total is None:
            raise IntegrityError("levels: every factor is zero, the sum would be in clear")
        return total

    def _free(self, level: int) -> int:
        if level >= self.last_level:
            raise InputError(f"levels: {self.last_level} are too few for this computation")
        return level

    def _rescaled(self, product: Ciphertext, level: int) -> Leveled:
        return Leveled(ciphertext=self._engine.rescale(product), level=level + 1)

    def _leading_to(self, level: int, *, start: float) -> float:
        """The scale of a one that brings ``start`` to the scale of ``level`` by one product and one rescaling."""
        prime, target = float(self._engine.primes[-level]), self.scales[level]
        scale = target * prime / start
        for _ in range(4):  # the last bit of a quotient of products may be off
            reached = start * scale / prime
            if reached == target:
                break
            scale = math.nextafter(scale, math.inf if reached < target else 0.0)
        return scale


def level_scales(engine: Engine) -> list[float]:
    """The scale of each level: near ``2**scale_bits`` at all of them, and each the last's square over its prime.

    A start of just ``2**scale_bits`` would double its distance from the primes at every level. So the start is found
    from the end: the square root of each scale times the prime that leads to it.
    """
    scale = 2.0**engine.parameters.scale_bits
    for prime in engine.primes[1:]:
        scale = math.sqrt(scale * float(prime))
    scales = [scale]
    for prime in reversed(engine.primes[1:]):
        scales.append(scales[-1] * scales[-1] / float(prime))
    return scales
