import json

import numpy as np
import pytest
import torch
from safetensors.numpy import save
from torch import nn

from mibao.errors import InputError
from mibao.he.model_config import network_of_files
from mibao.he.network import Head
from mibao.he.reference import evaluate, finish

IMAGES = np.random.default_rng(0).normal(size=(9, 1, 8, 8))
FLAT = IMAGES.reshape(9, 64)


def _config(layers, **fields):
    return json.dumps(
        {"format": "mibao-network", "version": 1, "input_shape": [1, 8, 8], "layers": layers, **fields}
    ).encode()


def _network(tensors, config):
    held = {name: np.asarray(tensor) for name, tensor in tensors.items()}
    return network_of_files(save(held), config, low=np.full(64, -9.0), high=np.full(64, 9.0))


CNN = [
    {"type": "convolution", "tensor": "0", "stride": 2, "padding": [1, 1], "name": "first"},
    {"type": "batch_norm", "tensor": "1"},
    {"type": "activation", "function": "silu"},
    {"type": "convolution", "tensor": "3", "padding": 1},
    {"type": "average_pool", "window": 2},
    {"type": "flatten"},
    {"type": "dense", "tensor": "6"},
]


def test_a_state_dict_and_its_config_give_the_modules_answers():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, stride=2, padding=1), nn.BatchNorm2d(3), nn.SiLU(),
        nn.Conv2d(3, 2, 3, padding=1, bias=False), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8, 4), nn.Softmax(1),
    ).double()  # fmt: skip
    model(torch.from_numpy(IMAGES))
    network = _network(model.state_dict(), _config(CNN, head="softmax", classes=["a", "b", "c", "d"]))
    answers = finish(evaluate(network, FLAT), head=network.head, flat=network.flat)
    with torch.no_grad():
        assert np.allclose(answers, model.eval()(torch.from_numpy(IMAGES)).numpy())
    assert (network.head, network.classes, network.input_shape) == (Head.SOFTMAX, ("a", "b", "c", "d"), (1, 8, 8))
    assert network.nodes[0].name == "first" and network.nodes[1].name == "1 (batch_norm)"


def test_earlier_values_are_named_and_added_and_multiplied():
    layers = [
        {"type": "scale", "tensor": "s", "name": "scaled"},
        {"type": "square", "name": "squared"},
        {"type": "add", "inputs": ["scaled", "squared"], "name": "sum"},
        {"type": "multiply", "inputs": ["sum", "input"], "name": "product"},
        {"type": "polynomial", "tensor": "p", "low": -5, "high": 5.0, "basis": "power"},
        {"type": "flatten", "inputs": ["product"]},
        {"type": "dense", "tensor": "d"},
    ]
    factor, weights = np.random.default_rng(1).normal(size=(1, 64)), np.random.default_rng(2).normal(size=(2, 64))
    tensors = {"s.weight": factor[0], "p.weight": np.array([0.0, 1.0, 2.0]), "d.weight": weights}
    network = _network(tensors, _config(layers))
    scaled = FLAT * factor
    assert np.allclose(evaluate(network, FLAT), ((scaled + scaled**2) * FLAT) @ weights.T)


def test_half_precision_is_read_and_counters_are_passed_over():
    tensors = {"0.weight": np.ones((2, 64), dtype=np.float16), "0.num_batches_tracked": np.array(3)}
    layers = [{"type": "flatten"}, {"type": "dense", "tensor": "0"}]
    assert np.allclose(evaluate(_network(tensors, _config(layers)), FLAT)[:, 0], FLAT.sum(axis=1))


DENSE = {"type": "dense", "tensor": "0"}
TENSORS = {"0.weight": np.ones((2, 64))}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (b"{", "expected a JSON file"),
        (b"[" * 100_000, "expected a JSON file"),
        (b"[]", 'expected an object with "format": "mibao-network"'),
        (b'{"format": "onnx"}', 'expected an object with "format": "mibao-network"'),
        (_config([]).replace(b'"version": 1', b'"version": 2'), "expected version 1, got 2"),
        (_config([], colour="red"), "expected the fields classes, format"),
        (_config({}), "expected the fields"),
        (_config([], input_shape=[8, 8]), r"expected input_shape as \[features\] or \[channels, height, width\]"),
        (_config([], input_shape=[32]), r"records of shape \(32,\), and the calibration has 64 features"),
        (_config([DENSE], input_shape=[64], head="tanh"), "expected head as one of identity, sigmoid"),
        (
            _config([DENSE], input_shape=[64], classes=[1, "b"]),
            "expected classes as a list of text or of whole numbers",
        ),
        (_config([DENSE], input_shape=[64], classes=["a"]), "expected 2 classes, got 1"),
        (_config([{"type": "flatten"}]), "no layer uses the tensors 0.weight"),
        (_config([3]), "layer 0: expected an object"),
        (_config([{"type": "maxpool"}]), "layer 0: expected type as one of dense, convolution.*, got 'maxpool'"),
        (_config([{**DENSE, "units": 2}]), "layer 0: unknown fields units"),
        (_config([{"type": "dense"}]), "layer 0: expected tensor as text"),
        (_config([{"type": "dense", "tensor": "1"}]), r"layer 0: the weights hold no tensor 1.weight"),
        (_config([{"type": "convolution", "tensor": "0"}]), r"layer 0: tensor 0.weight has the shape \(2, 64\)"),
        (_config([{"type": "average_pool", "window": 0}]), "layer 0: expected window as a whole number of at least 1"),
        (_config([{"type": "average_pool", "window": 9}]), "layer 0: its window is larger than the image"),
        (_config([{"type": "flatten"}, {"type": "average_pool", "window": 2}]), "layer 1: expected an image"),
        (_config([{"type": "activation", "function": "exp"}]), "layer 0: expected function as one of relu, gelu"),
        (_config([{"type": "add", "inputs": ["input", "later"]}]), "expected inputs as the names of 2 earlier layers"),
        (_config([{"type": "add"}]), "layer 0: expected inputs as the names of 2 earlier layers"),
        (_config([{"type": "square", "name": "input"}]), "layer 0: the name 'input' stands twice"),
        (_config([{"type": "square"}, {**DENSE, "tensor": "0"}, {**DENSE}]), "expected values of width 64, got"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_by_the_place_of_its_fault(config, message):
    with pytest.raises(InputError, match=message):
        _network(TENSORS, config)


@pytest.mark.parametrize(
    "parameters", [{"low": 2, "high": 1}, {"low": 0, "high": "1"}, {"low": float("inf"), "high": 1}]
)
def test_a_polynomial_without_an_interval_is_refused(parameters):
    with pytest.raises(InputError, match="layer 0: expected"):
        _network({"0.weight": np.ones(3)}, _config([{"type": "polynomial", "tensor": "0", **parameters}]))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (b"", "expected a safetensors file"),
        (b"\x80\x04pickled", "expected a safetensors file"),
        (save({"0.weight": np.full((2, 64), np.nan)}), "expected finite numbers in 0.weight"),
        (save({"0.weight": np.ones((2, 64), dtype=bool)}), "expected finite numbers in 0.weight"),
    ],
)
def test_weights_that_are_none_are_refused(tensors, message):
    with pytest.raises(InputError, match=message):
        network_of_files(tensors, _config([DENSE], input_shape=[64]), low=np.zeros(64), high=np.ones(64))
