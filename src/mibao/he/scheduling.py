"""A program held to its circuit: its levels and scales follow from the spec, and so do the keys that it may use."""

from __future__ import annotations

import math

import numpy as np

from mibao.errors import InputError, IntegrityError
from mibao.he.cost import MAX_BATCH_MS, milliseconds
from mibao.he.footprint import MAX_HELD_BYTES, held_bytes
from mibao.he.levels import Schedule, schedule_of
from mibao.he.program import Constant, Program
from mibao.he.spec import CircuitSpec

_SAME_SCALE = 1e-9


def schedule(spec: CircuitSpec, program: Program) -> Schedule:
    """The schedule of ``program`` under the parameters of ``spec``.

    Raises:
        IntegrityError: the program needs other keys than the circuit says, more levels than its modulus has, or ends
            at another scale; a constant does not fit the modulus at its scale; or one batch would take more of a host
            than :data:`~mibao.he.footprint.MAX_HELD_BYTES` or :data:`~mibao.he.cost.MAX_BATCH_MS`.
    """
    _check_burden(spec, program)
    if program.rotations() != spec.rotations or program.relinearizes() is not spec.relinearizes:
        raise IntegrityError("program: it needs other keys than its circuit says")
    primes = [float(prime) for prime in spec.parameters.primes()]
    try:
        found = schedule_of(
            program,
            primes=primes,
            scale=spec.data_scale,
            answer_scale=spec.answer_scale,
            primes_a_level=spec.primes_a_level,
        )
    except InputError as error:
        raise IntegrityError(f"program: {error}") from error
    if not math.isclose(found.registers[-1].scale, spec.answer_scale, rel_tol=_SAME_SCALE):
        raise IntegrityError("program: its answer stands at another scale than its circuit says")
    for index, values in program.constants():
        instruction = program.instructions[index]
        if isinstance(instruction, Constant):
            left = len(primes) - found.registers[instruction.source].level
            # Two bits short of the modulus: the library refuses to encode more, with an error of its own.
            room = sum(spec.parameters.data_primes[:left]) - 2 - math.log2(found.constants[index])
            if float(np.max(np.abs(values))) >= 2.0**room:
                raise IntegrityError("bundle: a weight does not fit the modulus")
    return found


def _check_burden(spec: CircuitSpec, program: Program) -> None:
    primes = len(spec.parameters.data_primes)
    held = held_bytes(
        program, primes=primes, data_encrypted=spec.data_encrypted, weights_encrypted=spec.weights_encrypted
    )
    if held > MAX_HELD_BYTES:
        raise IntegrityError(f"program: one batch would hold more than {MAX_HELD_BYTES >> 20} MiB of a host's memory")
    if milliseconds(program, primes=primes, weights_encrypted=spec.weights_encrypted) > MAX_BATCH_MS:
        raise IntegrityError("program: it would take a host too long")
