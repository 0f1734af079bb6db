"""One ciphertext a feature, one row a slot: for many rows. No rotations, hence no rotation keys.

A layer is a matrix product over ciphertexts, an activation works slot by slot, and N / 2 rows cost what one does.
"""

from __future__ import annotations

import numpy as np

from mibao.he.lowering import Builder, Register, columns_packing
from mibao.he.network import Add, Dense, Multiply, Network, Polynomial, Scale, Square
from mibao.he.polynomials import evaluate_series
from mibao.he.program import Program


def lower(network: Network, builder: Builder) -> Program:
    """The program of a normalised network."""
    values = [builder.request(network.features)]
    _limit(network, builder, values[0], 0)
    for index, node in enumerate(network.nodes):
        taken = [values[value] for value in node.inputs]
        match node.layer:
            case Dense(weights=weights, bias=bias):
                value = builder.shift(builder.weigh(taken[0], weights), bias)
            case Scale(factor=factor, shift=shift):
                value = builder.shift(builder.scale(taken[0], factor), shift)
            case Square():
                value = builder.square(taken[0])
            case Multiply():
                value = builder.multiply(taken[0], taken[1])
            case Add():
                value = builder.add(taken[0], taken[1])
            case Polynomial(coefficients=coefficients):
                value = evaluate_series(builder, taken[0], coefficients)
            case layer:
                raise TypeError(f"not a normalised layer: {layer}")
        _limit(network, builder, value, index + 1)
        values.append(value)
    return builder.program(
        request=columns_packing(width=network.features, rows=builder.slots),
        answer=columns_packing(width=network.outputs, rows=builder.slots),
    )


def _limit(network: Network, builder: Builder, register: Register, value: int) -> None:
    if value == 0:
        builder.limit(register, np.maximum(np.abs(network.low), np.abs(network.high))[:, None])
    elif network.ranges:
        builder.limit(register, np.full((register.count, 1), max(map(abs, network.ranges[value]))))
