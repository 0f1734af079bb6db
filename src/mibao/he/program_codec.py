"""Programs as values of a header and bytes of a body, read strictly: a host runs what stands there.

The header holds the instructions with the shapes of their constants; the constants themselves, in clear or encrypted,
are the body, one after another.
"""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from mibao.errors import IntegrityError
from mibao.he.program import (
    Add,
    Constant,
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
    counts,
    sources,
)

MAX_INSTRUCTIONS = 4096
MAX_STACK = 1 << 14
MAX_STEPS = 1 << 12
MAX_CONSTANTS = 1 << 27  # numbers
_STORED = np.dtype("<f8")
_ONE_SOURCE: dict[str, type[Total | Square | Relinearize | Rescale]] = {
    "total": Total,
    "square": Square,
    "relinearize": Relinearize,
    "rescale": Rescale,
}
_TWO_SOURCES: dict[str, type[Add | Multiply]] = {"add": Add, "multiply": Multiply}
_STEPPED: dict[str, type[Rotate | Fold]] = {"rotate": Rotate, "fold": Fold}
_NAMES = {kind: name for names in (_ONE_SOURCE, _TWO_SOURCES, _STEPPED) for name, kind in names.items()}


def to_value(program: Program) -> list[Any]:
    """The instructions, each as its name, its sources, and its steps or the shape of its constants."""
    return [_instruction_value(instruction) for instruction in program.instructions]


def to_body(program: Program) -> bytes:
    """All constants, 64-bit little-endian floats."""
    return b"".join(np.ascontiguousarray(values, dtype=_STORED).tobytes() for _, values in program.constants())


def from_value(
    value: object, body: bytes | memoryview | None, *, slots: int, request: Packing, answer: Packing
) -> Program:
    """The program; without a body its constants are zeros that take no memory.

    Raises:
        IntegrityError: an instruction is malformed, reads a later register, or does not suit its stack; the program
            asks for more than a host gives; or the body has another length or holds a value that is not finite.
    """
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_INSTRUCTIONS:
        raise IntegrityError(f"program: expected 1 to {MAX_INSTRUCTIONS} instructions")
    shapes = [_read(entry, index) for index, entry in enumerate(value)]
    numbers = sum(math.prod(shape) for _, shape in shapes if shape)
    if numbers > MAX_CONSTANTS:
        raise IntegrityError(f"program: expected at most {MAX_CONSTANTS} constants, got {numbers}")
    if body is not None and len(body) != numbers * _STORED.itemsize:
        raise IntegrityError(f"bundle: expected {numbers * _STORED.itemsize} bytes of weights, got {len(body)}")
    instructions: list[Instruction] = []
    start = 0
    for instruction, shape in shapes:
        held = _constants(body, start, shape) if shape else np.zeros(0)
        start += held.size * _STORED.itemsize
        source = sources(instruction)[0]
        match instruction:
            case Weigh():
                instructions.append(Weigh(source, held))
            case Scale():
                instructions.append(Scale(source, held))
            case Shift():
                instructions.append(Shift(source, held))
            case _:
                instructions.append(instruction)
    program = Program(slots=slots, instructions=tuple(instructions), request=request, answer=answer)
    _check_stacks(program)
    return program


def _check_stacks(program: Program) -> None:
    """Every instruction suits the stack that it reads, and none writes a stack larger than a host gives."""
    stacks = counts(program)
    for index, instruction in enumerate(program.instructions):
        given = [stacks[register] for register in sources(instruction)]
        match instruction:
            case Weigh(weights=weights):
                fits = weights.shape[1] == given[0] and weights.shape[2:] in ((), (program.slots,))
            case Scale(values=values) | Shift(values=values):
                fits = values.shape[0] == given[0] and values.shape[1:] in ((), (program.slots,))
            case Rotate(steps=steps):
                fits = len(steps) % given[0] == 0 and _within(steps, program.slots)
            case Fold(steps=steps):
                fits = _within(steps, program.slots)
            case Add() | Multiply():
                fits = given[0] == given[1]
            case _:
                fits = True
        if not fits or stacks[index + 1] > MAX_STACK:
            raise IntegrityError(f"program: instruction {index + 1} does not suit what it reads")
    if stacks[-1] != program.answer.count:
        raise IntegrityError("program: its answer has another number of ciphertexts than the circuit says")


def _within(steps: tuple[int, ...], slots: int) -> bool:
    return all(0 <= step < slots for step in steps)


def _instruction_value(instruction: Instruction) -> list[Any]:
    match instruction:
        case Weigh(source=source, weights=weights):
            return ["weigh", source, list(weights.shape)]
        case Scale(source=source, values=values):
            return ["scale", source, list(values.shape)]
        case Shift(source=source, values=values):
            return ["shift", source, list(values.shape)]
        case Rotate(source=source, steps=steps) | Fold(source=source, steps=steps):
            return [_NAMES[type(instruction)], source, list(steps)]
    return [_NAMES[type(instruction)], *sources(instruction)]


def _read(value: object, index: int) -> tuple[Instruction, tuple[int, ...]]:
    """An instruction, and the shape of its constants where it has any."""
    place = f"program: instruction {index + 1}"
    if not isinstance(value, list) or not value or not isinstance(value[0], str):
        raise IntegrityError(f"{place} is malformed")
    name, given = value[0], value[1:]
    registers = given[:2] if name in _TWO_SOURCES else given[:1]
    rest = given[len(registers) :]
    if not registers or not all(type(register) is int and 0 <= register <= index for register in registers):
        raise IntegrityError(f"{place} reads no earlier register")
    if name in _ONE_SOURCE and len(given) == 1:
        return _ONE_SOURCE[name](cast(int, registers[0])), ()
    if name in _TWO_SOURCES and len(given) == 2:
        return _TWO_SOURCES[name](cast(int, registers[0]), cast(int, registers[1])), ()
    numbers = rest[0] if len(rest) == 1 else None
    if not isinstance(numbers, list) or not all(type(number) is int and number >= 0 for number in numbers):
        raise IntegrityError(f"{place} is malformed")
    steps = tuple(cast(list[int], numbers))
    if name in _STEPPED and 1 <= len(steps) <= MAX_STEPS:
        return _STEPPED[name](cast(int, registers[0]), steps), ()
    axes = {"weigh": (2, 3), "scale": (1, 2), "shift": (1, 2)}.get(name, ())
    if len(steps) not in axes or not 1 <= math.prod(steps) <= MAX_CONSTANTS:
        raise IntegrityError(f"{place} is malformed")
    nothing = np.broadcast_to(np.float64(0.0), steps)
    source = cast(int, registers[0])
    kinds: dict[str, type[Constant]] = {"weigh": Weigh, "scale": Scale, "shift": Shift}
    return kinds[name](source, nothing), steps


def _constants(body: bytes | memoryview | None, start: int, shape: tuple[int, ...]) -> Float64[ndarray, "..."]:
    if body is None:
        return np.broadcast_to(np.float64(0.0), shape)
    held = np.frombuffer(body, dtype=_STORED, count=math.prod(shape), offset=start).reshape(shape)
    if not np.all(np.isfinite(held)):
        raise IntegrityError("bundle: a weight is not finite")
    return held
