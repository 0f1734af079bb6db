"""What a program costs before it runs: milliseconds of one core, from how the library's operations grow.

Key switching transforms each of L digits to L + 1 primes, so a rotation grows with the square of the levels left; all
else grows with L. The figures were measured at N = 8192 on one core of an AMD EPYC; their ratios are what counts.
"""

from __future__ import annotations

import math

from mibao.he.program import (
    Add,
    Fold,
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
    counts,
    sources,
)

MAX_BATCH_MS = 600_000.0  # what one batch may cost a host
_MEASURED_DEGREE = 8192
_PRODUCT_MS, _SUM_MS, _SQUARE_MS, _RESCALE_MS = 0.055, 0.019, 0.09, 0.18  # a prime
_MATRIX_MS = 0.004  # a prime, for one product of a matrix over residues
_RESIDUE_BITS, _BYTES_A_MS = 42, 125_000
_WIRE_MS = 0.25  # a prime, to check, unpack and pack one ciphertext


def milliseconds(program: Program, *, primes: int, weights_encrypted: bool) -> float:
    """Server time of one batch that enters with ``primes`` data primes."""
    degree = 2 * program.slots
    size = degree * math.log2(degree) / (_MEASURED_DEGREE * math.log2(_MEASURED_DEGREE))
    stacks = counts(program)
    levels = [primes]
    total = stacks[0] * primes * _WIRE_MS
    for instruction in program.instructions:
        left = min(levels[register] for register in sources(instruction))
        stack = stacks[sources(instruction)[0]]
        switch = key_switch_ms(left)
        match instruction:
            case Weigh(weights=weights):
                terms = weights.shape[0] * weights.shape[1]
                if weights_encrypted:
                    total += terms * left * (4 * _PRODUCT_MS + _SUM_MS)
                else:
                    total += terms * left * (_MATRIX_MS if weights.ndim == 2 else _PRODUCT_MS + _SUM_MS)
            case Rotate(steps=steps):
                total += sum(step != 0 for step in steps) * switch
            case Fold(steps=steps):
                total += len(steps) * stack * (switch + left * _SUM_MS)
            case Relinearize():
                total += stack * switch
            case Scale():
                total += stack * left * (4 * _PRODUCT_MS if weights_encrypted else _PRODUCT_MS)
            case Square() | Multiply():
                total += stack * left * _SQUARE_MS
            case Rescale():
                total += stack * left * _RESCALE_MS
                left -= 1
            case Add() | Shift() | Total():
                total += stack * left * _SUM_MS
        levels.append(left)
    return size * (total + stacks[-1] * levels[-1] * _WIRE_MS)


def wire_ms(program: Program, *, primes: int) -> float:
    """Time that a batch's request takes to arrive, at 1 Gbit/s: what keeps one row from being sent as a thousand."""
    request_bytes = program.request.count * primes * 2 * (2 * program.slots) * _RESIDUE_BITS / 8
    return request_bytes / _BYTES_A_MS


def key_switch_ms(primes: int) -> float:
    """One rotation or relinearisation at N = 8192 with so many data primes left."""
    return 0.1 * primes * primes + 0.4 * primes + 0.15
