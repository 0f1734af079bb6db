"""A forest as an ordinary network: comparisons, the sign's stages, and products of what the nodes say.

What :mod:`mibao.he.trees` computes by hand, in the compiler's terms: its layouts, levels, keys, files and modes then
serve trees as they serve any model. It takes two levels more for each of a tree's, since nothing is left unscaled. The
input is the negated ranks (:class:`~mibao.he.trees.FeatureScale`), which the client computes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from mibao.he.forests import LEAF, Tree
from mibao.he.network import Add, Dense, Multiply, Network, Node
from mibao.he.trees import TreeCircuit

_Vector = dict[tuple[int, int], float]  # coefficients by (value group, entry); group 0 holds a constant at entry 0


def forest_network(circuit: TreeCircuit) -> Network:
    """The network, from negated ranks to scores, with the forest's head and classes."""
    comparisons = circuit.comparisons
    places = {comparison: index for index, comparison in enumerate(comparisons)}
    features = circuit.forest.features
    weights = np.zeros((len(comparisons), features))
    weights[np.arange(len(comparisons)), [feature for feature, _ in comparisons]] = 1.0
    ranks = np.array([circuit.rank(feature, threshold) for feature, threshold in comparisons])
    nodes = [Node(layer=Dense(weights=weights, bias=ranks), inputs=(0,), name="comparisons")]
    for index, stage in enumerate(circuit.sign.stages):
        nodes.append(Node(layer=stage, inputs=(len(nodes),), name=f"sign {index + 1}"))
    graph = _Graph(nodes=nodes, groups=[1, len(comparisons)], values=[-1, len(nodes)])
    totals = _collected(circuit, places, graph)
    graph.append_sum(totals, name="scores")
    forest = circuit.forest
    return Network(
        low=np.full(features, -0.5),
        high=np.full(features, 0.5),
        nodes=tuple(graph.nodes),
        head=forest.head,
        flat=forest.flat,
        classes=forest.classes,
    )


@dataclass(slots=True, eq=False)
class _Graph:
    """Nodes so far; group g of coefficients is value ``values[g]``, ``groups[g]`` wide. Group 0 is the constant."""

    nodes: list[Node]
    groups: list[int]
    values: list[int]

    def append_sum(self, rows: list[_Vector], *, name: str) -> int:
        """The value whose entries are these sums of earlier groups' entries."""
        bias = np.array([row.get((0, 0), 0.0) for row in rows])
        total: int | None = None
        for group in range(1, len(self.groups)):
            weights = self._weights(rows, group)
            if not np.any(weights):
                continue
            addend = Dense(weights=weights, bias=bias if total is None else np.zeros(len(rows)))
            self.nodes.append(Node(layer=addend, inputs=(self.values[group],), name=name))
            if total is not None:
                self.nodes.append(Node(layer=Add(), inputs=(total, len(self.nodes)), name=name))
            total = len(self.nodes)
        if total is None:  # an answer that nothing decides is still an answer: a sum of no comparison
            self.nodes.append(
                Node(layer=Dense(weights=self._weights(rows, 1), bias=bias), inputs=(self.values[1],), name=name)
            )
        return len(self.nodes)

    def _weights(self, rows: list[_Vector], group: int) -> Float64[ndarray, "rows entries"]:
        weights = np.zeros((len(rows), self.groups[group]))
        for index, row in enumerate(rows):
            for (held, entry), coefficient in row.items():
                if held == group:
                    weights[index, entry] = coefficient
        return weights


def _collected(circuit: TreeCircuit, places: dict[tuple[int, float], int], graph: _Graph) -> list[_Vector]:
    """Each output's coefficients; every height of nodes becomes one product of two values."""
    outputs = circuit.forest.outputs
    heights = [_heights(tree) for tree in circuit.forest.trees]
    shares = [_shares(tree) for tree in circuit.forest.trees]
    known: dict[tuple[int, int, int], _Vector] = {}  # by tree, node, output
    for height in range(circuit.forest.depth + 1):
        signs: list[_Vector] = []
        differences: list[_Vector] = []
        group = len(graph.groups)
        for number, tree in enumerate(circuit.forest.trees):
            for node in np.flatnonzero(heights[number] == height).tolist():
                for output in range(outputs):
                    key = number, node, output
                    if height == 0:
                        known[key] = {(0, 0): float(tree.value[node, output]) * shares[number][node]}
                        continue
                    left, right = (known[number, int(child[node]), output] for child in (tree.left, tree.right))
                    total, difference = _combined(left, right, 1.0), _combined(left, right, -1.0)
                    sign = 1, places[int(tree.feature[node]), float(tree.threshold[node])]
                    if set(difference) <= {(0, 0)}:
                        total[sign] = total.get(sign, 0.0) + difference.get((0, 0), 0.0)
                    else:
                        total[group, len(signs)] = 1.0
                        signs.append({sign: 1.0})
                        differences.append(difference)
                    known[key] = total
        if signs:
            factors = (
                graph.append_sum(signs, name=f"decisions {height}"),
                graph.append_sum(differences, name=f"subtrees {height}"),
            )
            graph.nodes.append(Node(layer=Multiply(), inputs=factors, name=f"nodes {height}"))
            graph.groups.append(len(signs))
            graph.values.append(len(graph.nodes))
    base = circuit.forest.base
    totals: list[_Vector] = [{(0, 0): float(base[output])} for output in range(outputs)]
    for number in range(len(circuit.forest.trees)):
        totals = [_combined(total, known[number, 0, output], 1.0) for output, total in enumerate(totals)]
    return totals


def _combined(left: _Vector, right: _Vector, factor: float) -> _Vector:
    total = dict(left)
    for key, coefficient in right.items():
        total[key] = total.get(key, 0.0) + factor * coefficient
    return {key: coefficient for key, coefficient in total.items() if coefficient}


def _heights(tree: Tree) -> ndarray:
    """Decisions on the longest way from each node to a leaf."""
    heights = np.zeros(tree.feature.size, dtype=np.int64)
    for node in np.flatnonzero(tree.feature != LEAF)[::-1]:
        heights[node] = 1 + max(heights[tree.left[node]], heights[tree.right[node]])
    return heights


def _shares(tree: Tree) -> Float64[ndarray, "nodes"]:
    """One, halved for every decision above."""
    shares = np.ones(tree.feature.size)
    for node in np.flatnonzero(tree.feature != LEAF):
        shares[[tree.left[node], tree.right[node]]] = shares[node] / 2.0
    return shares
