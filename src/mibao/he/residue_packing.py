"""Residues on the wire at the exact width of their primes: 30 to 60 bits each where memory takes 64.

Component by component, prime by prime, a polynomial's residues follow one another in ``prime.bit_length()`` bits each,
lowest bit first. Eight residues of w bits fill w bytes, so a polynomial ends on a byte and there is no padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import UInt64
from numpy import ndarray

from mibao.errors import InputError, IntegrityError

MIN_WIDTH_BITS = 8
MAX_WIDTH_BITS = 60
_LANES = 8  # residues that start at the same place of a byte lie eight apart
_WORD_BITS = 64
_SLACK_BYTES = 16  # a word read or written at the last residue may pass the end
_WORDS_AT_ONCE = 1 << 15  # unpacked together: each lane passes over them, so they stay in the second-level cache


def packed_bytes(primes: Sequence[int], *, components: int, degree: int) -> int:
    """Bytes that ``components`` polynomials of ``degree`` residues modulo each of ``primes`` take.

    Raises:
        InputError: the degree is no multiple of 8, or a prime has not 8 to 60 bits.
    """
    widths = [prime.bit_length() for prime in primes]
    if degree < _LANES or degree % _LANES or components < 1:
        raise InputError(f"residues: expected components of a degree that 8 divides, got {components} of {degree}")
    if not widths or not all(MIN_WIDTH_BITS <= width <= MAX_WIDTH_BITS for width in widths):
        raise InputError(f"residues: expected primes of {MIN_WIDTH_BITS} to {MAX_WIDTH_BITS} bits")
    return components * sum(widths) * degree // _LANES


def pack(residues: UInt64[ndarray, "components primes degree"], *, primes: Sequence[int]) -> bytes:
    """The residues in as few bits as their primes have.

    Raises:
        InputError: another number of primes, a residue that is not under its prime, or as :func:`packed_bytes`.
    """
    components, _, degree = residues.shape
    if residues.shape[1] != len(primes):
        raise InputError(f"residues: expected those of {len(primes)} primes, got {residues.shape[1]}")
    packed = np.zeros(packed_bytes(primes, components=components, degree=degree) + _SLACK_BYTES, dtype=np.uint8)
    for index, (prime, words, spills) in enumerate(_views(packed, primes, components, degree)):
        held = residues[:, index]
        if int(held.max()) >= prime:
            raise InputError("residues: one is not under its prime")
        width = prime.bit_length()
        for lane in range(_LANES):
            shift = lane * width % _LANES
            values = held[:, lane::_LANES]
            words[lane] |= values << np.uint64(shift)
            if shift + width > _WORD_BITS:
                spills[lane] |= (values >> np.uint64(_WORD_BITS - shift)).astype(np.uint8)
    return packed[:-_SLACK_BYTES].tobytes()


def unpack(
    data: bytes | memoryview, *, primes: Sequence[int], components: int, degree: int
) -> UInt64[ndarray, "components primes degree"]:
    """The residues that :func:`pack` took. What comes back is in memory of its own.

    Raises:
        InputError: as :func:`packed_bytes`.
        IntegrityError: another length, or a residue that is not under its prime.
    """
    expected = packed_bytes(primes, components=components, degree=degree)
    if len(data) != expected:
        raise IntegrityError(f"residues: expected {expected} bytes, got {len(data)}")
    residues = np.empty((components, len(primes), degree), dtype=np.uint64)
    each, together = expected // components, max(_WORDS_AT_ONCE // degree, 1)
    packed = np.zeros(together * each + _SLACK_BYTES, dtype=np.uint8)
    for start in range(0, components, together):
        block = residues[start : start + together]
        packed[: len(block) * each] = np.frombuffer(data, np.uint8, count=len(block) * each, offset=start * each)
        for index, held in enumerate(_views(packed, primes, len(block), degree)):
            _unpack_prime(block[:, index], held)
    return residues


def _unpack_prime(
    residues: UInt64[ndarray, "components degree"], held: tuple[int, list[ndarray], list[ndarray]]
) -> None:
    """One prime's residues of a few components. Raises ``IntegrityError`` when one is not under the prime."""
    prime, words, spills = held
    width = prime.bit_length()
    for lane in range(_LANES):
        shift = lane * width % _LANES
        values = words[lane] >> np.uint64(shift)
        if shift + width > _WORD_BITS:
            values |= spills[lane].astype(np.uint64) << np.uint64(_WORD_BITS - shift)
        values &= np.uint64((1 << width) - 1)
        residues[:, lane::_LANES] = values
    if int(residues.max()) >= prime:
        raise IntegrityError("residues: one is not under its prime")


def _views(
    packed: ndarray, primes: Sequence[int], components: int, degree: int
) -> Iterator[tuple[int, list[ndarray], list[ndarray]]]:
    """For each prime, lane by lane, the words in which its residues start and the bytes behind those words."""
    component_bytes = sum(prime.bit_length() for prime in primes) * degree // _LANES
    shape, start = (components, degree // _LANES), 0
    for prime in primes:
        width = prime.bit_length()
        strides = (component_bytes, width)
        starts = [start + lane * width // _LANES for lane in range(_LANES)]
        words = [np.ndarray(shape, dtype="<u8", buffer=packed.data, offset=at, strides=strides) for at in starts]
        spills = [np.ndarray(shape, dtype="u1", buffer=packed.data, offset=at + 8, strides=strides) for at in starts]
        yield prime, words, spills
        start += width * degree // _LANES
