"""Scales and primes for a program: the smallest that keep its error, found by trying.

An answer's scale above that of data moves bits from the last prime that is dropped to the first, which stays: its key
switching adds less noise, for a longer answer.

Where answers are to be released, the noise that hides the key is part of the error. It is as wide as a proven bound
of the circuit's own noise times a factor of 2**20 and more, so data stand at a scale of 60 bits or so, and each level
is two primes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from jaxtyping import Float64
from numpy import ndarray

from mibao.errors import InputError
from mibao.he.bounds import NORMAL_SIGMAS, Noise, error_bound, modulus_bits_needed
from mibao.he.levels import RescaledForms, Schedule, rescaled_bits, schedule_of
from mibao.he.noise_bound import Bounded, NoiseRules, secret_norm_limit
from mibao.he.parameters import MAX_MODULUS_BITS, MAX_PRIME_BITS, MIN_PRIME_BITS, Parameters
from mibao.he.program import Program, Rescale
from mibao.he.program_noise import program_noise
from mibao.he.release import ReleasePolicy
from mibao.he.release_terms import PRIMES_A_LEVEL, Release, ReleaseTerms
from mibao.types import ComputeMode

SCALE_BITS = range(16, 48, 2)  # of data
WEIGHT_BITS = range(10, 46)
KEPT_BITS = (0, 2, 4, 6, 9, 13, 18)  # of the answer's scale above that of data
RELEASE_SCALE_BITS = range(44, 92, 2)
RELEASE_WEIGHT_BITS = (24, 16, 20, 30)  # the first finds the scale of data
_HOPELESS = 2.0**16  # times the error, at every other scale of data: none between them keeps it
_TOO_MANY_BITS = 1 << 10
_FEWER_FROM, _FEWER_BITS = 16384, 22  # past this ring there is one prime of 20 bits, and four of 22
_BACK_BITS = 4  # from a last prime as large as the special one, whose key switching is noisy


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Compiled:
    """A program with parameters that keep its error.

    Attributes:
        program: Instructions with the network's weights.
        parameters: Ring, modulus, the data's scale.
        answer_scale: The answers' scale.
        predicted_error: Bound on an answer's error, that of its release included.
        predicted_ms: Host's time a batch.
        release: What it leaves room for.
    """

    program: Program
    parameters: Parameters
    answer_scale: float
    predicted_error: float
    predicted_ms: float
    release: ReleaseTerms | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Search:
    """What stays the same while scales are looked for, and the scales of one attempt.

    Attributes:
        program: Instructions, for levels of two primes where answers are released.
        bounding: The same with constants as large as any may be, for the proven bound.
        largest: Of every slot of every register.
        peaks: Of every register.
        forms: What each level's rescalings remove.
        input_bound: Largest magnitude in each ciphertext of a request.
        mode: What is encrypted.
        weights_publicly: Whether weights are encrypted under a public key.
        release: What the parameters have to leave room for.
    """

    program: Program
    bounding: Program
    largest: list[Float64[ndarray, "..."]]
    peaks: tuple[float, ...]
    forms: RescaledForms
    input_bound: Float64[ndarray, "count"]
    mode: ComputeMode
    weights_publicly: bool = False
    release: Release | None = None
    scale_bits: int = 0
    kept_bits: int = 0

    @property
    def primes_a_level(self) -> int:
        """Primes that a rescaling drops."""
        return 1 if self.release is None else PRIMES_A_LEVEL


def smallest(search: Search, *, max_error: float) -> Compiled | None:
    """The smallest parameters that keep the error, or the most exact ones where none do; none where nothing fits."""
    if search.release is not None:
        return _smallest_for_release(search, max_error=max_error)
    best: Compiled | None = None
    rescales = any(isinstance(instruction, Rescale) for instruction in search.program.instructions)
    for kept_bits in KEPT_BITS if rescales else KEPT_BITS[:1]:
        kept = replace(search, kept_bits=kept_bits)
        coarse = _coarse(kept, max_error=max_error)
        if coarse is None or coarse.predicted_error > _HOPELESS * max_error:
            best = coarse if best is None else best
            continue
        for scale_bits in SCALE_BITS:
            found = _least_weights(replace(kept, scale_bits=scale_bits), max_error=max_error)
            if found is not None and (best is None or _rank(found, max_error) < _rank(best, max_error)):
                best = found
            elif best is not None and best.predicted_error <= max_error:
                break  # more bits for data spare no more bits of weights
        if best is not None and best.predicted_error <= max_error:
            break
    return best


def _coarse(search: Search, *, max_error: float) -> Compiled | None:
    """The most exact of a few scales of data, or the first that keeps the error: whether looking closer is worth it."""
    best: Compiled | None = None
    for scale_bits in SCALE_BITS[1::2]:
        found = _least_weights(replace(search, scale_bits=scale_bits), max_error=max_error, at_most=True)
        if found is not None and (best is None or found.predicted_error < best.predicted_error):
            best = found
        if best is not None and best.predicted_error <= max_error:
            break
    return best


def _smallest_for_release(search: Search, *, max_error: float) -> Compiled | None:
    """The first scale of data that keeps the error, and the smallest of a few of weights beside it."""
    best: Compiled | None = None
    for scale_bits in RELEASE_SCALE_BITS:
        attempt = replace(search, scale_bits=scale_bits)
        # Encrypted weights have noise of their own, which their scale has to be as far above as that of data.
        encrypted = search.mode is not ComputeMode.ENCRYPTED_DATA
        first, *others = (scale_bits,) if encrypted else RELEASE_WEIGHT_BITS
        found = _tried(attempt, first)
        if found is None:
            return best  # a larger scale fits no better
        if best is None or found.predicted_error < best.predicted_error:
            best = found
        if found.predicted_error > max_error:
            continue
        for weight_bits in others:
            other = _tried(attempt, weight_bits)
            if other is not None and _rank(other, max_error) < _rank(best, max_error):
                best = other
        return best
    return best


def _rank(compiled: Compiled, max_error: float) -> tuple[float, float]:
    kept = compiled.predicted_error <= max_error
    return (0.0, float(compiled.parameters.data_modulus_bits)) if kept else (1.0, compiled.predicted_error)


def _least_weights(search: Search, *, max_error: float, at_most: bool = False) -> Compiled | None:
    """The smallest scale of weights that keeps the error at this scale of data, found by halving.

    The largest that fits is tried first, where the error is close to its least: most searches end there, and all of
    those ``at_most``.
    """
    low, high = WEIGHT_BITS[0], WEIGHT_BITS[-1]
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _parameters(search, middle) is not None else (low, middle - 1)
    best = _tried(search, low)
    if at_most:
        return best
    if best is None or best.predicted_error > max_error:
        lower = _tried(search, max(low - _BACK_BITS, WEIGHT_BITS[0]))
        if lower is None or best is None or lower.predicted_error >= best.predicted_error:
            return best
        best, low = lower, max(low - _BACK_BITS, WEIGHT_BITS[0])
        if best.predicted_error > max_error:
            return best
    low, high = WEIGHT_BITS[0], low - 1
    while low <= high:
        middle = (low + high) // 2
        found = _tried(search, middle)
        if found is not None and found.predicted_error <= max_error:
            best, high = found, middle - 1
        else:
            low = middle + 1
    return best


def _parameters(search: Search, weight_bits: int) -> tuple[Parameters, float] | None:
    """Parameters of these scales and the answer's scale, or none where they fit no modulus."""
    program, scale_bits = search.program, search.scale_bits
    removed = _removed(search, weight_bits)
    answer_scale = _answer_scale(search, weight_bits, rescales=bool(removed))
    each = search.primes_a_level
    if scale_bits + 1 + sum(removed) > MAX_MODULUS_BITS[2 * program.slots]:
        return None
    nominal = tuple(2.0**bits for bits in (*(MAX_PRIME_BITS,) * each, *reversed(removed)))
    try:
        schedule = _schedule(search, nominal, answer_scale)
    except InputError:
        return None
    first = max(modulus_bits_needed(search.peaks, schedule, removed_bits=removed), scale_bits + 1)
    if search.release is not None:
        first = max(
            first, _released_bits(search, search.release, weight_bits, (*_split(first, each), *reversed(removed)))
        )
    split = _split(first, each)
    parameters = _with_special((*split, *reversed(removed)), degree=2 * program.slots, scale_bits=scale_bits)
    return None if parameters is None else (parameters, answer_scale)


def _answer_scale(search: Search, weight_bits: int, *, rescales: bool) -> float:
    """Where nothing is rescaled, that of the one product."""
    return 2.0 ** (search.scale_bits + (search.kept_bits if rescales else weight_bits))


def _schedule(search: Search, primes: tuple[float, ...], answer_scale: float) -> Schedule:
    return schedule_of(
        search.program,
        primes=primes,
        scale=2.0**search.scale_bits,
        answer_scale=answer_scale,
        primes_a_level=search.primes_a_level,
    )


def _removed(search: Search, weight_bits: int) -> list[int]:
    """Bits of the prime that each rescaling drops."""
    wanted = rescaled_bits(
        search.forms, scale_bits=search.scale_bits, weight_bits=weight_bits, kept_bits=search.kept_bits
    )
    each = search.primes_a_level
    least = _FEWER_BITS if each > 1 and 2 * search.program.slots > _FEWER_FROM else MIN_PRIME_BITS
    return [bits for level in range(0, len(wanted), each) for bits in _split(wanted[level], each, least=least)]


def _split(bits: int, parts: int, *, least: int = MIN_PRIME_BITS) -> list[int]:
    """So many bits, or a little more, as primes of about one size."""
    return [max((bits + part) // parts, least) for part in range(parts)]


def _released_bits(search: Search, release: Release, weight_bits: int, bits: tuple[int, ...]) -> int:
    """Bits of the modulus under a released answer: for its largest coefficient twice, and one for what is guessed."""
    primes = tuple(1 << size for size in bits)
    answer_scale = _answer_scale(search, weight_bits, rescales=len(bits) > search.primes_a_level)
    schedule = _schedule(search, tuple(float(prime) for prime in primes), answer_scale)
    policy = _policy(release, _known(search, schedule, primes, special=1 << min(max(bits), MAX_PRIME_BITS)))
    return _TOO_MANY_BITS if policy is None else math.ceil(math.log2(policy.largest_coefficient)) + 2


def _known(search: Search, schedule: Schedule, primes: tuple[int, ...], *, special: int | None) -> Bounded:
    degree = 2 * search.program.slots
    rules = NoiseRules(degree=degree, primes=primes, special_prime=special, secret_norm=secret_norm_limit(degree))
    return program_noise(
        search.bounding,
        schedule,
        rules,
        mode=search.mode,
        input_bound=search.input_bound,
        weights_publicly=search.weights_publicly,
    )


def _policy(release: Release, known: Bounded) -> ReleasePolicy | None:
    """None where the noise would be wider than can be sampled."""
    try:
        return ReleasePolicy(
            answers_limit=release.answers_limit, statistical_bits=release.statistical_bits, known=known
        )
    except InputError:
        return None


def _tried(search: Search, weight_bits: int) -> Compiled | None:
    """Parameters of these scales with the error they keep, or none where they fit no modulus."""
    found = _parameters(search, weight_bits)
    if found is None:
        return None
    parameters, answer_scale = found
    program = search.program
    primes = tuple(float(prime) for prime in parameters.primes())
    try:
        schedule = _schedule(search, primes, answer_scale)
    except InputError:
        return None
    noise = Noise(
        ring_degree=parameters.ring_degree,
        primes=primes,
        special=2.0 ** (parameters.modulus_bits[-1] - 0.5),
        data_encrypted=search.mode is not ComputeMode.ENCRYPTED_WEIGHTS,
        weights_encrypted=search.mode is not ComputeMode.ENCRYPTED_DATA,
        weights_publicly=search.weights_publicly,
    )
    made = Compiled(
        program=program,
        parameters=parameters,
        answer_scale=schedule.registers[-1].scale,
        predicted_error=error_bound(program, search.largest, schedule, noise),
        predicted_ms=0.0,
    )
    return made if search.release is None else _for_release(made, search, search.release, schedule)


def _for_release(made: Compiled, search: Search, release: Release, schedule: Schedule) -> Compiled | None:
    """The same with what is proven of its answers and what their release costs, or none where it does not fit."""
    parameters = made.parameters
    known = _known(search, schedule, parameters.primes(), special=parameters.special_prime())
    known = replace(known, message=known.message + known.encoding / known.scale)
    policy = _policy(release, known)
    left = math.prod(parameters.primes()[:PRIMES_A_LEVEL])
    if policy is None or not policy.largest_coefficient < left / 2:
        return None
    return replace(
        made,
        predicted_error=made.predicted_error + NORMAL_SIGMAS * policy.slot_error_std(parameters.ring_degree),
        release=ReleaseTerms(release=release, noise=known.noise, message=known.message),
    )


def _with_special(data: tuple[int, ...], *, degree: int, scale_bits: int) -> Parameters | None:
    """The data primes and, where key switching or SEAL needs one, the largest special prime that the table leaves."""
    if max(data) > MAX_PRIME_BITS:
        return None
    special = min(MAX_PRIME_BITS, MAX_MODULUS_BITS[degree] - sum(data))
    needs_special = len(data) > 1
    if (needs_special and special < max(MIN_PRIME_BITS, max(data) - 8)) or sum(data) > MAX_MODULUS_BITS[degree]:
        return None
    try:
        parameters = Parameters(
            ring_degree=degree, modulus_bits=(*data, special) if needs_special else data, scale_bits=scale_bits
        )
        parameters.primes()
    except InputError:
        return None
    return parameters
