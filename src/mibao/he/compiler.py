"""From a network to a circuit: normalise, lay out, set levels, choose parameters, list keys.

Each pass is a module of its own. Every ring and every layout is built and costed; the cheapest whose parameters keep
the wanted error is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from mibao.errors import InputError
from mibao.he import cost, layout_columns, layout_packed
from mibao.he.bounds import Noise, error_bound, magnitudes, modulus_bits_needed
from mibao.he.footprint import MAX_HELD_BYTES, held_bytes
from mibao.he.levels import rescaled_bits, schedule_of
from mibao.he.lowering import Builder, Infeasible
from mibao.he.network import Dense, Network
from mibao.he.parameters import MAX_MODULUS_BITS, MAX_PRIME_BITS, MIN_PRIME_BITS, Parameters
from mibao.he.program import Constant, Program, Rescale, ciphertexts, without_rescaling
from mibao.he.spec import MAX_KEY_BYTES
from mibao.types import ComputeMode

SCALE_BITS = range(16, 48, 2)  # of data
WEIGHT_BITS = range(10, 46)
KEPT_BITS = (0, 2, 4, 6, 9, 13, 18)  # of the answer's scale above that of data
MOST_TRIED = 12  # layouts a ring, the cheapest first: where none of them keeps the error, a larger ring does
_BACK_BITS = 4  # from a last prime as large as the special one, whose key switching is noisy
_BYTES_A_PRIME = 2 * 60 / 8  # of an encrypted constant, a coefficient, at most
_MOST_BUNDLE_BYTES = 250 << 20  # of encrypted weights


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Compiled:
    """A program with parameters that keep its error.

    Attributes:
        program: Instructions with the network's weights.
        parameters: Ring, modulus, the data's scale.
        answer_scale: The answers' scale.
        predicted_error: Bound on an answer's error.
        predicted_ms: Host's time a batch.
    """

    program: Program
    parameters: Parameters
    answer_scale: float
    predicted_error: float
    predicted_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A layout: its ring, the packed plan or none for one ciphertext a feature, and whether one prime is to do."""

    slots: int
    plan: layout_packed.Plan | None
    single_prime: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Candidate:
    choice: Choice
    program: Program
    limits: dict[int, Float64[ndarray, "..."]]
    batch_ms: float
    cost_ms: float


def compile_network(network: Network, *, mode: ComputeMode, rows: int, max_error: float) -> Compiled:
    """The cheapest program for requests of ``rows`` rows whose predicted error is at most ``max_error``.

    Args:
        network: Normalised.
        mode: What is encrypted.
        rows: How many rows a request usually carries; any number may be sent.
        max_error: Largest error an answer may have, before the head.

    Raises:
        InputError: no parameters keep ``max_error``, or the network fits no layout.
    """
    shown = network if mode is ComputeMode.ENCRYPTED_DATA else public_figures(network)
    best: tuple[_Candidate, Compiled] | None = None
    closest = math.inf
    for degree in MAX_MODULUS_BITS:
        found = sorted(_candidates(shown, degree=degree, mode=mode, rows=rows), key=lambda held: held.cost_ms)
        cheaper = [held for held in found if best is None or held.cost_ms < best[0].cost_ms][:MOST_TRIED]
        fitting = ((held, _levelled(held, mode=mode, max_error=max_error)) for held in cheaper)
        taken = None
        for candidate, compiled in fitting:
            if compiled is not None and compiled.predicted_error <= max_error:
                taken = candidate, compiled
                break
            closest = min(closest, math.inf if compiled is None else compiled.predicted_error)
        if best is not None and taken is None:
            break  # the ring before was large enough, and twice its size is not cheaper
        best = taken or best
    if best is None:
        reached = "nothing fits" if math.isinf(closest) else f"the best keeps {closest:.1e}"
        raise InputError(
            f"levels: no parameters keep the error under {max_error:.1e} ({reached}); "
            "narrow the input's range, use fewer layers or allow more error"
        )
    if shown is network:
        return best[1]
    program, _ = lowered(network, best[0].choice, mode=mode)
    return replace(best[1], program=program)


def lowered(
    network: Network, choice: Choice, *, mode: ComputeMode
) -> tuple[Program, dict[int, Float64[ndarray, "..."]]]:
    """A layout's program, and what calibration knows of its registers.

    Raises:
        Infeasible: the layout does not suit the network.
    """
    builder = Builder(
        slots=choice.slots,
        weights_encrypted=mode is not ComputeMode.ENCRYPTED_DATA,
        data_encrypted=mode is not ComputeMode.ENCRYPTED_WEIGHTS,
    )
    if choice.plan is None:
        program = layout_columns.lower(network, builder)
    else:
        program = layout_packed.lower(network, builder, choice.plan)
    if not choice.single_prime:
        return program, builder.limits
    single = without_rescaling(program)
    if single is None:
        raise Infeasible("one prime carries a single matrix and no keys")
    return single, {0: builder.limits[0]}


def public_figures(network: Network) -> Network:
    """A network of the same shape that says of each matrix only how large its outputs can get, to a power of two.

    Where weights are encrypted the host sees the parameters, so they follow from these figures alone.
    """
    nodes = [
        replace(node, layer=_uniform(node.layer)) if isinstance(node.layer, Dense) else node for node in network.nodes
    ]
    ranges = tuple((-_rounded_up(max(map(abs, held))), _rounded_up(max(map(abs, held)))) for held in network.ranges)
    return replace(network, nodes=tuple(nodes), ranges=ranges)


def _uniform(layer: Dense) -> Dense:
    outputs, inputs = layer.weights.shape
    largest = _rounded_up(float(np.abs(layer.weights).sum(axis=1).max()))
    shift = _rounded_up(float(np.abs(layer.bias).max()))
    return Dense(weights=np.full((outputs, inputs), largest / inputs), bias=np.full(outputs, shift))


def _rounded_up(value: float) -> float:
    return 2.0 ** math.ceil(math.log2(max(value, 2.0**-8)))


def _candidates(network: Network, *, degree: int, mode: ComputeMode, rows: int) -> Iterator[_Candidate]:
    """Every layout that suits the network at this ring, and what a request would cost with it."""
    slots = degree // 2
    choices = [Choice(slots=slots, plan=None), Choice(slots=slots, plan=None, single_prime=True)]
    choices += [Choice(slots=slots, plan=plan) for plan in layout_packed.plans(network, slots=slots, rows=rows)]
    for choice in choices:
        try:
            program, limits = lowered(network, choice, mode=mode)
        except Infeasible:
            continue
        if _fits(program, degree=degree, mode=mode):
            levels = len(rescaled_bits(program, scale_bits=1, weight_bits=1)) + 1
            weights_encrypted = mode is not ComputeMode.ENCRYPTED_DATA
            batch_ms = cost.milliseconds(program, primes=levels, weights_encrypted=weights_encrypted)
            wire_ms = cost.wire_ms(program, primes=levels) if mode is not ComputeMode.ENCRYPTED_WEIGHTS else 0.0
            cost_ms = -(-rows // program.request.rows) * (batch_ms + wire_ms)
            yield _Candidate(choice=choice, program=program, limits=limits, batch_ms=batch_ms, cost_ms=cost_ms)


def _fits(program: Program, *, degree: int, mode: ComputeMode) -> bool:
    """Whether there can be parameters at this ring, and keys and a bundle of a bearable size."""
    removed = rescaled_bits(program, scale_bits=SCALE_BITS[0], weight_bits=WEIGHT_BITS[0])
    least_bits = sum(max(bits, MIN_PRIME_BITS) for bits in removed) + MIN_PRIME_BITS * (2 if removed else 1)
    levels = len(removed) + 1
    keys = len(program.rotations()) + program.relinearizes()
    key_bytes = keys * levels * (levels + 1) * 2 * degree * 8
    bundle_bytes = 0.0 if mode is ComputeMode.ENCRYPTED_DATA else _constants(program) * levels * degree * _BYTES_A_PRIME
    memory = held_bytes(
        program,
        primes=levels,
        data_encrypted=mode is not ComputeMode.ENCRYPTED_WEIGHTS,
        weights_encrypted=mode is not ComputeMode.ENCRYPTED_DATA,
    )
    return (
        least_bits <= MAX_MODULUS_BITS[degree]
        and key_bytes <= MAX_KEY_BYTES
        and bundle_bytes <= _MOST_BUNDLE_BYTES
        and memory <= MAX_HELD_BYTES
    )


def _constants(program: Program) -> int:
    """Ciphertexts that the constants take where they are encrypted."""
    return sum(ciphertexts(instruction) for instruction in program.instructions if isinstance(instruction, Constant))


def _levelled(candidate: _Candidate, *, mode: ComputeMode, max_error: float) -> Compiled | None:
    """The smallest parameters that keep the error, or the most exact ones where none do; none where nothing fits.

    An answer's scale above that of data moves bits from the last prime that is dropped to the first, which stays: its
    key switching adds less noise, for a longer answer.
    """
    largest = magnitudes(candidate.program, candidate.limits)
    best: Compiled | None = None
    rescales = any(isinstance(instruction, Rescale) for instruction in candidate.program.instructions)
    for kept_bits in KEPT_BITS if rescales else KEPT_BITS[:1]:
        for scale_bits in SCALE_BITS:
            search = _Search(
                program=candidate.program, largest=largest, scale_bits=scale_bits, kept_bits=kept_bits, mode=mode
            )
            found = _least_weights(search, max_error=max_error)
            if found is not None and (best is None or _rank(found, max_error) < _rank(best, max_error)):
                best = found
            elif best is not None and best.predicted_error <= max_error:
                break  # more bits for data spare no more bits of weights
        if best is not None and best.predicted_error <= max_error:
            break
    return None if best is None else replace(best, predicted_ms=candidate.batch_ms)


def _rank(compiled: Compiled, max_error: float) -> tuple[float, float]:
    kept = compiled.predicted_error <= max_error
    return (0.0, float(compiled.parameters.data_modulus_bits)) if kept else (1.0, compiled.predicted_error)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Search:
    """What stays the same while the smallest scale of weights is looked for."""

    program: Program
    largest: list[Float64[ndarray, "..."]]
    scale_bits: int
    kept_bits: int
    mode: ComputeMode


def _least_weights(search: _Search, *, max_error: float) -> Compiled | None:
    """The smallest scale of weights that keeps the error at this scale of data, found by halving.

    The largest that fits is tried first, where the error is close to its least: most searches end there.
    """
    low, high = WEIGHT_BITS[0], WEIGHT_BITS[-1]
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _parameters(search, middle) is not None else (low, middle - 1)
    best = _tried(search, low)
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


def _parameters(search: _Search, weight_bits: int) -> tuple[Parameters, float] | None:
    """Parameters of these scales and the answer's scale, or none where they fit no modulus."""
    program, scale_bits = search.program, search.scale_bits
    wanted = rescaled_bits(program, scale_bits=scale_bits, weight_bits=weight_bits, kept_bits=search.kept_bits)
    removed = [max(bits, MIN_PRIME_BITS) for bits in wanted]
    answer_scale = 2.0 ** (scale_bits + (search.kept_bits if removed else weight_bits))
    nominal = tuple(2.0**bits for bits in (MAX_PRIME_BITS, *reversed(removed)))
    try:
        schedule = schedule_of(program, primes=nominal, scale=2.0**scale_bits, answer_scale=answer_scale)
    except InputError:
        return None
    first = max(modulus_bits_needed(search.largest, schedule, removed_bits=removed), MIN_PRIME_BITS, scale_bits + 1)
    parameters = _with_special((first, *reversed(removed)), degree=2 * program.slots, scale_bits=scale_bits)
    return None if parameters is None else (parameters, answer_scale)


def _tried(search: _Search, weight_bits: int) -> Compiled | None:
    """Parameters of these scales with the error they keep, or none where they fit no modulus."""
    found = _parameters(search, weight_bits)
    if found is None:
        return None
    parameters, answer_scale = found
    program = search.program
    primes = tuple(float(prime) for prime in parameters.primes())
    try:
        schedule = schedule_of(program, primes=primes, scale=2.0**search.scale_bits, answer_scale=answer_scale)
    except InputError:
        return None
    noise = Noise(
        ring_degree=parameters.ring_degree,
        primes=primes,
        special=2.0 ** (parameters.modulus_bits[-1] - 0.5),
        data_encrypted=search.mode is not ComputeMode.ENCRYPTED_WEIGHTS,
        weights_encrypted=search.mode is not ComputeMode.ENCRYPTED_DATA,
    )
    return Compiled(
        program=program,
        parameters=parameters,
        answer_scale=schedule.registers[-1].scale,
        predicted_error=error_bound(program, search.largest, schedule, noise),
        predicted_ms=0.0,
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
