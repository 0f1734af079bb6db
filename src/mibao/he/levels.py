"""Levels and scales of a program: where each register stands, and what each constant is encoded at.

Data enter at the top level, at the scale ``2**scale_bits``. A constant's scale is chosen so that its product comes
back to that scale when it is rescaled, exactly; so any two sums may be added. On the last level, where one prime is
left, sums stand at the answer's scale. Where a sum meets a product, whose scale is what its factors and the prime make
it, the constants behind the sum are encoded so that it stands at the product's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mibao.errors import InputError
from mibao.he.program import Add, Instruction, Multiply, Program, Rescale, Scale, Shift, Square, Weigh, sources

_MOST_PASSES = 256
_SAME_SCALE = 1e-9  # two scales that differ by less are one: the library compares them bit by bit, and so do we


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A register's level, counted in rescalings, and its scale."""

    level: int
    scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Every register's standing, the request's first, and every constant's scale by its instruction's index."""

    registers: tuple[Standing, ...]
    constants: dict[int, float]


def schedule_of(program: Program, *, primes: Sequence[float], scale: float, answer_scale: float) -> Schedule:
    """Standings and scales for data primes ``primes``, first to last.

    Sums on the last level stand at ``answer_scale``.

    Raises:
        InputError: the program rescales more often than there are primes, or adds values of two scales.
    """
    targets: dict[int, float] = {}
    for _ in range(_MOST_PASSES):
        registers, constants, mismatch = _followed(program, primes, (scale, answer_scale), targets)
        if mismatch is None:
            return Schedule(registers=tuple(registers), constants=constants)
        left, right = sources(program.instructions[mismatch])
        adjusted, ratio = _origin(program, right), registers[left].scale / registers[right].scale
        if adjusted is None:
            adjusted, ratio = _origin(program, left), 1 / ratio
        if adjusted is None:
            break
        targets[adjusted] = targets.get(adjusted, 1.0) * ratio
    raise InputError("levels: two values of different scales are added")


def _followed(
    program: Program, primes: Sequence[float], scales: tuple[float, float], targets: dict[int, float]
) -> tuple[list[Standing], dict[int, float], int | None]:
    """Standings and constants' scales up to the first sum of two scales, and that sum's index."""
    scale, answer_scale = scales
    registers = [Standing(level=0, scale=scale)]
    constants: dict[int, float] = {}
    for index, instruction in enumerate(program.instructions):
        given = [registers[register] for register in sources(instruction)]
        if isinstance(instruction, Weigh | Scale):
            left = len(primes) - given[0].level
            target = (scale if left > 2 else answer_scale) * targets.get(index, 1.0)
            constants[index] = target * (primes[left - 1] if left > 1 else 1.0) / given[0].scale
        elif isinstance(instruction, Shift):
            constants[index] = given[0].scale
        if isinstance(instruction, Add) and not math.isclose(given[0].scale, given[1].scale, rel_tol=_SAME_SCALE):
            return registers, constants, index
        registers.append(_after(instruction, given, constants.get(index, 1.0), primes))
    return registers, constants, None


def _origin(program: Program, register: int) -> int | None:
    """The weighting whose constants set a register's scale: that of a sum's first addend, of a product's first factor.

    The other addend is brought to it when its own sum is looked at again.
    """
    while register:
        instruction = program.instructions[register - 1]
        if isinstance(instruction, Weigh | Scale):
            return register - 1
        if isinstance(instruction, Square):
            return None
        register = sources(instruction)[0]
    return None


def _after(instruction: Instruction, given: list[Standing], constant: float, primes: Sequence[float]) -> Standing:
    level, scale = max(standing.level for standing in given), given[0].scale
    match instruction:
        case Weigh() | Scale():
            return Standing(level=level, scale=scale * constant)
        case Square():
            return Standing(level=level, scale=scale * scale)
        case Multiply():
            return Standing(level=level, scale=scale * given[1].scale)
        case Rescale():
            if level + 1 >= len(primes):
                raise InputError(f"levels: {len(primes)} primes are too few for this program")
            return Standing(level=level + 1, scale=scale / primes[len(primes) - 1 - level])
    return Standing(level=level, scale=scale)


def rescaled_bits(program: Program, *, scale_bits: int, weight_bits: int, kept_bits: int = 0) -> tuple[int, ...]:
    """What each rescaling removes, in bits, in the order of their levels: the sizes of the primes that they drop.

    The last one leaves ``kept_bits``, by which the answer's scale is above that of data.
    """
    held = [(0, 0)]  # level, bits above the scale of data
    removed: list[int] = []
    for instruction in program.instructions:
        given = [held[register] for register in sources(instruction)]
        level, bits = max(level for level, _ in given), given[0][1]
        match instruction:
            case Weigh() | Scale():
                bits += weight_bits
            case Square():
                bits += scale_bits + bits
            case Multiply():
                bits += scale_bits + given[1][1]
            case Rescale():
                removed += [0] * (level + 1 - len(removed))
                removed[level] = max(removed[level], bits)
                level, bits = level + 1, 0
        held.append((level, bits))
    if removed:
        removed[-1] -= kept_bits
    return tuple(removed)
