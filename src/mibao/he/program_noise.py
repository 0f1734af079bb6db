"""The proven bound of what a compiled program's answers are off by, instruction by instruction.

:mod:`mibao.he.bounds` predicts the error that a user will see, from variances. This is the worst case that flooding
needs (:mod:`mibao.he.release`): it follows the same program by the rules of :mod:`mibao.he.noise_bound`, from the range
that the client enforces and nothing that calibration has only observed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from mibao.errors import InputError
from mibao.he.levels import Schedule
from mibao.he.noise_bound import Bounded, NoiseRules
from mibao.he.program import (
    Add,
    Constant,
    Fold,
    Instruction,
    Multiply,
    Program,
    Relinearize,
    Rescale,
    Rotate,
    Scale,
    Shift,
    Square,
    Total,
    Weigh,
    rotated_from,
    sources,
)
from mibao.types import ComputeMode

_Stack = list[Bounded]
_HALF = 0.5


def program_noise(
    program: Program,
    schedule: Schedule,
    rules: NoiseRules,
    *,
    mode: ComputeMode,
    input_bound: Float64[ndarray, "count"],
    weights_publicly: bool = False,
) -> Bounded:
    """Bounds that hold for every ciphertext of the answer.

    Args:
        program: With its weights; their sizes enter the bound, so it says something of them.
        schedule: Its levels and scales.
        rules: Of its ring and the key.
        mode: What is encrypted.
        input_bound: Largest magnitude in each ciphertext of a request.
        weights_publicly: Whether weights are encrypted under a public key.

    Raises:
        InputError: a program that no layout makes.
    """
    answer = _Walk(program, schedule, rules, mode, weights_publicly=weights_publicly).run(input_bound)
    worst = max(answer, key=lambda known: known.noise)
    while worst.level < schedule.answer_level:
        worst = rules.drop(worst)
    return worst


class _Walk:
    """Bounds of every register's ciphertexts, the records' own first."""

    def __init__(
        self, program: Program, schedule: Schedule, rules: NoiseRules, mode: ComputeMode, *, weights_publicly: bool
    ) -> None:
        self._program, self._schedule, self._rules = program, schedule, rules
        self._weights_publicly = weights_publicly
        self._data_encrypted = mode is not ComputeMode.ENCRYPTED_WEIGHTS
        self._weights_encrypted = mode is not ComputeMode.ENCRYPTED_DATA

    def run(self, input_bound: Float64[ndarray, "count"]) -> _Stack:
        """The last register's."""
        scale = self._schedule.registers[0].scale
        start = self._rules.fresh if self._data_encrypted else self._in_clear
        registers = [[start(message=float(bound), scale=scale) for bound in input_bound]]
        for index, instruction in enumerate(self._program.instructions):
            given = [registers[register] for register in sources(instruction)]
            registers.append(self._after(index, instruction, given))
        return registers[-1]

    def _in_clear(self, *, message: float, scale: float) -> Bounded:
        """Records in clear: to small ones the host adds one rounding step before it multiplies."""
        known = self._rules.encoded(message=message, scale=scale)
        return replace(known, encoding=known.encoding + 1)

    def _after(self, index: int, instruction: Instruction, given: list[_Stack]) -> _Stack:
        rules, stack = self._rules, given[0]
        match instruction:
            case Weigh(weights=weights):
                after = [self._weighed(index, row, stack) for row in weights]
            case Scale(values=values):
                factors = zip(stack, values, strict=True)
                after = [rules.multiply(known, self._constant(index, value, known)) for known, value in factors]
            case Shift(values=values):
                shifts = zip(stack, values, strict=True)
                after = [rules.add(known, self._constant(index, value, known)) for known, value in shifts]
            case Multiply():
                after = [rules.multiply(*self._levelled(a, b)) for a, b in zip(*given, strict=True)]
            case Add():
                after = [rules.add(*self._levelled(a, b)) for a, b in zip(*given, strict=True)]
            case _:
                after = self._transformed(instruction, stack)
        return after

    def _transformed(self, instruction: Instruction, stack: _Stack) -> _Stack:
        """What takes one stack and no constants."""
        rules = self._rules
        match instruction:
            case Square():
                stack = [rules.multiply(known, known) for known in stack]
            case Relinearize():
                stack = [rules.relinearize(known) if known.components == 3 else known for known in stack]
            case Rescale():
                stack = [rules.rescale(known) for known in stack]
            case Rotate(steps=steps):
                stack = [
                    self._rotated(stack[at], step)
                    for at, step in zip(rotated_from(steps, len(stack)), steps, strict=True)
                ]
            case Fold(steps=steps):
                for step in steps:
                    stack = [rules.add(known, self._rotated(known, step)) for known in stack]
            case Total():
                stack = [reduce(rules.add, stack)]
        return stack

    def _weighed(self, index: int, row: Float64[ndarray, "inputs *slots"], stack: Sequence[Bounded]) -> Bounded:
        used = [(known, value) for known, value in zip(stack, row, strict=True) if np.any(value)]
        if self._weights_encrypted or not used:  # an encrypted zero has its noise as well
            used = list(zip(stack, row, strict=True))
        constants = [self._constant(index, value, known) for known, value in used]
        if row.ndim == 1 and max(constant.message * constant.scale for constant in constants) <= _HALF:
            # All weights are rounded to zero, and the engine makes one of them a rounding step: off by up to a whole.
            constants = [replace(constant, encoding=2 * constant.encoding) for constant in constants]
        products = [self._rules.multiply(known, constant) for (known, _), constant in zip(used, constants, strict=True)]
        return reduce(self._rules.add, products)

    def _constant(self, index: int, value: Float64[ndarray, "*slots"] | float, source: Bounded) -> Bounded:
        instruction = self._program.instructions[index]
        if not isinstance(instruction, Constant):
            raise InputError("noise bound: an instruction without constants")
        message, scale = float(np.max(np.abs(value))), self._schedule.constants[index]
        if self._weights_publicly:
            return self._rules.fresh_publicly(message=message, scale=scale, level=source.level)
        if self._weights_encrypted:
            fresh = self._rules.fresh(message=message, scale=scale)
            for _ in range(source.level):
                fresh = self._rules.drop(fresh)
            return fresh
        if np.ndim(value):
            return self._rules.encoded(message=message, scale=scale, level=source.level)
        return self._rules.encoded_constant(message=message, scale=scale, level=source.level)

    def _rotated(self, known: Bounded, step: int) -> Bounded:
        return self._rules.rotate(known) if step % self._program.slots and known.components > 1 else known

    def _levelled(self, left: Bounded, right: Bounded) -> tuple[Bounded, Bounded]:
        while left.level < right.level:
            left = self._rules.drop(left)
        while right.level < left.level:
            right = self._rules.drop(right)
        return left, right
