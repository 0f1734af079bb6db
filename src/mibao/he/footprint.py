"""What a host holds in memory while it runs a program: known before a library is called, so that a file cannot lie.

A few bytes of a program can ask for a stack of thousands of ciphertexts, and one number for all slots is encoded as a
whole plaintext. Both are counted here from the instructions alone.
"""

from __future__ import annotations

from mibao.he.program import (
    Constant,
    Multiply,
    Program,
    Relinearize,
    Rescale,
    Scale,
    Square,
    Weigh,
    ciphertexts,
    counts,
    last_read,
    sources,
)

MAX_HELD_BYTES = 1 << 30
_WORD_BYTES = 8
_LIMBS = 3  # float64 words that a residue matrix holds for a weight and a prime, at most but for the widest


def held_bytes(program: Program, *, primes: int, data_encrypted: bool, weights_encrypted: bool) -> int:
    """The most bytes that one batch and the constants in clear take, where it enters with ``primes`` data primes.

    What the sender has sent is not counted: encrypted records and encrypted weights, whose size is that of their file.
    """
    degree, stacks, last = 2 * program.slots, counts(program), last_read(program)
    word = degree * _WORD_BYTES
    levels, components = [primes], [2]
    live = {0: 0 if data_encrypted else stacks[0] * word * (primes + 1)}
    kept, most = 0, live[0]
    for index, instruction in enumerate(program.instructions):
        read = sources(instruction)
        left = max(min(levels[register] for register in read), 1)
        parts = _components(instruction, [components[register] for register in read], weights_encrypted)
        if isinstance(instruction, Constant) and not weights_encrypted:
            kept += _constant_bytes(instruction, primes=left, word=word)
        live[index + 1] = stacks[index + 1] * parts * left * word
        most = max(most, kept + sum(live.values()))
        for register in read:
            if last[register] == index:
                live.pop(register, None)
        levels.append(left - isinstance(instruction, Rescale))
        components.append(parts)
    return most


def _components(instruction: object, given: list[int], weights_encrypted: bool) -> int:
    match instruction:
        case Square() | Multiply():
            return 3
        case Weigh() | Scale() if weights_encrypted:
            return 3
        case Relinearize():
            return 2
    return max(given)


def _constant_bytes(instruction: Constant, *, primes: int, word: int) -> int:
    """A matrix of numbers is kept as limbs of residues, everything else as plaintexts."""
    if isinstance(instruction, Weigh) and instruction.weights.ndim == 2:
        return instruction.weights.size * primes * _LIMBS * _WORD_BYTES
    return ciphertexts(instruction) * primes * word
