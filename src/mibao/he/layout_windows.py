"""Convolutions without spreading: rows interleaved, a ciphertext a channel, one rotation a place of the window.

Element ``i`` of row ``r`` starts in slot ``i * rows + r``, repeated through the ciphertext. A sparse matrix's output
lies where the first of its inputs does, so that those of one channel meet their inputs at the same distances: a
rotation brings the inputs of one distance to all of them. Outputs whose inputs start at one place (a convolution's
channels) lie in ciphertexts of their own, and one matrix of numbers over the rotations makes them all. Between the
outputs lie other sums of inputs, which nothing reads. A full matrix behind it is applied by its diagonals.

Source: Juvekar, Vaikuntanathan, Chandrakasan, "Gazelle", USENIX Security 2018, section 5 (convolutions by rotations).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from mibao.he.lowering import Builder, Infeasible, Register, packing_of
from mibao.he.network import Add, Dense, Layer, Multiply, Network, Polynomial, Scale, Square
from mibao.he.polynomials import evaluate_series
from mibao.he.program import Program

_SPARSE = 0.5  # of a matrix's entries, at most, for a layer that windows are for


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Rows a ciphertext, a power of two."""

    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Placed:
    """A value of the network: a register, and which element each (ciphertext, position) holds; -1 for none."""

    register: Register
    width: int
    places: Int64[ndarray, "count positions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lowering:
    builder: Builder
    rows: int
    bounded: bool  # whether nothing but zeros may lie between elements: a polynomial of it could get too large

    def slots(self, values: Float64[ndarray, "... positions"]) -> Float64[ndarray, "... slots"]:
        """Each position's number in all its rows' slots, repeated through the ciphertext."""
        spread = np.repeat(values, self.rows, axis=-1)
        repeats = self.builder.slots // spread.shape[-1]
        return np.tile(spread, (1,) * (values.ndim - 1) + (repeats,))


def plans(network: Network, *, slots: int, rows: int) -> list[Plan]:
    """Every plan worth its cost for requests of ``rows`` rows; none without a sparse matrix."""
    dense = [node.layer.weights for node in network.nodes if isinstance(node.layer, Dense)]
    if not any(np.mean(weights != 0) < _SPARSE for weights in dense):
        return []
    if not all(np.any(weights, axis=1).all() for weights in dense):
        return []  # an output without weights has no place
    found, batch = [], 1
    while batch * _power(network.features) <= slots and batch < 2 * rows:
        found.append(Plan(rows=batch))
        batch *= 2
    return found


def lower(network: Network, builder: Builder, plan: Plan) -> Program:
    """The program of a normalised network.

    Raises:
        Infeasible: the plan does not suit the network's widths or graph, or weights are encrypted, whose zeros count.
    """
    if builder.weights_encrypted:
        raise Infeasible("where zeros lie would show")
    bounded = any(isinstance(node.layer, Polynomial) for node in network.nodes)
    lowering = _Lowering(builder=builder, rows=plan.rows, bounded=bounded)
    places = np.full((1, _power(network.features)), -1, dtype=np.int64)
    places[0, : network.features] = np.arange(network.features)
    request = _Placed(register=builder.request(1), width=network.features, places=places)
    magnitudes = np.append(np.maximum(np.abs(network.low), np.abs(network.high)), 0.0)
    builder.limit(request.register, lowering.slots(magnitudes[places]))
    values = [request]
    for index, node in enumerate(network.nodes):
        value = _apply(lowering, node.layer, [values[taken] for taken in node.inputs])
        if network.ranges:
            known = np.where(value.places >= 0, max(map(abs, network.ranges[index + 1])), np.inf)
            builder.limit(value.register, lowering.slots(known))
        values.append(value)
    return builder.program(
        request=packing_of(_first_rows(lowering, places, repeated=True), rows=plan.rows),
        answer=packing_of(_first_rows(lowering, values[-1].places, repeated=False), rows=plan.rows),
    )


def _power(width: int) -> int:
    return 1 << max(width - 1, 0).bit_length()


def _first_rows(
    lowering: _Lowering, places: Int64[ndarray, "count positions"], *, repeated: bool
) -> Int64[ndarray, "count slots"]:
    """Which element starts in each slot: everywhere, or once an element."""
    if not repeated:
        flat, once = places.ravel(), np.full(places.size, -1, dtype=np.int64)
        elements, first = np.unique(flat, return_index=True)
        once[first[elements >= 0]] = elements[elements >= 0]
        places = once.reshape(places.shape)
    starts = np.full((*places.shape, lowering.rows), -1, dtype=np.int64)
    starts[:, :, 0] = places
    period = starts.reshape(len(places), -1)
    found = np.full((len(places), lowering.builder.slots), -1, dtype=np.int64)
    repeats = lowering.builder.slots // period.shape[1] if repeated else 1
    found[:, : repeats * period.shape[1]] = np.tile(period, (1, repeats))
    return found


def _apply(lowering: _Lowering, layer: Layer, taken: list[_Placed]) -> _Placed:
    value, builder = taken[0], lowering.builder
    if len(taken) == 2 and not np.array_equal(value.places, taken[1].places):
        raise Infeasible("two values lie differently")
    register = value.register
    match layer:
        case Dense():
            return _matrix(lowering, value, layer)
        case Square():
            register = builder.square(register)
        case Multiply():
            register = builder.multiply(register, taken[1].register)
        case Add():
            register = builder.add(register, taken[1].register)
        case Polynomial(coefficients=coefficients):
            register = evaluate_series(builder, register, coefficients)
        case Scale(factor=factor, shift=shift):
            scaled = builder.scale(register, lowering.slots(np.append(factor, 0.0)[value.places]))
            register = builder.shift(scaled, lowering.slots(np.append(shift, 0.0)[value.places]))
        case _:
            raise TypeError(f"not a normalised layer: {layer}")
    return _Placed(register=register, width=value.width, places=value.places)


def _matrix(lowering: _Lowering, value: _Placed, layer: Dense) -> _Placed:
    """By windows or by diagonals, whichever takes fewer rotations."""
    windows = _windows_of(value, layer)
    outputs, positions = len(layer.weights), value.places.shape[1]
    fits = _power(outputs) <= positions
    if fits and _diagonal_rotations(len(value.places), _power(outputs), positions) < len(windows.taps):
        return _diagonals(lowering, value, layer)
    if len(windows.places) * len(windows.taps) > lowering.builder.slots:
        raise Infeasible("more products than are worth it")
    return _by_windows(lowering, value, layer, windows)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Windows:
    """Where outputs lie, and from which (ciphertext, distance) their inputs come."""

    places: Int64[ndarray, "count positions"]
    taps: list[tuple[int, int]]
    weights: Float64[ndarray, "count taps positions"]


def _windows_of(value: _Placed, layer: Dense) -> _Windows:
    positions = value.places.shape[1]
    ciphertext, position = np.full(value.width, -1), np.full(value.width, -1)
    held_at = np.nonzero(value.places >= 0)
    ciphertext[value.places[held_at]], position[value.places[held_at]] = held_at
    outputs, inputs = np.nonzero(layer.weights)
    anchors = np.full(len(layer.weights), positions)
    np.minimum.at(anchors, outputs, position[inputs])
    taken: dict[int, int] = {}
    groups = np.zeros(len(layer.weights), dtype=np.int64)
    for output, anchor in enumerate(anchors.tolist()):
        groups[output] = taken.get(anchor, 0)
        taken[anchor] = groups[output] + 1
    places = np.full((int(groups.max()) + 1, positions), -1, dtype=np.int64)
    places[groups, anchors] = np.arange(len(layer.weights))
    met = ciphertext[inputs] * positions + position[inputs] - anchors[outputs]
    taps, at = np.unique(met, return_inverse=True)
    weights = np.zeros((len(places), len(taps), positions))
    weights[groups[outputs], at.reshape(-1), anchors[outputs]] = layer.weights[outputs, inputs]
    return _Windows(places=places, taps=[divmod(int(tap), positions) for tap in taps], weights=weights)


def _by_windows(lowering: _Lowering, value: _Placed, layer: Dense, windows: _Windows) -> _Placed:
    builder, rows = lowering.builder, lowering.rows
    by_source = [[distance for held, distance in windows.taps if held == number] for number in range(len(value.places))]
    most = max(map(len, by_source))
    # Every source gives as many rotations: what it lacks is itself, which then has no weights.
    steps = [distances + [0] * (most - len(distances)) for distances in by_source]
    order = [number * most + index for number, distances in enumerate(by_source) for index in range(len(distances))]
    weights = np.zeros((len(windows.places), len(value.places) * most, windows.places.shape[1]))
    weights[:, order] = windows.weights
    rotated = builder.rotate(value.register, tuple(step * rows for distances in steps for step in distances))
    alike = None if lowering.bounded else _alike(weights, windows.places)
    register = builder.weigh(rotated, lowering.slots(weights) if alike is None else alike)
    register = builder.shift(register, lowering.slots(np.append(layer.bias, 0.0)[windows.places]))
    return _Placed(register=register, width=len(layer.weights), places=windows.places)


def _alike(
    weights: Float64[ndarray, "count taps positions"], places: Int64[ndarray, "count positions"]
) -> Float64[ndarray, "count taps"] | None:
    """One number a ciphertext and tap, where all its outputs have the same; else none."""
    found = np.zeros(weights.shape[:2])
    for number, held in enumerate(places):
        used = weights[number][:, held >= 0]
        if not np.all(used == used[:, :1]):
            return None
        found[number] = used[:, 0]
    return found


def _diagonal_steps(count: int, number: int) -> int:
    """Baby steps, a power of two, for fewest rotations of ``count`` ciphertexts and their giant steps."""
    choices = [1 << bits for bits in range(number.bit_length())]
    return min(choices, key=lambda baby: count * (baby - 1) + number // baby - 1)


def _diagonal_rotations(count: int, outputs: int, positions: int) -> int:
    baby = _diagonal_steps(count, outputs)
    return count * (baby - 1) + outputs // baby - 1 + (positions // outputs).bit_length() - 1


def _diagonals(lowering: _Lowering, value: _Placed, layer: Dense) -> _Placed:
    """As many diagonals as outputs, rounded up to a power of two, and the rest folded."""
    builder, rows = lowering.builder, lowering.rows
    count, positions = value.places.shape
    outputs, number = len(layer.weights), _power(len(layer.weights))
    baby = _diagonal_steps(count, number)
    padded = np.zeros((number, layer.weights.shape[1] + 1))
    padded[:outputs, :-1] = layer.weights
    position = np.arange(positions)
    weights = np.zeros((number // baby, count, baby, positions))
    for giant, small in np.ndindex(number // baby, baby):
        met = value.places[:, (position + giant * baby + small) % positions]
        diagonal = padded[position % number, met]
        weights[giant, :, small] = np.roll(diagonal, giant * baby, axis=1)
    used = np.flatnonzero(np.any(weights, axis=(1, 2, 3)))  # a sum of no diagonal is no ciphertext
    babies = builder.rotate(value.register, tuple(range(0, baby * rows, rows)) * count)
    sums = builder.weigh(babies, lowering.slots(weights[used].reshape(len(used), count * baby, positions)))
    giants = builder.rotate(sums, tuple(int(giant) * baby * rows for giant in used))
    folds = tuple((number << bit) * rows for bit in range((positions // number).bit_length() - 1))
    folded = builder.fold(builder.total(giants), folds)
    places = np.where(np.arange(number) < outputs, np.arange(number), -1)[None]  # repeated from there on
    register = builder.shift(folded, lowering.slots(np.append(layer.bias, 0.0)[places]))
    return _Placed(register=register, width=outputs, places=places)
