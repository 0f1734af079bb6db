"""Decision trees and their sums as plain arrays, and their reference evaluation in clear."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, Real
from numpy import ndarray

from mibao.errors import InputError
from mibao.he.network import Head

LEAF = -1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tree:
    """One tree; node 0 is its root, and children stand behind their parents.

    Attributes:
        feature: Which feature an inner node compares; ``LEAF`` at a leaf.
        threshold: A record goes left where its feature is at most this.
        left: The child for those; 0 at a leaf.
        right: The child for the others; 0 at a leaf.
        value: What a leaf adds to each answer; zeros at inner nodes.
    """

    feature: Int64[ndarray, "nodes"]
    threshold: Float64[ndarray, "nodes"]
    left: Int64[ndarray, "nodes"]
    right: Int64[ndarray, "nodes"]
    value: Float64[ndarray, "nodes outputs"]

    def __post_init__(self) -> None:
        """Refuse what is no tree. Raises ``InputError``."""
        inner = np.flatnonzero(self.feature != LEAF)
        children = np.concatenate([self.left[inner], self.right[inner]])
        behind = np.all(self.left[inner] > inner) and np.all(self.right[inner] > inner)
        if not (behind and np.array_equal(np.sort(children), np.arange(1, len(self.feature)))):
            raise InputError("tree: expected each node but the root to be the child of one node before it")
        if not (np.all(np.isfinite(self.threshold)) and np.all(np.isfinite(self.value))):
            raise InputError("tree: expected finite thresholds and values")

    @property
    def depth(self) -> int:
        """Comparisons on the longest way to a leaf."""
        depths = np.zeros(len(self.feature), dtype=np.int64)
        for node in np.flatnonzero(self.feature != LEAF):
            depths[[self.left[node], self.right[node]]] = depths[node] + 1
        return int(depths.max())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Forest:
    """A sum of trees: what each answer starts from, the trees, and what the client does with answers.

    Attributes:
        low: Smallest value of each feature that a client may send.
        high: Largest.
        base: What each answer starts from.
        head: Applied by the client after decryption.
        flat: Whether answers of one column come back as a vector, as a regressor's do.
        classes: Labels in the order of the answers' columns (two for :attr:`~mibao.he.network.Head.BINARY`), or none.
        rounds: Whether the model rounds records to float32 before it compares, as most libraries do.
    """

    low: Float64[ndarray, "features"]
    high: Float64[ndarray, "features"]
    trees: tuple[Tree, ...]
    base: Float64[ndarray, "outputs"]
    head: Head = Head.IDENTITY
    flat: bool = False
    classes: tuple[str, ...] | tuple[int, ...] = ()
    rounds: bool = True

    def __post_init__(self) -> None:
        """Refuse trees that do not fit. Raises ``InputError``."""
        if self.low.shape != self.high.shape or not np.all(self.low <= self.high):
            raise InputError("forest: expected one lower and upper bound a feature, the lower ones at most the upper")
        for index, tree in enumerate(self.trees):
            if tree.value.shape[1] != self.outputs or not np.all(tree.feature < self.features):
                raise InputError(f"tree {index}: expected {self.features} features and {self.outputs} outputs")
        if not self.trees:
            raise InputError("forest: expected at least one tree")

    @property
    def features(self) -> int:
        """Width of a record."""
        return int(self.low.shape[0])

    @property
    def outputs(self) -> int:
        """Width of an answer, before the head."""
        return int(self.base.shape[0])

    @property
    def depth(self) -> int:
        """Comparisons on the longest way of any tree."""
        return max(tree.depth for tree in self.trees)


def evaluate_forest(forest: Forest, records: Real[ndarray, "rows features"]) -> Float64[ndarray, "rows outputs"]:
    """The answers before the head."""
    held = np.asarray(records, dtype=np.float32 if forest.rounds else np.float64)
    rows = np.arange(len(held))
    total = np.tile(forest.base, (len(held), 1))
    for tree in forest.trees:
        node = np.zeros(len(held), dtype=np.int64)
        for _ in range(tree.depth):
            inner = tree.feature[node] != LEAF
            goes_left = held[rows, np.maximum(tree.feature[node], 0)] <= tree.threshold[node]
            node = np.where(inner, np.where(goes_left, tree.left[node], tree.right[node]), node)
        total += tree.value[node]
    return total
