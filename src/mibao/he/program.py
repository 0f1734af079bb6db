"""A circuit after layout: straight-line instructions over stacks of ciphertexts, and how records lie in their slots.

Register 0 holds the request; instruction ``k`` writes register ``k + 1``; the last register is the answer. A register
is a stack of one or more ciphertexts at one level and scale. Nothing here depends on the values of weights: in the
modes that encrypt them the host gets the same instructions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Weigh:
    """``out[g] = sum_k weights[g, k] * source[k]``: slot by slot, or by one number for all slots (two axes)."""

    source: int
    weights: Float64[ndarray, "out in *slots"]


@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """``values[k] * source[k]``: slot by slot, or one number for all slots (one axis)."""

    source: int
    values: Float64[ndarray, "count *slots"]


@dataclass(frozen=True, slots=True, eq=False)
class Shift:
    """``source[k] + values[k]``: slot by slot, or one number for all slots (one axis)."""

    source: int
    values: Float64[ndarray, "count *slots"]


@dataclass(frozen=True, slots=True)
class Rotate:
    """A stack of rotations to the left: of one ciphertext by each step, or of each of a stack by equally many steps.

    ``out[k]`` is number ``k * count // len(steps)`` of the source's ``count`` ciphertexts, moved by ``steps[k]``.
    """

    source: int
    steps: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Fold:
    """For each step in turn: the source plus itself with its slots moved left."""

    source: int
    steps: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Total:
    """The sum of a stack."""

    source: int


@dataclass(frozen=True, slots=True)
class Square:
    """``source * source``, in three components until relinearised."""

    source: int


@dataclass(frozen=True, slots=True)
class Multiply:
    """``left * right``, in three components until relinearised; the higher one is brought down to the lower's level."""

    left: int
    right: int


@dataclass(frozen=True, slots=True)
class Add:
    """``left + right``; the higher one is brought down to the lower's level."""

    left: int
    right: int


@dataclass(frozen=True, slots=True)
class Relinearize:
    """The same value in two components."""

    source: int


@dataclass(frozen=True, slots=True)
class Rescale:
    """The same value one level down."""

    source: int


Instruction: TypeAlias = Weigh | Scale | Shift | Rotate | Fold | Total | Square | Multiply | Add | Relinearize | Rescale


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Packing:
    """Where the entries of a batch's rows lie: entry ``i`` of row ``r`` in slot ``place[i] + r`` of its ciphertext.

    Attributes:
        rows: Rows a batch.
        count: Ciphertexts a batch.
        entry: Which entry each (ciphertext, place) holds.
        ciphertext: Its ciphertext.
        place: Its first slot; an input's entry may lie in many places, an output's in one.
    """

    rows: int
    count: int
    entry: Int64[ndarray, "places"]
    ciphertext: Int64[ndarray, "places"]
    place: Int64[ndarray, "places"]

    def pack(self, values: Float64[ndarray, "rows width"], *, slots: int) -> Float64[ndarray, "count slots"]:
        """One batch's slots; zeros where nothing lies."""
        packed = np.zeros((self.count, slots))
        rows = np.arange(len(values))
        packed[self.ciphertext[:, None], self.place[:, None] + rows] = values.T[self.entry]
        return packed

    def unpack(self, packed: Float64[ndarray, "count slots"], rows: int) -> Float64[ndarray, "rows width"]:
        """The first ``rows`` rows of a batch."""
        values = np.empty((rows, int(self.entry.max()) + 1))
        values[:, self.entry] = packed[self.ciphertext[:, None], self.place[:, None] + np.arange(rows)].T
        return values


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Program:
    """Instructions, and how a batch enters and leaves them."""

    slots: int
    instructions: tuple[Instruction, ...]
    request: Packing
    answer: Packing

    def constants(self) -> Iterator[tuple[int, Float64[ndarray, "..."]]]:
        """The weights and shifts, each with its instruction's index."""
        for index, instruction in enumerate(self.instructions):
            if isinstance(instruction, Weigh):
                yield index, instruction.weights
            elif isinstance(instruction, Scale | Shift):
                yield index, instruction.values

    def rotations(self) -> tuple[int, ...]:
        """The steps that take a Galois key, smallest first."""
        steps = {
            step % self.slots
            for instruction in self.instructions
            if isinstance(instruction, Rotate | Fold)
            for step in instruction.steps
        }
        return tuple(sorted(steps - {0}))

    def relinearizes(self) -> bool:
        """Whether the host needs a relinearisation key."""
        return any(isinstance(instruction, Relinearize) for instruction in self.instructions)


Constant: TypeAlias = Weigh | Scale | Shift


def ciphertexts(instruction: Constant) -> int:
    """How many ciphertexts an instruction's constants are where they are encrypted."""
    if isinstance(instruction, Weigh):
        return int(instruction.weights.shape[0] * instruction.weights.shape[1])
    return int(instruction.values.shape[0])


def sources(instruction: Instruction) -> tuple[int, ...]:
    """The registers that an instruction reads."""
    if isinstance(instruction, Add | Multiply):
        return instruction.left, instruction.right
    return (instruction.source,)


def last_read(program: Program) -> dict[int, int]:
    """For each register the index of the last instruction that reads it, -1 where none does."""
    last = dict.fromkeys(range(len(program.instructions) + 1), -1)
    for index, instruction in enumerate(program.instructions):
        for register in sources(instruction):
            last[register] = index
    return last


def without_rescaling(program: Program) -> Program | None:
    """The same program for a modulus of one prime, where all that is rescaled is the one sum before the answer."""
    kept: list[Instruction] = []
    renamed = {0: 0}
    for index, instruction in enumerate(program.instructions):
        if isinstance(instruction, Rotate | Fold | Relinearize | Multiply | Square):
            return None
        if isinstance(instruction, Rescale):
            renamed[index + 1] = renamed[instruction.source]
            continue
        if isinstance(instruction, Add):
            kept.append(Add(renamed[instruction.left], renamed[instruction.right]))
        else:
            kept.append(replace(instruction, source=renamed[instruction.source]))
        renamed[index + 1] = len(kept)
    if len([instruction for instruction in kept if isinstance(instruction, Weigh | Scale)]) != 1:
        return None
    return replace(program, instructions=tuple(kept))


def doubled(program: Program) -> tuple[Program, dict[int, int]]:
    """The same program for levels of two primes each, and each register's new number."""
    kept: list[Instruction] = []
    renamed = {0: 0}
    for index, instruction in enumerate(program.instructions):
        if isinstance(instruction, Add | Multiply):
            kept.append(replace(instruction, left=renamed[instruction.left], right=renamed[instruction.right]))
        else:
            kept.append(replace(instruction, source=renamed[instruction.source]))
        if isinstance(instruction, Rescale):
            kept.append(Rescale(len(kept)))
        renamed[index + 1] = len(kept)
    return replace(program, instructions=tuple(kept)), renamed


def rotated_from(steps: tuple[int, ...], count: int) -> list[int]:
    """Which of a source's ciphertexts each rotation is of."""
    return [index * count // len(steps) for index in range(len(steps))]


def counts(program: Program) -> list[int]:
    """How many ciphertexts each register stacks."""
    found = [program.request.count]
    for instruction in program.instructions:
        match instruction:
            case Weigh(weights=weights):
                found.append(weights.shape[0])
            case Rotate(steps=steps):
                found.append(len(steps))
            case Total():
                found.append(1)
            case _:
                found.append(found[sources(instruction)[0]])
    return found
