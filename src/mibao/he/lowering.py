"""What both layouts build programs with: instructions appended in order, and the state of each register.

A product keeps three components and its own scale for as long as nothing needs otherwise: a weighting behind a square
shares its rescaling, and where it has fewer outputs, relinearisation comes after it. It comes before rescaling:
rounding a third component costs N times the variance of the second.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from mibao.he.program import (
    Add,
    Fold,
    Instruction,
    Multiply,
    Packing,
    Program,
    Relinearize,
    Rescale,
    Rotate,
    Scale,
    Shift,
    Square,
    Total,
    Weigh,
)


class Infeasible(Exception):
    """A layout does not suit a network; another one is tried."""


@dataclass(frozen=True, slots=True)
class Register:
    """A register's number and what its ciphertexts are like.

    Attributes:
        number: Its place in the program.
        count: Ciphertexts in its stack.
        product: Whether it is a product that has not been rescaled.
        components: Two, or three before relinearisation; one for records in clear.
    """

    number: int
    count: int
    product: bool = False
    components: int = 2


@dataclass(slots=True)
class Builder:
    """A program in the making.

    Attributes:
        slots: Numbers in one ciphertext.
        weights_encrypted: Whether weights are ciphertexts, whose products need relinearising.
        data_encrypted: Whether records are; in clear they stay as they are until they meet weights.
        instructions: What was appended so far.
        limits: Largest magnitude in each slot of a register, where calibration knows one; infinity elsewhere.
    """

    slots: int
    weights_encrypted: bool
    data_encrypted: bool = True
    instructions: list[Instruction] = field(default_factory=list)
    limits: dict[int, Float64[ndarray, "..."]] = field(default_factory=dict)

    def append(self, instruction: Instruction, *, count: int, product: bool, components: int) -> Register:
        """The register that the instruction writes."""
        self.instructions.append(instruction)
        return Register(len(self.instructions), count, product, components)

    def request(self, count: int) -> Register:
        """Register 0."""
        return Register(0, count, components=2 if self.data_encrypted else 1)

    def weigh(self, source: Register, weights: Float64[ndarray, "..."]) -> Register:
        """Weighted sums, rescaled, in two components."""
        outputs = weights.shape[0]
        if self.weights_encrypted or outputs > source.count:
            source = self.relinearized(source)
        components = source.components + (1 if self.weights_encrypted else 0)
        weighed = self.append(Weigh(source.number, weights), count=outputs, product=False, components=components)
        return self.rescaled(self.relinearized(weighed))

    def scale(self, source: Register, values: Float64[ndarray, "..."]) -> Register:
        """Each ciphertext times its constants, rescaled, in two components."""
        source = self.relinearized(source)
        components = source.components + (1 if self.weights_encrypted else 0)
        scaled = self.append(Scale(source.number, values), count=source.count, product=False, components=components)
        return self.rescaled(self.relinearized(scaled))

    def shift(self, source: Register, values: Float64[ndarray, "..."]) -> Register:
        """The source plus constants."""
        return self._same(Shift(source.number, values), source)

    def rotate(self, source: Register, steps: tuple[int, ...]) -> Register:
        """A stack of rotations of one ciphertext, or each of a stack by its own step."""
        if not any(steps) and len(steps) == source.count:
            return source
        source = self.relinearized(source)
        return self.append(
            Rotate(source.number, steps), count=len(steps), product=source.product, components=source.components
        )

    def fold(self, source: Register, steps: tuple[int, ...]) -> Register:
        """Sums over rotations."""
        return self._same(Fold(source.number, steps), self.relinearized(source)) if steps else source

    def total(self, source: Register) -> Register:
        """The sum of a stack."""
        if source.count == 1:
            return source
        return self.append(Total(source.number), count=1, product=source.product, components=source.components)

    def multiply(self, left: Register, right: Register) -> Register:
        """Their product, not yet rescaled."""
        if left.number == right.number:
            return self.square(left)
        left = self.relinearized(self.reduced(left))
        right = self.relinearized(self.reduced(right))
        components = left.components + right.components - 1
        return self.append(Multiply(left.number, right.number), count=left.count, product=True, components=components)

    def square(self, source: Register) -> Register:
        """The source times itself."""
        source = self.relinearized(self.reduced(source))
        components = 2 * source.components - 1
        return self.append(Square(source.number), count=source.count, product=True, components=components)

    def add(self, left: Register, right: Register) -> Register:
        """Their sum; both hold sums at one scale."""
        left, right = self.relinearized(left), self.relinearized(right)
        components = max(left.components, right.components)
        return self.append(Add(left.number, right.number), count=left.count, product=False, components=components)

    def rescaled(self, source: Register) -> Register:
        """One level down."""
        return self.append(Rescale(source.number), count=source.count, product=False, components=source.components)

    def relinearized(self, source: Register) -> Register:
        """In two components."""
        if source.components < 3:
            return source
        return self.append(Relinearize(source.number), count=source.count, product=source.product, components=2)

    def limit(self, register: Register, magnitudes: Float64[ndarray, "..."]) -> None:
        """What calibration knows of a register."""
        self.limits[register.number] = magnitudes

    def reduced(self, source: Register) -> Register:
        """At the scale of data, as a product's factor has to be."""
        return self.rescaled(self.relinearized(source)) if source.product else source

    def _same(self, instruction: Instruction, source: Register) -> Register:
        return self.append(instruction, count=source.count, product=source.product, components=source.components)

    def program(self, *, request: Packing, answer: Packing) -> Program:
        """What was built."""
        return Program(slots=self.slots, instructions=tuple(self.instructions), request=request, answer=answer)


def columns_packing(*, width: int, rows: int) -> Packing:
    """Each entry in a ciphertext of its own, a row a slot."""
    entries = np.arange(width, dtype=np.int64)
    return Packing(rows=rows, count=width, entry=entries, ciphertext=entries, place=np.zeros(width, dtype=np.int64))


def packing_of(elements: Int64[ndarray, "count slots"], *, rows: int) -> Packing:
    """A packing from the entry that each slot holds for row 0, -1 where it holds none."""
    ciphertext, place = np.nonzero(elements >= 0)
    return Packing(
        rows=rows,
        count=elements.shape[0],
        entry=elements[ciphertext, place],
        ciphertext=ciphertext.astype(np.int64),
        place=place.astype(np.int64),
    )
