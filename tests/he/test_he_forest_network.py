"""A forest in the compiler's terms: the same numbers as the trees' own evaluation."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from counts import counts
from mibao.he.forest_network import forest_network
from mibao.he.forests import LEAF, Forest, Tree
from mibao.he.network import Head, Multiply
from mibao.he.parameters import Parameters
from mibao.he.reference import evaluate
from mibao.he.sign import compose_sign
from mibao.he.trees import TreeCircuit, fit_scale

PARAMETERS = Parameters(ring_degree=32768, modulus_bits=(60, 40, 60), scale_bits=40)
SIGN = compose_sign(separation=2.0**-4, max_error=0.02)


def random_tree(rng, *, depth, outputs):
    nodes = []

    def grow(left_depth):
        index = len(nodes)
        nodes.append([LEAF, 0.0, 0, 0, rng.normal(size=outputs)])
        if left_depth and (index == 0 or rng.random() < 0.8):
            nodes[index] = [int(rng.integers(3)), float(rng.choice([-0.5, 0.1, 0.7])), 0, 0, np.zeros(outputs)]
            nodes[index][2], nodes[index][3] = grow(left_depth - 1), grow(left_depth - 1)
        return index

    grow(depth)
    feature, threshold, left, right, value = (np.array(column) for column in zip(*nodes, strict=True))
    return Tree(feature=feature, threshold=threshold, left=left, right=right, value=value)


def circuit_of(trees, base):
    records = np.random.default_rng(0).uniform(-1, 1, (100, 3))
    forest = Forest(
        low=np.full(3, -1.0), high=np.ones(3), trees=tuple(trees), base=base, head=Head.SOFTMAX, classes=("a", "b")
    )
    return records, TreeCircuit(
        forest=forest,
        scale=fit_scale(records, rounds=True),
        sign=SIGN,
        parameters=PARAMETERS,
        agreement=1.0,
        ambiguous_share=0.0,
    )


@settings(max_examples=counts(short=30, long=500), deadline=None)
@given(
    depths=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    outputs=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_network_computes_what_the_trees_compute(depths, outputs, seed):
    rng = np.random.default_rng(seed)
    trees = [random_tree(rng, depth=depth, outputs=outputs) for depth in depths]
    records, circuit = circuit_of(trees, rng.normal(size=outputs))
    network = forest_network(circuit)
    scores = evaluate(network, -circuit.scale.apply(records))
    assert np.max(np.abs(scores - circuit.evaluate_in_clear(records))) < 1e-9


def test_nodes_of_one_height_are_multiplied_together():
    trees = [random_tree(np.random.default_rng(seed), depth=3, outputs=1) for seed in range(5)]
    _, circuit = circuit_of(trees, np.zeros(1))
    network = forest_network(circuit)
    assert sum(isinstance(node.layer, Multiply) for node in network.nodes) <= 2
    assert (network.head, network.classes, network.features) == (Head.SOFTMAX, ("a", "b"), 3)


def test_trees_that_no_feature_decides_still_have_an_answer():
    same = Tree(
        feature=np.array([0, LEAF, LEAF]),
        threshold=np.zeros(3),
        left=np.array([1, 0, 0]),
        right=np.array([2, 0, 0]),
        value=np.array([[0.0], [2.0], [2.0]]),
    )
    records, circuit = circuit_of([same], np.ones(1))
    scores = evaluate(forest_network(circuit), -circuit.scale.apply(records))
    assert np.allclose(scores, 3.0)
