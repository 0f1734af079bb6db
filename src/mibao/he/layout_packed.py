"""A few rows in few ciphertexts: for one sample, and for small batches interleaved.

Element ``i`` of row ``r`` lies in slot ``i * stride + r``. Where ``stride`` is the number of rows the pattern repeats
through the ciphertext; where it is larger, other slots hold anything. A matrix is applied in one of three ways:

- *spread* (the first layer): the client repeats its record so that slot (j, o) meets the weight of the output ``o``
  for its ``j``-th input; the sum over ``j`` leaves the outputs repeated, ready for the next layer.
- *rows*: repeated inputs meet row ``o`` of the matrix in block ``o``; a block's sum is one output, in its first slot.
- *diagonals*: rotations of the inputs meet the matrix's diagonals, with baby and giant steps; what comes out lies as
  what goes in. A matrix with fewer outputs takes as many diagonals as outputs and folds the rest.

Source: Halevi, Shoup, CRYPTO 2014 (diagonals); Juvekar et al., USENIX Security 2018 (hybrid rows).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from mibao.he.lowering import Builder, Infeasible, Register, packing_of
from mibao.he.network import Add, Dense, Layer, Multiply, Network, Polynomial, Scale, Square
from mibao.he.polynomials import evaluate_series
from mibao.he.program import Packing, Program


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The choices that a packed layout leaves open.

    Attributes:
        rows: Rows a ciphertext, a power of two.
        spread: Whether the first layer is spread by the client.
        rows_at: The node whose matrix is applied by rows, or none.
    """

    rows: int
    spread: bool
    rows_at: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Placed:
    """A value of the network: a register, and where its elements lie."""

    register: Register
    width: int
    rows: int
    stride: int
    positions: int

    @property
    def repeated(self) -> bool:
        return self.stride == self.rows

    def elements(self, slots: int) -> Int64[ndarray, "count slots"]:
        """Which element each slot holds, -1 for none."""
        slot = np.arange(slots)
        element = (slot // self.stride) % self.positions + self.positions * np.arange(self.register.count)[:, None]
        return np.where((slot % self.stride < self.rows) & (element < self.width), element, -1)


def plans(network: Network, *, slots: int, rows: int) -> list[Plan]:
    """Every plan worth its cost for requests of ``rows`` rows."""
    dense = [index for index, node in enumerate(network.nodes) if isinstance(node.layer, Dense)]
    if not all(np.any(node.layer.weights) for node in network.nodes if isinstance(node.layer, Dense)):
        return []  # a product with a plaintext of zeros would be readable by anyone
    batch = 1
    found = []
    while batch <= slots // 2 and batch < 2 * rows:
        for spread in (True, False):
            for rows_at in (None, *dense[1 if spread else 0 :]):
                found.append(Plan(rows=batch, spread=spread, rows_at=rows_at))
        batch *= 2
    return found


def lower(network: Network, builder: Builder, plan: Plan) -> Program:
    """The program of a normalised network.

    Raises:
        Infeasible: the plan does not suit the network's widths or graph.
    """
    readers = [node for node in network.nodes if 0 in node.inputs]
    if plan.spread:
        if len(readers) != 1 or not isinstance(readers[0].layer, Dense):
            raise Infeasible("only a single matrix can read a spread request")
        request, first = _spread(network, builder, plan, readers[0].layer)
    else:
        request, first = _repeat(network, builder, plan)
    values: list[_Placed | None] = [first]
    for index, node in enumerate(network.nodes):
        if plan.spread and 0 in node.inputs:
            value = _apply_spread(network, builder, plan, node.layer)
        else:
            taken = [_present(values[value]) for value in node.inputs]
            value = _apply(builder, node.layer, taken, by_rows=index == plan.rows_at)
        _limit(network, builder, value, index + 1)
        values.append(value)
    answer = _present(values[-1])
    first_places = answer.elements(builder.slots)
    first_places[:, np.arange(builder.slots) % answer.stride != 0] = -1
    first_places[:, answer.positions * answer.stride :] = -1
    return builder.program(request=request, answer=packing_of(first_places, rows=plan.rows))


def _present(value: _Placed | None) -> _Placed:
    if value is None:
        raise Infeasible("a spread request is read again")
    return value


def _limit(network: Network, builder: Builder, value: _Placed, index: int) -> None:
    if network.ranges:
        known = value.elements(builder.slots) >= 0
        builder.limit(value.register, np.where(known, max(map(abs, network.ranges[index])), np.inf))


def _power(width: int) -> int:
    return 1 << max(width - 1, 0).bit_length()


def _log2(power: int) -> int:
    return power.bit_length() - 1


def _repeat(network: Network, builder: Builder, plan: Plan) -> tuple[Packing, _Placed]:
    """Records laid out as values are: repeated through the ciphertext."""
    positions = _power(network.features)
    if positions * plan.rows > builder.slots:
        raise Infeasible("a record does not fit")
    placed = _Placed(
        register=builder.request(1), width=network.features, rows=plan.rows, stride=plan.rows, positions=positions
    )
    elements = placed.elements(builder.slots)
    builder.limit(placed.register, _input_limits(network, elements))
    return packing_of(_row_zero(elements, plan.rows), rows=plan.rows), placed


def _row_zero(elements: Int64[ndarray, "count slots"], rows: int) -> Int64[ndarray, "count slots"]:
    return np.where(np.arange(elements.shape[1]) % rows == 0, elements, -1)


def _input_limits(network: Network, elements: Int64[ndarray, "count slots"]) -> Float64[ndarray, "count slots"]:
    magnitudes = np.append(np.maximum(np.abs(network.low), np.abs(network.high)), 0.0)
    return np.asarray(magnitudes[elements], dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spread:
    """Input ``taps[o, j]`` is what output ``o`` meets as its ``j``-th; -1 for none."""

    taps: Int64[ndarray, "outputs taps"]
    outputs: int  # a ciphertext
    terms: int  # a power of two
    repeats: int


def _spreading(builder: Builder, plan: Plan, layer: Dense) -> _Spread:
    outputs, inputs = layer.weights.shape
    present = layer.weights != 0
    most = max(int(present.sum(axis=1).max()), 1)
    if builder.weights_encrypted or 2 * most > inputs:
        taps = np.broadcast_to(np.arange(inputs), (outputs, inputs))
    else:
        order = np.argsort(~present, axis=1, kind="stable")[:, :most]
        taps = np.where(np.take_along_axis(present, order, axis=1), order, -1)
    terms = _power(taps.shape[1])
    room = builder.slots // (terms * plan.rows)
    if room < 1:
        raise Infeasible("a record does not fit")
    return _Spread(taps=taps, outputs=min(_power(outputs), room), terms=terms, repeats=builder.slots)


def _spread_slots(builder: Builder, plan: Plan, spread: _Spread) -> tuple[Int64[ndarray, "..."], ...]:
    """For each ciphertext and slot the output and the term that meet there."""
    count = -(-spread.taps.shape[0] // spread.outputs)
    position = np.arange(builder.slots) // plan.rows
    output = position % spread.outputs + spread.outputs * np.arange(count)[:, None]
    term = np.broadcast_to((position // spread.outputs) % spread.terms, output.shape)
    return output, term


def _spread(network: Network, builder: Builder, plan: Plan, layer: Dense) -> tuple[Packing, None]:
    spread = _spreading(builder, plan, layer)
    output, term = _spread_slots(builder, plan, spread)
    elements = _tap(spread, output, term)
    if np.array_equal(spread.taps, np.broadcast_to(spread.taps[:1], spread.taps.shape)):
        elements = elements[:1]  # every output meets the same inputs: one ciphertext serves all
        full = np.broadcast_to(spread.taps[0], (spread.outputs, spread.taps.shape[1]))
        elements = _tap(_Spread(taps=full, outputs=spread.outputs, terms=spread.terms, repeats=0), output[:1], term[:1])
    builder.limit(builder.request(len(elements)), _input_limits(network, elements))
    return packing_of(_row_zero(elements, plan.rows), rows=plan.rows), None


def _tap(spread: _Spread, output: Int64[ndarray, "..."], term: Int64[ndarray, "..."]) -> Int64[ndarray, "..."]:
    padded = np.full((max(int(output.max()) + 1, spread.taps.shape[0]), spread.terms), -1, dtype=np.int64)
    padded[: spread.taps.shape[0], : spread.taps.shape[1]] = spread.taps
    return np.asarray(padded[output, term])


def _apply_spread(network: Network, builder: Builder, plan: Plan, layer: Layer) -> _Placed:
    if not isinstance(layer, Dense):
        raise Infeasible("only a single matrix can read a spread request")
    spread = _spreading(builder, plan, layer)
    output, term = _spread_slots(builder, plan, spread)
    taps = _tap(spread, output, term)
    weights = np.where(taps >= 0, layer.weights[np.minimum(output, len(layer.weights) - 1), taps], 0.0)
    weights[output >= len(layer.weights)] = 0.0
    _check_groups(builder, weights)
    count = builder.limits[0].shape[0]
    if count == 1:
        weighed = builder.weigh(builder.request(1), weights[:, None])
    else:  # ciphertext by ciphertext: each meets its own weights
        weighed = builder.scale(builder.request(count), weights)
    block = spread.outputs * plan.rows
    folded = builder.fold(weighed, tuple(block << bit for bit in range(_log2(spread.terms))))
    placed = _Placed(
        register=folded, width=len(layer.weights), rows=plan.rows, stride=plan.rows, positions=spread.outputs
    )
    return _biased(builder, placed, layer.bias)


def _check_groups(builder: Builder, weights: Float64[ndarray, "groups ..."]) -> None:
    """Refuse a ciphertext all of whose outputs have no weights: a product with zeros could be read by anyone."""
    if not builder.weights_encrypted and not np.all(np.any(weights.reshape(len(weights), -1), axis=1)):
        raise Infeasible("a ciphertext of outputs without weights")


def _biased(builder: Builder, placed: _Placed, bias: Float64[ndarray, "width"]) -> _Placed:
    elements = placed.elements(builder.slots)
    register = builder.shift(placed.register, np.append(bias, 0.0)[elements])
    return _moved(placed, register)


def _moved(placed: _Placed, register: Register) -> _Placed:
    return _Placed(
        register=register, width=placed.width, rows=placed.rows, stride=placed.stride, positions=placed.positions
    )


def _apply(builder: Builder, layer: Layer, taken: list[_Placed], *, by_rows: bool) -> _Placed:
    value = taken[0]
    if len(taken) == 2 and taken[0].elements(builder.slots).shape != taken[1].elements(builder.slots).shape:
        raise Infeasible("two values lie differently")
    if len(taken) == 2 and not np.array_equal(value.elements(builder.slots), taken[1].elements(builder.slots)):
        raise Infeasible("two values lie differently")
    match layer:
        case Dense():
            return _rows(builder, value, layer) if by_rows else _diagonals(builder, value, layer)
        case Square():
            return _moved(value, builder.square(value.register))
        case Multiply():
            return _moved(value, builder.multiply(value.register, taken[1].register))
        case Add():
            return _moved(value, builder.add(value.register, taken[1].register))
        case Polynomial(coefficients=coefficients):
            if not value.repeated:
                raise Infeasible("a polynomial of what lies between the values could get too large")
            return _moved(value, evaluate_series(builder, value.register, coefficients))
        case Scale(factor=factor, shift=shift):
            elements = value.elements(builder.slots)
            scaled = builder.scale(value.register, np.append(factor, 0.0)[elements])
            return _biased(builder, _moved(value, scaled), shift)
    raise TypeError(f"not a normalised layer: {layer}")


def _rows(builder: Builder, value: _Placed, layer: Dense) -> _Placed:
    block = value.positions * value.stride
    room = builder.slots // block
    if not value.repeated:
        raise Infeasible("rows take repeated inputs")
    outputs = len(layer.weights)
    count = -(-outputs // room)
    elements = value.elements(builder.slots)
    output = np.arange(builder.slots) // block + room * np.arange(count)[:, None]
    padded = np.zeros((count * room, layer.weights.shape[1] + 1))
    padded[:outputs, :-1] = layer.weights
    weights = padded[output[:, None, :], elements[None, :, :]]
    _check_groups(builder, weights)
    weighed = builder.weigh(value.register, weights)
    folded = builder.fold(weighed, tuple(value.stride << bit for bit in range(_log2(value.positions))))
    placed = _Placed(register=folded, width=outputs, rows=value.rows, stride=block, positions=room)
    return _biased(builder, placed, layer.bias)


def _diagonals(builder: Builder, value: _Placed, layer: Dense) -> _Placed:
    if value.register.count != 1:
        raise Infeasible("diagonals take one ciphertext")
    outputs, period = len(layer.weights), value.positions
    positions = _power(outputs)
    if positions > period and (not value.repeated or positions * value.stride > builder.slots):
        raise Infeasible("the outputs do not fit")
    number = min(positions, period)
    baby = 1 << -(-_log2(number) // 2)
    elements = value.elements(builder.slots)[0]
    slot = np.arange(builder.slots)
    output = (slot // value.stride) % positions
    padded = np.zeros((positions, layer.weights.shape[1] + 1))
    padded[:outputs, :-1] = layer.weights
    weights = np.empty((number // baby, baby, builder.slots))
    for giant, small in np.ndindex(number // baby, baby):
        met = np.roll(elements, -(giant * baby + small) * value.stride)
        diagonal = np.where(slot % value.stride < value.rows, padded[output, met], 0.0)
        weights[giant, small] = np.roll(diagonal, giant * baby * value.stride)
    used = np.arange(number // baby)
    if not builder.weights_encrypted:  # a sum of no diagonal is no ciphertext; encrypted zeros look like any weight
        used = np.flatnonzero(np.any(weights, axis=(1, 2)))
    babies = builder.rotate(value.register, tuple(small * value.stride for small in range(baby)))
    sums = builder.weigh(babies, weights[used])
    giants = builder.rotate(sums, tuple(int(giant) * baby * value.stride for giant in used))
    block = positions * value.stride
    folded = builder.fold(
        builder.total(giants), tuple(block << bit for bit in range(max(_log2(period) - _log2(positions), 0)))
    )
    placed = _Placed(register=folded, width=outputs, rows=value.rows, stride=value.stride, positions=positions)
    return _biased(builder, placed, layer.bias)
