"""Forests as values of a header and bytes of a body, read strictly: a host computes what stands there.

The header says how many numbers of each kind the body holds; the body is those numbers: the client's map, and in a
bundle the comparison's coefficients and the trees.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import ndarray

from mibao.codec.canonical import Value
from mibao.errors import InputError, IntegrityError
from mibao.he.forest_spec import ForestSpec
from mibao.he.forests import Forest, Tree
from mibao.he.network import Basis, Polynomial
from mibao.he.sign import SignComposition
from mibao.he.trees import KNOTS, MAX_TREE_DEPTH, TreeCircuit

MAX_TREES = 4096
MAX_NODES = 1 << 18
MAX_COMPARISONS = 1 << 12
MAX_STAGES = 8
MAX_TERMS = 32
_FLOAT, _INTEGER = np.dtype("<f8"), np.dtype("<i4")


def trees_value(circuit: TreeCircuit) -> dict[str, Value]:
    """The header's part of a bundle: nodes of each tree, terms of each of the sign's stages, and how close they are."""
    stages = circuit.sign.stages
    return {
        "nodes": [len(tree.feature) for tree in circuit.forest.trees],
        "terms": [len(stage.coefficients) for stage in stages],
        "intervals": [bound for stage in stages for bound in (float(stage.low), float(stage.high), float(stage.error))],
        "separation": float(circuit.sign.separation),
        "max_error": float(circuit.sign.max_error),
        "agreement": float(circuit.agreement),
        "ambiguous_share": float(circuit.ambiguous_share),
    }


def knots_body(spec: ForestSpec) -> bytes:
    """The client's map, feature by feature."""
    return spec.scale.knots.astype(_FLOAT).tobytes()


def trees_body(circuit: TreeCircuit) -> bytes:
    """What stands behind the map: coefficients, ranges, base, then tree by tree its arrays."""
    forest = circuit.forest
    floats = [*(stage.coefficients for stage in circuit.sign.stages), forest.low, forest.high, forest.base]
    parts = [values.astype(_FLOAT).tobytes() for values in floats]
    for tree in forest.trees:
        parts += [values.astype(_INTEGER).tobytes() for values in (tree.feature, tree.left, tree.right)]
        parts += [tree.threshold.astype(_FLOAT).tobytes(), tree.value.astype(_FLOAT).tobytes()]
    return b"".join(parts)


def read_knots(body: bytes | memoryview, *, features: int) -> tuple[ndarray, bytes | memoryview]:
    """The client's map, and what stands behind it.

    Raises:
        IntegrityError: the body is too short, or a feature's knots are not finite and increasing.
    """
    reader = _Reader(body)
    knots = reader.take(_FLOAT, (features, KNOTS)).astype(np.float64)
    if not np.all(np.isfinite(knots)) or not np.all(np.diff(knots, axis=1) > 0):
        raise IntegrityError("forest: its map is not increasing")
    return knots, reader.rest()


def read_trees(value: Value, body: bytes | memoryview, spec: ForestSpec) -> TreeCircuit:
    """The circuit of a bundle, held to its public part.

    Raises:
        IntegrityError: a field is missing or malformed, the body has another length, the trees are none or too many,
            or they take other parameters than the public part says.
    """
    held = _fields(value)
    nodes, terms, intervals = held["nodes"], held["terms"], held["intervals"]
    sizes = 1 <= len(nodes) <= MAX_TREES and 1 <= len(terms) <= MAX_STAGES and len(intervals) == 3 * len(terms)
    if not sizes or not all(count >= 1 for count in nodes) or sum(nodes) > MAX_NODES:
        raise IntegrityError("forest: expected fewer trees, or fewer nodes")
    if not all(2 <= count <= MAX_TERMS for count in terms):
        raise IntegrityError("forest: its comparison is malformed")
    reader = _Reader(body)
    coefficients = [reader.take(_FLOAT, (count,)).astype(np.float64) for count in terms]
    try:
        sign = _sign(held, coefficients, intervals)
        made = TreeCircuit(
            forest=_forest(reader, nodes, spec),
            scale=spec.scale,
            sign=sign,
            parameters=spec.parameters,
            agreement=held["agreement"],
            ambiguous_share=held["ambiguous_share"],
        )
        reader.end()
    except InputError as error:
        raise IntegrityError(f"forest: describes no possible trees ({error})") from error
    _check(made)
    return made


def _check(made: TreeCircuit) -> None:
    """What no compiled circuit breaks: the host's work is bounded, and the levels are just enough."""
    forest, sign = made.forest, made.sign
    if not 1 <= forest.depth <= MAX_TREE_DEPTH or len(made.comparisons) > MAX_COMPARISONS:
        raise IntegrityError("forest: its trees are too deep, compare too much or nothing")
    if made.parameters.depth != sign.depth + forest.depth:
        raise IntegrityError("forest: its trees take other parameters than its circuit says")
    if not (0 <= made.agreement <= 1 and 0 <= made.ambiguous_share <= 1):
        raise IntegrityError("forest: field agreement is malformed")


def _sign(held: dict[str, Any], coefficients: list[ndarray], intervals: list[float]) -> SignComposition:
    finite = all(np.all(np.isfinite(stage)) and np.any(stage[1:]) for stage in coefficients)
    bounds = np.array(intervals, dtype=np.float64).reshape(-1, 3)
    if not finite or not np.all(np.isfinite(bounds)) or not np.all(bounds[:, 1] > 0):
        raise InputError("a comparison whose polynomials are not finite")
    if not (0 < held["separation"] <= 1 and 0 <= held["max_error"] < 1):
        raise InputError("a comparison that separates nothing")
    stages = tuple(
        Polynomial(coefficients=stage, basis=Basis.CHEBYSHEV, low=float(low), high=float(high), error=float(error))
        for stage, (low, high, error) in zip(coefficients, bounds, strict=True)
    )
    return SignComposition(stages=stages, separation=held["separation"], max_error=held["max_error"])


def _forest(reader: _Reader, nodes: list[int], spec: ForestSpec) -> Forest:
    low, high = (reader.take(_FLOAT, (spec.features,)).astype(np.float64) for _ in range(2))
    base = reader.take(_FLOAT, (spec.outputs,)).astype(np.float64)
    if not (np.all(np.isfinite(low)) and np.all(np.isfinite(high)) and np.all(np.isfinite(base))):
        raise InputError("a range or a base that is not finite")
    return Forest(
        low=low,
        high=high,
        trees=tuple(_tree(reader, count, spec.outputs) for count in nodes),
        base=base,
        head=spec.head,
        flat=spec.flat,
        classes=spec.classes,
        rounds=spec.scale.rounds,
    )


def _tree(reader: _Reader, count: int, outputs: int) -> Tree:
    feature, left, right = (reader.take(_INTEGER, (count,)).astype(np.int64) for _ in range(3))
    threshold = reader.take(_FLOAT, (count,)).astype(np.float64)
    value = reader.take(_FLOAT, (count, outputs)).astype(np.float64)
    if feature.min() < -1 or min(left.min(), right.min()) < 0 or max(left.max(), right.max()) >= count:
        raise InputError("a tree that points outside itself")
    return Tree(feature=feature, threshold=threshold, left=left, right=right, value=value)


class _Reader:
    """Arrays one after another, never beyond the end."""

    __slots__ = ("_data", "_start")

    def __init__(self, data: bytes | memoryview) -> None:
        self._data, self._start = memoryview(data), 0

    def take(self, kind: np.dtype[Any], shape: tuple[int, ...]) -> ndarray:
        end = self._start + int(np.prod(shape, dtype=object)) * kind.itemsize
        if end > len(self._data):
            raise IntegrityError("forest: its body is shorter than its header says")
        found = np.frombuffer(self._data[self._start : end], dtype=kind).reshape(shape)
        self._start = end
        return found

    def rest(self) -> memoryview:
        return self._data[self._start :]

    def end(self) -> None:
        if self._start != len(self._data):
            raise IntegrityError("forest: its body is longer than its header says")


_FIELDS: dict[str, type] = {
    "nodes": list,
    "terms": list,
    "intervals": list,
    "separation": float,
    "max_error": float,
    "agreement": float,
    "ambiguous_share": float,
}


def _fields(value: Value) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != set(_FIELDS):
        raise IntegrityError(f"forest: expected the fields {', '.join(_FIELDS)}")
    held: dict[str, Any] = dict(value)
    for name, kind in _FIELDS.items():
        if type(held[name]) is not kind:
            raise IntegrityError(f"forest: field {name} is malformed")
    for name, kind in (("nodes", int), ("terms", int), ("intervals", float)):
        if not all(type(entry) is kind for entry in held[name]):
            raise IntegrityError(f"forest: field {name} is malformed")
    return held
