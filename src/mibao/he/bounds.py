"""How large every slot can get, and how far it can be off, followed through a program instruction by instruction.

Magnitudes are worst cases from the input's range, cut where calibration knows a smaller one. Errors are variances of
what encryption, rounding, rescaling and key switching add. Errors of different slots are taken as independent where
they are summed; errors of two values of one product or sum are taken as fully dependent.

Source: Cheon, Kim, Kim, Song, ASIACRYPT 2017, section 3, with variances in place of the worst cases.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from mibao.he.levels import Schedule, Standing
from mibao.he.program import (
    Add,
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

NOISE_STD = 3.24  # of fresh encryptions: SEAL's centered binomial, for the standard's 3.2
# Two answers in a thousand million lie further out, if their error is normal, and if it is Laplace-distributed.
NORMAL_SIGMAS = 6.0
LAPLACE_SIGMAS = 14.2
_MANY = 16
_FEW_STEPS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """What the parameters make of each operation.

    Attributes:
        ring_degree: N.
        primes: Data primes, first to last.
        special: The special prime; 1 where there is none.
        data_encrypted: Whether requests are fresh encryptions, not only rounded.
        weights_encrypted: The same of constants.
        weights_publicly: Whether constants are encrypted under a public key, which has noise of its own.
    """

    ring_degree: int
    primes: tuple[float, ...]
    special: float
    data_encrypted: bool
    weights_encrypted: bool
    weights_publicly: bool = False

    @property
    def rounding(self) -> float:
        """Variance in a slot of rounding an encoded vector to integers: N / 2 coefficients of variance 1/12."""
        return self.ring_degree / 24

    @property
    def lone(self) -> float:
        """What stands for the rounding of records in clear: six deviations are N / 4, the most for one lone value.

        Its coefficients are a cosine's, and their roundings all pull the same way: up to half of N / 2 halves.
        """
        return (self.ring_degree / 24) ** 2

    @property
    def fresh(self) -> float:
        """Variance in a slot of encryption and rounding."""
        return NOISE_STD**2 * self.ring_degree / 2 + self.rounding

    @property
    def constant(self) -> Float64[ndarray, "2"]:
        """The same of an encrypted constant, its normal and its heavy-tailed part.

        Under a public key SEAL encrypts with one prime more and rescales: little is left but that rounding, which the
        secret multiplies.
        """
        return np.array([self.rounding, self.rescaling] if self.weights_publicly else [self.fresh, 0.0])

    @property
    def rescaling(self) -> float:
        """Variance in a slot of rounding both components; a ternary secret has about 2N/3 entries that are not 0."""
        return (1 + 2 * self.ring_degree / 3) / 12 * self.ring_degree / 2

    def switching(self, level: int, *, width: int) -> Float64[ndarray, "width"]:
        """Variance in each slot of one key switch: a digit a prime, against one encryption each, over the special one.

        Digits lie in [0, q), not around zero: their mean is a polynomial with q / 2 everywhere, which is large at the
        roots near 1, those of the first slots. One number, the largest, where ``width`` is 1.
        """
        digits = sum(prime * prime for prime in self.primes[: len(self.primes) - level])
        means = _of_equal_coefficients(self.ring_degree) / 4
        spread = self.ring_degree / 12 + (means if width > 1 else means.max(keepdims=True))
        switched = digits * spread * NOISE_STD**2 * self.ring_degree / 2 / self.special**2
        return np.asarray(switched + self.rescaling)


@lru_cache(maxsize=8)
def _of_equal_coefficients(degree: int) -> Float64[ndarray, "slots"]:
    """The squared magnitude of ``1 + X + ... + X**(N - 1)`` in each slot: slot j stands for the root of power 3**j."""
    power, powers = 1, np.empty(degree // 2)
    for slot in range(degree // 2):
        powers[slot] = power
        power = power * 3 % (2 * degree)
    return np.asarray(1 / np.sin(np.pi * powers / (2 * degree)) ** 2)


def magnitudes(program: Program, limits: dict[int, Float64[ndarray, "..."]]) -> list[Float64[ndarray, "..."]]:
    """The largest magnitude of every slot of every register; one column stands for slots that are all alike."""
    found = [limits[0]]
    for index, instruction in enumerate(program.instructions):
        given = [found[register] for register in sources(instruction)]
        largest = _magnitude(instruction, given)
        limit = limits.get(index + 1)
        found.append(largest if limit is None else np.minimum(largest, limit))
    return found


def _magnitude(instruction: Instruction, given: list[Float64[ndarray, "..."]]) -> Float64[ndarray, "..."]:
    x = given[0]
    match instruction:
        case Square():
            after = x * x
        case Multiply():
            after = x * given[1]
        case Add():
            after = x + given[1]
        case Weigh(weights=weights):
            after = _weighed(np.abs(weights), x)
        case Scale(values=values):
            after = x * np.abs(_slotwise(values))
        case Shift(values=values):
            after = x + np.abs(_slotwise(values))
        case Rotate() | Fold() | Total() | Relinearize() | Rescale():
            after = _moved(instruction, x)
    return np.asarray(after)


def _weighed(weights: Float64[ndarray, "..."], x: Float64[ndarray, "..."]) -> Float64[ndarray, "..."]:
    if weights.ndim == 2:
        return np.asarray(weights @ x)
    return np.asarray(np.einsum("gks,ks->gs", weights, np.broadcast_to(x, (len(x), weights.shape[2]))))


def _slotwise(values: Float64[ndarray, "..."]) -> Float64[ndarray, "..."]:
    return values[:, None] if values.ndim == 1 else values


def _moved(instruction: Instruction, x: Float64[ndarray, "..."]) -> Float64[ndarray, "..."]:
    match instruction:
        case Rotate(steps=steps):
            x = np.stack([np.roll(x[at], -step) for at, step in zip(rotated_from(steps, len(x)), steps, strict=True)])
        case Fold(steps=steps):
            for step in steps:
                x = np.asarray(x + np.roll(x, -step, axis=1))
        case Total():
            x = np.asarray(x.sum(axis=0, keepdims=True))
    return x


def error_bound(
    program: Program, largest: Sequence[Float64[ndarray, "..."]], schedule: Schedule, noise: Noise
) -> float:
    """A bound on one answer's error that fails about twice in a thousand million."""
    fresh = noise.fresh if noise.data_encrypted else noise.lone
    start = np.zeros((2, *largest[0].shape))
    start[0] = fresh / schedule.registers[0].scale ** 2
    variances = [start]
    for index, instruction in enumerate(program.instructions):
        registers = sources(instruction)
        given = [variances[register] for register in registers]
        sizes = [largest[register] for register in registers]
        constant = _constant_variance(instruction, schedule.constants.get(index, 1.0), noise)
        variances.append(
            _own(instruction, _inherited(instruction, given, sizes, constant), schedule.registers[index + 1], noise)
        )
    normal, heavy = variances[-1]
    places = program.answer.ciphertext, program.answer.place if normal.shape[1] > 1 else 0
    worst = NORMAL_SIGMAS * np.sqrt(normal[places]) + LAPLACE_SIGMAS * np.sqrt(heavy[places])
    return float(np.max(worst))


def _constant_variance(instruction: Instruction, scale: float, noise: Noise) -> Float64[ndarray, "2 1 1"]:
    """Of one slot of an encoded or encrypted constant; one number for all slots is rounded once, not N / 2 times."""
    own = noise.constant if noise.weights_encrypted else np.array([_encoded_variance(instruction, noise), 0.0])
    return np.asarray(own[:, None, None] / scale**2)


def _encoded_variance(instruction: Instruction, noise: Noise) -> float:
    alike = (instruction.weights.ndim == 2) if isinstance(instruction, Weigh) else False
    if isinstance(instruction, Scale | Shift):
        alike = instruction.values.ndim == 1
    if alike:
        return 1 / 12
    return noise.rounding


def _inherited(
    instruction: Instruction,
    given: list[Float64[ndarray, "..."]],
    sizes: list[Float64[ndarray, "..."]],
    constant: Float64[ndarray, "2 1 1"],
) -> Float64[ndarray, "..."]:
    """What an instruction makes of its sources' errors and of its constants'. A fold does its own adding."""
    x = given[0]
    match instruction:
        case Weigh(weights=weights):
            after = np.stack([_weighed(weights * weights, part) for part in x])
            after = _as_normal(after) if weights.shape[1] >= _MANY else after
            after = after + (sizes[0] ** 2).sum(axis=0) * constant  # one secret multiplies them: they stay heavy
        case Scale(values=values):
            after = x * _slotwise(values) ** 2 + sizes[0] ** 2 * constant
        case Shift():
            after = x + constant
        case Square():
            after = 4 * sizes[0] ** 2 * x
        case Multiply():
            after = (sizes[1] * np.sqrt(x) + sizes[0] * np.sqrt(given[1])) ** 2
        case Add():
            after = (np.sqrt(x) + np.sqrt(given[1])) ** 2
        case Fold():
            after = x
        case Rotate() | Total() | Relinearize() | Rescale():
            after = np.stack([_moved(instruction, part) for part in x])
    return np.asarray(after)


def _own(
    instruction: Instruction, variance: Float64[ndarray, "..."], standing: Standing, noise: Noise
) -> Float64[ndarray, "..."]:
    """The same with what rescaling and key switching add."""
    width = variance.shape[2]
    match instruction:
        case Rescale():
            added = np.full((variance.shape[1], 1), noise.rescaling / standing.scale**2)
        case Relinearize():
            added = noise.switching(standing.level, width=width) / standing.scale**2
        case Rotate(steps=steps):
            switch = noise.switching(standing.level, width=width) / standing.scale**2
            added = np.where(np.array(steps)[:, None] != 0, switch, 0.0)
        case Fold(steps=steps):
            return _folded(variance, steps, noise.switching(standing.level, width=width) / standing.scale**2)
        case _:
            return variance
    return np.stack([variance[0], variance[1] + added])


def _folded(
    variance: Float64[ndarray, "..."], steps: tuple[int, ...], switch: Float64[ndarray, "width"]
) -> Float64[ndarray, "..."]:
    """The last few steps' own errors are summed over few slots, and keep their heavy tails."""
    for index, step in enumerate(steps):
        variance = np.asarray(variance + np.roll(variance, -step, axis=2))
        if len(steps) - 1 - index == _FEW_STEPS and 1 << index >= _MANY // 2:
            variance = _as_normal(variance)
        variance[1] += switch
    return variance


def _as_normal(variance: Float64[ndarray, "..."]) -> Float64[ndarray, "..."]:
    """A sum of many independent errors is close to normal, whatever each of them is."""
    return np.stack([variance.sum(axis=0), np.zeros_like(variance[1])])


def modulus_bits_needed(largest: Sequence[float], schedule: Schedule, *, removed_bits: Sequence[int]) -> int:
    """Bits of the first prime such that no register of any level wraps around, from each one's largest magnitude.

    Two bits of headroom: one for the sign, one so that noise and the primes' distance from ``2**bits`` cannot wrap.
    """
    needed = 0.0
    above_bits = [sum(removed_bits[level:]) for level in range(len(removed_bits) + 1)]
    for standing, magnitude in zip(schedule.registers, largest, strict=True):
        above = above_bits[standing.level]
        message_bits = math.log2(max(magnitude, 2.0**-10)) + 2
        held = math.log2(standing.scale) + max(message_bits, 1.0)  # the library takes no scale above its modulus
        needed = max(needed, held - above)
    return math.ceil(needed)
