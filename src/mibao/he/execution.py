"""A program run on ciphertexts: instruction by instruction, each constant encoded once and kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from mibao.errors import IntegrityError
from mibao.he.engine import Ciphertext, Engine, GaloisKeys, Matrix, Operand, Plaintext, RelinearizationKey
from mibao.he.levels import Schedule
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
    last_read,
    rotated_from,
    sources,
)

Stack = list[Ciphertext]
_Value = Stack | Float64[ndarray, "..."]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Keys:
    """Evaluation keys, as far as a program needs them."""

    relinearization: RelinearizationKey | None
    galois: GaloisKeys | None


class Execution:
    """A program ready to run under one set of keys."""

    __slots__ = ("_encrypted", "_engine", "_kept", "_keys", "_last_read", "_program", "_schedule")

    def __init__(
        self,
        program: Program,
        *,
        schedule: Schedule,
        engine: Engine,
        keys: Keys,
        encrypted: dict[int, Sequence[Ciphertext]] | None,
    ) -> None:
        """Prepare a program.

        Args:
            program: Instructions; where constants are encrypted, their values are not looked at.
            schedule: Levels and scales of its registers and constants.
            engine: The library.
            keys: Evaluation keys.
            encrypted: Each constant's ciphertexts by its instruction's index, or none where they are in clear.
        """
        self._program, self._schedule, self._engine, self._keys = program, schedule, engine, keys
        self._encrypted = encrypted
        self._kept: dict[int, list[Plaintext] | Matrix] = {}
        self._last_read = last_read(program)

    def run(self, request: Sequence[Ciphertext] | Float64[ndarray, "..."]) -> Stack:
        """The answer's ciphertexts for one batch.

        Args:
            request: The batch's ciphertexts; or its packed slots, where records are in clear and meet encrypted
                weights: they stay in clear until then.

        Raises:
            IntegrityError: the library refuses an operand, or an answer would be readable by anyone.
        """
        registers: list[_Value | None] = [request if isinstance(request, ndarray) else list(request)]
        for index, instruction in enumerate(self._program.instructions):
            given = [self._held(registers, register) for register in sources(instruction)]
            if all(isinstance(value, ndarray) for value in given) and not isinstance(instruction, Constant):
                registers.append(_in_clear(instruction, given))
            else:
                registers.append(self._apply(index, instruction, given))
            for register in sources(instruction):
                if self._last_read[register] == index:
                    registers[register] = None  # nothing later reads it
        answer = registers[-1]
        if answer is None or isinstance(answer, ndarray):
            raise IntegrityError("bundle: its answer would be in clear")
        last = self._schedule.answer_level
        return [self._engine.lower(ciphertext, last) for ciphertext in answer] if self._level(-1) < last else answer

    def _held(self, registers: list[_Value | None], register: int) -> _Value:
        value = registers[register]
        if value is None:
            raise IntegrityError("program: a register is read before it is written")
        return value

    def _operands(self, register: int, value: _Value) -> Sequence[Operand]:
        """A stack as it is; records in clear encoded at their register's level and scale."""
        if not isinstance(value, ndarray):
            return value
        standing = self._schedule.registers[register]
        if float(np.max(np.abs(value))) * standing.scale < 2 * self._program.slots:
            # Such small values may all be rounded to zeros, whose product anyone could read: one step more is none.
            step = np.zeros((len(value), 1))
            step[0] = 1 / standing.scale
            value = np.asarray(value + step, dtype=np.float64)
        return [self._engine.encode(row, scale=standing.scale, level=standing.level) for row in value]

    def _level(self, register: int) -> int:
        return self._schedule.registers[register].level

    def _apply(self, index: int, instruction: Instruction, given: list[_Value]) -> Stack:
        engine = self._engine
        match instruction:
            case Weigh(source=source):
                return self._weigh(index, instruction, self._operands(source, given[0]))
            case Scale(source=source):
                pairs = zip(self._operands(source, given[0]), self._constants(index, instruction), strict=True)
                return [_product(engine.sum_of_products([operand], [factor])) for operand, factor in pairs]
            case Shift():
                shifts = zip(_encrypted(given[0]), self._constants(index, instruction), strict=True)
                return [engine.add(ciphertext, shift) for ciphertext, shift in shifts]
            case Multiply() | Add():
                return self._joined(index, instruction, given)
        return self._transformed(instruction, _encrypted(given[0]))

    def _transformed(self, instruction: Instruction, stack: Stack) -> Stack:
        """What takes one stack and no constants."""
        engine = self._engine
        match instruction:
            case Square():
                stack = [engine.square(ciphertext) for ciphertext in stack]
            case Rescale():
                stack = [engine.rescale(ciphertext) for ciphertext in stack]
            case Relinearize():
                stack = [self._relinearized(ciphertext) for ciphertext in stack]
            case Total():
                stack = [_summed(engine.add, stack)]
            case Rotate(steps=steps):
                stack = [
                    self._rotated(stack[at], step)
                    for at, step in zip(rotated_from(steps, len(stack)), steps, strict=True)
                ]
            case Fold(steps=steps):
                stack = [self._folded(ciphertext, steps) for ciphertext in stack]
        return stack

    def _joined(self, index: int, instruction: Multiply | Add, given: list[_Value]) -> Stack:
        """A product or sum of two stacks, brought to one level; one of them may be in clear."""
        level = self._level(index + 1)
        left, right = (
            self._lowered(register, value, level) for register, value in zip(sources(instruction), given, strict=True)
        )
        if isinstance(instruction, Multiply):
            return [_product(self._engine.sum_of_products([a], [b])) for a, b in zip(left, right, strict=True)]
        ordered = (left, right) if isinstance(left[0], Ciphertext) else (right, left)
        return [self._engine.add(_ciphertext(a), b) for a, b in zip(*ordered, strict=True)]

    def _lowered(self, register: int, value: _Value, level: int) -> Sequence[Operand]:
        if isinstance(value, ndarray):
            scale = self._schedule.registers[register].scale
            return [self._engine.encode(row, scale=scale, level=level) for row in value]
        return value if self._level(register) == level else [self._engine.lower(held, level) for held in value]

    def _weigh(self, index: int, instruction: Weigh, stack: Sequence[Operand]) -> Stack:
        outputs, inputs = instruction.weights.shape[:2]
        if self._encrypted is None and instruction.weights.ndim == 2:
            matrix = self._matrix(index, instruction)
            return self._engine.multiply_matrix(matrix, [_ciphertext(operand) for operand in stack])
        constants = self._constants(index, instruction)
        rows = [constants[output * inputs : (output + 1) * inputs] for output in range(outputs)]
        return [_product(self._engine.sum_of_products(stack, row)) for row in rows]

    def _matrix(self, index: int, instruction: Weigh) -> Matrix:
        kept = self._kept.get(index)
        if not isinstance(kept, Matrix):
            scale = self._schedule.constants[index]
            kept = self._engine.encode_matrix(instruction.weights, scale=scale, level=self._level(instruction.source))
            self._kept[index] = kept
        return kept

    def _constants(self, index: int, instruction: Constant) -> Sequence[Operand]:
        if self._encrypted is not None:
            return self._encrypted[index]
        kept = self._kept.get(index)
        if kept is None or isinstance(kept, Matrix):
            kept = encoded_constants(
                instruction,
                engine=self._engine,
                scale=self._schedule.constants[index],
                level=self._level(instruction.source),
            )
            self._kept[index] = kept
        return kept

    def _relinearized(self, ciphertext: Ciphertext) -> Ciphertext:
        if self._keys.relinearization is None:
            raise IntegrityError("server keys: a relinearisation key is missing")
        return self._engine.relinearize(ciphertext, self._keys.relinearization)

    def _rotated(self, ciphertext: Ciphertext, steps: int) -> Ciphertext:
        if steps == 0:
            return ciphertext
        if self._keys.galois is None:
            raise IntegrityError("server keys: keys for rotations are missing")
        return self._engine.rotate(ciphertext, steps, self._keys.galois)

    def _folded(self, ciphertext: Ciphertext, steps: tuple[int, ...]) -> Ciphertext:
        for step in steps:
            ciphertext = self._engine.add(ciphertext, self._rotated(ciphertext, step))
        return ciphertext


def encoded_constants(instruction: Constant, *, engine: Engine, scale: float, level: int) -> list[Plaintext]:
    """An instruction's constants one after another, as its ciphertexts stand in a bundle.

    Raises:
        IntegrityError: one does not fit the modulus at ``scale``.
    """
    if isinstance(instruction, Weigh):
        values, slotwise = instruction.weights, instruction.weights.ndim == 3
    else:
        values, slotwise = instruction.values, instruction.values.ndim == 2
    if slotwise:
        rows = values.reshape(-1, values.shape[-1])
        return [engine.encode(row, scale=scale, level=level) for row in rows]
    return [engine.encode_constant(float(value), scale=scale, level=level) for value in values.ravel()]


def _summed(add: Callable[[Ciphertext, Ciphertext], Ciphertext], stack: Stack) -> Ciphertext:
    total = stack[0]
    for ciphertext in stack[1:]:
        total = add(total, ciphertext)
    return total


def _product(products: Ciphertext | None) -> Ciphertext:
    if products is None:
        raise IntegrityError("bundle: an output has no weights, its answer would be in clear")
    return products


def _in_clear(instruction: Instruction, given: list[_Value]) -> Float64[ndarray, "..."]:
    """What becomes of records in clear before they meet weights: the same, on arrays."""
    values = [value for value in given if isinstance(value, ndarray)]
    x = values[0]
    match instruction:
        case Square():
            x = x * x
        case Multiply():
            x = x * values[1]
        case Add():
            x = x + values[1]
        case Total():
            x = x.sum(axis=0, keepdims=True)
        case Rotate(steps=steps):
            x = np.stack([np.roll(x[at], -step) for at, step in zip(rotated_from(steps, len(x)), steps, strict=True)])
        case Fold(steps=steps):
            for step in steps:
                x = x + np.roll(x, -step, axis=1)
    return np.asarray(x)


def _encrypted(value: _Value) -> Stack:
    if isinstance(value, ndarray):
        raise IntegrityError("program: constants are added to records in clear")
    return value


def _ciphertext(operand: Operand) -> Ciphertext:
    if isinstance(operand, Plaintext):
        raise IntegrityError("bundle: neither records nor weights are encrypted")
    return operand
