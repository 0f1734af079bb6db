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

_MOST_MENDED = 256  # sums whose addends are brought to one scale, each perhaps more than once
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
    answer_level: int


def schedule_of(
    program: Program, *, primes: Sequence[float], scale: float, answer_scale: float, primes_a_level: int = 1
) -> Schedule:
    """Standings and scales for data primes ``primes``, first to last.

    Sums on the last level stand at ``answer_scale``. Where a level is two primes, each rescaling of the program is two.

    Raises:
        InputError: the program rescales more often than there are primes, or adds values of two scales.
    """
    following = _Following(program, primes, scale, answer_scale, primes_a_level)
    mended = 0
    while (mismatch := following.mismatch()) is not None:
        left, right = (following.registers[register] for register in sources(program.instructions[mismatch]))
        adjusted, ratio = _origin(program, sources(program.instructions[mismatch])[1]), left.scale / right.scale
        if adjusted is None:
            adjusted, ratio = _origin(program, sources(program.instructions[mismatch])[0]), 1 / ratio
        mended += 1
        if adjusted is None or mended > _MOST_MENDED:
            raise InputError("levels: two values of different scales are added")
        following.again_from(adjusted, ratio)
    return Schedule(
        registers=tuple(following.registers),
        constants=following.constants,
        answer_level=len(primes) - primes_a_level,
    )


class _Following:
    """Standings of a program's registers as far as they are known, and what its constants are brought to."""

    def __init__(self, program: Program, primes: Sequence[float], scale: float, answer_scale: float, each: int) -> None:
        self._program, self._primes, self._each = program, primes, each
        self._scale, self._answer_scale = scale, answer_scale
        self._targets: dict[int, float] = {}
        self.registers = [Standing(level=0, scale=scale)]
        self.constants: dict[int, float] = {}

    def again_from(self, index: int, ratio: float) -> None:
        """Forget what follows an instruction, whose result is to stand at ``ratio`` times its scale."""
        self._targets[index] = self._targets.get(index, 1.0) * ratio
        del self.registers[index + 1 :]

    def mismatch(self) -> int | None:
        """Go on to the first sum of two scales and return its index, or to the end."""
        primes, last = self._primes, len(self._primes) - self._each
        for index in range(len(self.registers) - 1, len(self._program.instructions)):
            instruction = self._program.instructions[index]
            given = [self.registers[register] for register in sources(instruction)]
            if isinstance(instruction, Weigh | Scale):
                self.constants[index] = self._constant(index, given[0])
            elif isinstance(instruction, Shift):
                self.constants[index] = given[0].scale
            if isinstance(instruction, Add) and not math.isclose(given[0].scale, given[1].scale, rel_tol=_SAME_SCALE):
                return index
            self.registers.append(_after(instruction, given, self.constants.get(index, 1.0), primes, last))
        return None

    def _constant(self, index: int, source: Standing) -> float:
        """The scale that brings a product, rescaled, to where it should stand."""
        left, each = len(self._primes) - source.level, self._each
        target = (self._scale if left > 2 * each else self._answer_scale) * self._targets.get(index, 1.0)
        dropped = math.prod(self._primes[left - each : left]) if left > each else 1.0
        return target * dropped / source.scale


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


def _after(
    instruction: Instruction, given: list[Standing], constant: float, primes: Sequence[float], last: int
) -> Standing:
    level, scale = max(standing.level for standing in given), given[0].scale
    match instruction:
        case Weigh() | Scale():
            return Standing(level=level, scale=scale * constant)
        case Square():
            return Standing(level=level, scale=scale * scale)
        case Multiply():
            return Standing(level=level, scale=scale * given[1].scale)
        case Rescale():
            if level + 1 > last:
                raise InputError(f"levels: {len(primes)} primes are too few for this program")
            return Standing(level=level + 1, scale=scale / primes[len(primes) - 1 - level])
    return Standing(level=level, scale=scale)


RescaledForms = tuple[frozenset[tuple[int, int]], ...]


def rescaled_forms(program: Program) -> RescaledForms:
    """For each level what its rescalings remove: so many times the bits of data's scale, so many of the weights'."""
    held = [(0, (0, 0))]  # level, bits above the scale of data
    removed: list[set[tuple[int, int]]] = []
    for instruction in program.instructions:
        given = [held[register] for register in sources(instruction)]
        level, (data, weights) = max(level for level, _ in given), given[0][1]
        match instruction:
            case Weigh() | Scale():
                weights += 1
            case Square():
                data, weights = 2 * data + 1, 2 * weights
            case Multiply():
                data, weights = data + 1 + given[1][1][0], weights + given[1][1][1]
            case Rescale():
                removed += [set() for _ in range(level + 1 - len(removed))]
                removed[level].add((data, weights))
                level, data, weights = level + 1, 0, 0
        held.append((level, (data, weights)))
    return tuple(frozenset(forms) for forms in removed)


def rescaled_bits(forms: RescaledForms, *, scale_bits: int, weight_bits: int, kept_bits: int = 0) -> tuple[int, ...]:
    """What each rescaling removes, in bits, in the order of their levels: the sizes of the primes that they drop.

    The last one leaves ``kept_bits``, by which the answer's scale is above that of data.
    """
    removed = [
        max((data * scale_bits + weights * weight_bits for data, weights in level), default=0) for level in forms
    ]
    if removed:
        removed[-1] -= kept_bits
    return tuple(removed)
