import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counts import counts
from mibao.errors import InputError
from mibao.he.approximation import approximate
from mibao.he.network import Activation, Dense, Function, Network, Node, Polynomial, Square
from mibao.he.reference import evaluate, values


def _network(function=Function.RELU, *, seed=0, square=False):
    rng = np.random.default_rng(seed)
    layers = [
        Dense(weights=rng.normal(size=(6, 4)), bias=rng.normal(size=6)),
        Square() if square else Activation(function=function),
        Dense(weights=rng.normal(size=(5, 6)), bias=rng.normal(size=5)),
        Activation(function=function),
        Dense(weights=rng.normal(size=(3, 5)), bias=rng.normal(size=3)),
    ]
    nodes = tuple(
        Node(layer=layer, inputs=(index,), name=f"{type(layer).__name__} {index}") for index, layer in enumerate(layers)
    )
    return Network(low=np.full(4, -2.0), high=np.full(4, 2.0), nodes=nodes)


def _records(rows=300, seed=1):
    return np.random.default_rng(seed).uniform(-2.0, 2.0, size=(rows, 4))


@settings(max_examples=counts(short=6, long=200), deadline=None)
@given(function=st.sampled_from(list(Function)), seed=st.integers(0, 10_000), margin=st.sampled_from([0.0, 0.1, 0.5]))
def test_values_of_the_calibration_stay_within_their_ranges_and_answers_within_the_stated_error(function, seed, margin):
    network = _network(function, seed=seed)
    made = approximate(network, _records(seed=seed), margin=margin)
    assert not any(isinstance(node.layer, Activation) for node in made.network.nodes)
    for value, (low, high) in zip(values(made.network, _records(seed=seed)), made.network.ranges, strict=True):
        assert low <= value.min() and value.max() <= high
    change = np.abs(evaluate(made.network, _records(seed=seed)) - evaluate(network, _records(seed=seed)))
    assert change.max() == made.answer_error
    for node in made.network.nodes:
        if isinstance(node.layer, Polynomial):
            assert (node.layer.low, node.layer.high) == made.network.ranges[node.inputs[0]]


def test_the_first_degree_that_keeps_the_tolerance_is_taken():
    network, records = _network(Function.SILU), _records()
    wide = approximate(network, records, margin=0.1, tolerance=0.5)
    narrow = approximate(network, records, margin=0.1, tolerance=1e-2)
    unreachable = approximate(_network(Function.RELU), records, margin=0.1, tolerance=1e-9)
    degrees = [len(made.network.nodes[1].layer.coefficients) - 1 for made in (wide, narrow, unreachable)]
    assert degrees == [3, 15, 31]
    spread = np.ptp(evaluate(network, records))
    assert wide.answer_error <= 0.5 * spread and narrow.answer_error <= 1e-2 * spread


def test_a_wanted_degree_is_taken_and_explained():
    made = approximate(_network(), _records(), margin=0.1, degree=5)
    lines = made.explain()
    assert len(lines) == 3
    assert lines[0].startswith("Activation 1: degree 5 on [") and "off by at most" in lines[0]
    assert lines[2].startswith("all activations, on the calibration records: answers change by at most")


def test_without_activations_nothing_changes_but_the_ranges():
    nodes = _network(square=True).nodes[:3]
    network = Network(low=np.full(4, -2.0), high=np.full(4, 2.0), nodes=nodes)
    made = approximate(network, _records(), margin=0.1)
    assert made.network.nodes[1].layer == Square()
    assert (made.answer_error, made.agreement, made.explain()) == (0.0, 1.0, [])
    low, high = made.network.ranges[1]
    assert made.network.ranges[0] == (-2.0, 2.0)
    assert made.network.ranges[2][0] == pytest.approx(0.0, abs=1e-4)
    assert made.network.ranges[2][1] == pytest.approx(max(low * low, high * high))


@pytest.mark.parametrize("tolerance", [0.0, -1.0, float("nan")])
def test_a_tolerance_that_is_none_is_refused(tolerance):
    with pytest.raises(InputError, match="expected a positive tolerance"):
        approximate(_network(), _records(), margin=0.1, tolerance=tolerance)


def test_a_model_whose_answers_overflow_is_refused():
    nodes = (Node(layer=Square(), inputs=(0,)), Node(layer=Square(), inputs=(1,)))
    network = Network(low=np.zeros(1), high=np.full(1, 1e200), nodes=nodes)
    with (
        pytest.raises(InputError, match="answers to the calibration records are not finite"),
        np.errstate(over="ignore"),
    ):
        approximate(network, np.array([[0.0], [1e200]]), margin=0.1)
