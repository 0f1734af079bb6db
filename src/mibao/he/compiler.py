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
from mibao.he import cost, layout_columns, layout_packed, layout_windows
from mibao.he.bounds import magnitudes
from mibao.he.footprint import MAX_HELD_BYTES, held_bytes
from mibao.he.levels import rescaled_bits, rescaled_forms
from mibao.he.lowering import Builder, Infeasible
from mibao.he.network import Dense, Network
from mibao.he.parameter_search import SCALE_BITS, WEIGHT_BITS, Compiled, Search, smallest
from mibao.he.parameters import MAX_MODULUS_BITS, MIN_PRIME_BITS
from mibao.he.program import Constant, Program, ciphertexts, doubled, without_rescaling
from mibao.he.release_terms import PRIMES_A_LEVEL, Release
from mibao.he.spec import MAX_KEY_BYTES
from mibao.types import ComputeMode

MOST_TRIED = 12  # layouts a ring, the cheapest first: where none of them keeps the error, a larger ring does
_BYTES_A_PRIME = 2 * 60 / 8  # of an encrypted constant, a coefficient, at most
_MOST_BUNDLE_BYTES = 250 << 20  # of encrypted weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A layout: its ring, the plan or none for one ciphertext a feature, and whether one prime is to do."""

    slots: int
    plan: layout_packed.Plan | layout_windows.Plan | None
    single_prime: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Candidate:
    choice: Choice
    program: Program
    limits: dict[int, Float64[ndarray, "..."]]
    batch_ms: float
    cost_ms: float
    bounding: Program


def compile_network(
    network: Network,
    *,
    mode: ComputeMode,
    rows: int,
    max_error: float,
    release: Release | None = None,
    weights_publicly: bool = False,
) -> Compiled:
    """The cheapest program for requests of ``rows`` rows whose predicted error is at most ``max_error``.

    Args:
        network: Normalised.
        mode: What is encrypted.
        rows: How many rows a request usually carries; any number may be sent.
        max_error: Largest error an answer may have, before the head; that of its release, where it is for one.
        release: What the parameters have to leave room for.
        weights_publicly: Whether weights are encrypted under a public key.

    Raises:
        InputError: no parameters keep ``max_error``, or the network fits no layout.
    """
    shown = network if mode is ComputeMode.ENCRYPTED_DATA else public_figures(network)
    best: tuple[_Candidate, Compiled] | None = None
    closest = math.inf
    for degree in MAX_MODULUS_BITS:
        every = _candidates(shown, degree=degree, mode=mode, rows=rows, releases=release is not None)
        found = sorted(every, key=lambda held: held.cost_ms)
        cheaper = [held for held in found if best is None or held.cost_ms < best[0].cost_ms][:MOST_TRIED]
        fitting = (
            (held, _levelled(held, mode=mode, max_error=max_error, release=release, weights_publicly=weights_publicly))
            for held in cheaper
        )
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
    program, _ = lowered(network, best[0].choice, mode=mode, releases=release is not None)
    return replace(best[1], program=program)


def _levelled(
    candidate: _Candidate, *, mode: ComputeMode, max_error: float, release: Release | None, weights_publicly: bool
) -> Compiled | None:
    largest = magnitudes(candidate.program, candidate.limits)
    search = Search(
        program=candidate.program,
        bounding=candidate.bounding,
        largest=largest,
        forms=rescaled_forms(candidate.program),
        peaks=tuple(float(magnitude.max()) for magnitude in largest),
        input_bound=candidate.limits[0].max(axis=1),
        mode=mode,
        weights_publicly=weights_publicly,
        release=release,
    )
    found = smallest(search, max_error=max_error)
    return None if found is None else replace(found, predicted_ms=candidate.batch_ms)


def lowered(
    network: Network, choice: Choice, *, mode: ComputeMode, releases: bool = False
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
    elif isinstance(choice.plan, layout_windows.Plan):
        program = layout_windows.lower(network, builder, choice.plan)
    else:
        program = layout_packed.lower(network, builder, choice.plan)
    limits = builder.limits
    if choice.single_prime:
        single = without_rescaling(program)
        if single is None:
            raise Infeasible("one prime carries a single matrix and no keys")
        program, limits = single, {0: limits[0]}
    if releases:
        program, renamed = doubled(program)
        limits = {renamed[register]: held for register, held in limits.items()}
    return program, limits


def public_figures(network: Network) -> Network:
    """A network of the same shape that says of each matrix only how large its outputs can get, to a power of two.

    Where weights are encrypted the host sees the parameters, so they follow from these figures alone.
    """
    nodes = [
        replace(node, layer=_uniform(node.layer)) if isinstance(node.layer, Dense) else node for node in network.nodes
    ]
    ranges = tuple((-_rounded_up(max(map(abs, held))), _rounded_up(max(map(abs, held)))) for held in network.ranges)
    return replace(network, nodes=tuple(nodes), ranges=ranges)


def bounding_figures(network: Network) -> Network:
    """The same with each weight as large as a whole row may be: no weight of the network it stands for is larger.

    A proven bound has to hold for every constant, wherever a layout puts it.
    """
    nodes = [
        replace(node, layer=replace(node.layer, weights=node.layer.weights * node.layer.weights.shape[1]))
        if isinstance(node.layer, Dense)
        else node
        for node in public_figures(network).nodes
    ]
    return replace(network, nodes=tuple(nodes), ranges=())


def _uniform(layer: Dense) -> Dense:
    outputs, inputs = layer.weights.shape
    largest = _rounded_up(float(np.abs(layer.weights).sum(axis=1).max()))
    shift = _rounded_up(float(np.abs(layer.bias).max()))
    return Dense(weights=np.full((outputs, inputs), largest / inputs), bias=np.full(outputs, shift))


def _rounded_up(value: float) -> float:
    return 2.0 ** math.ceil(math.log2(max(value, 2.0**-8)))


def _candidates(network: Network, *, degree: int, mode: ComputeMode, rows: int, releases: bool) -> Iterator[_Candidate]:
    """Every layout that suits the network at this ring, and what a request would cost with it."""
    slots = degree // 2
    choices = [Choice(slots=slots, plan=None), Choice(slots=slots, plan=None, single_prime=True)]
    choices += [Choice(slots=slots, plan=plan) for plan in layout_packed.plans(network, slots=slots, rows=rows)]
    choices += [Choice(slots=slots, plan=plan) for plan in layout_windows.plans(network, slots=slots, rows=rows)]
    for choice in choices:
        try:
            program, limits = lowered(network, choice, mode=mode, releases=releases)
            bounding = program
            if releases and mode is not ComputeMode.ENCRYPTED_DATA:
                bounding, _ = lowered(bounding_figures(network), choice, mode=mode, releases=releases)
        except Infeasible:
            continue
        if _fits(program, degree=degree, mode=mode, primes_a_level=PRIMES_A_LEVEL if releases else 1):
            levels = len(rescaled_forms(program)) + (PRIMES_A_LEVEL if releases else 1)
            weights_encrypted = mode is not ComputeMode.ENCRYPTED_DATA
            batch_ms = cost.milliseconds(program, primes=levels, weights_encrypted=weights_encrypted)
            wire_ms = cost.wire_ms(program, primes=levels) if mode is not ComputeMode.ENCRYPTED_WEIGHTS else 0.0
            cost_ms = -(-rows // program.request.rows) * (batch_ms + wire_ms)
            yield _Candidate(
                choice=choice,
                program=program,
                limits=limits,
                batch_ms=batch_ms,
                cost_ms=cost_ms,
                bounding=bounding,
            )


def _fits(program: Program, *, degree: int, mode: ComputeMode, primes_a_level: int) -> bool:
    """Whether there can be parameters at this ring, and keys and a bundle of a bearable size."""
    removed = rescaled_bits(rescaled_forms(program), scale_bits=SCALE_BITS[0], weight_bits=WEIGHT_BITS[0])
    least_bits = sum(max(bits, MIN_PRIME_BITS) for bits in removed) + MIN_PRIME_BITS * (2 if removed else 1)
    levels = len(removed) + primes_a_level
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
