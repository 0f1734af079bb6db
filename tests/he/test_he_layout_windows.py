"""Convolutions by windows: what the network computes in clear, whatever its strides, channels and rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counts import counts
from he_cases import DATA, ROLES
from mibao import he
from mibao.he import layout_windows
from mibao.he.layout_windows import Plan, lower, plans
from mibao.he.lowering import Builder, Infeasible
from mibao.he.network import Basis, Convolution, Dense, Image, Network, Node, Polynomial, Square
from mibao.he.normalise import normalise
from mibao.he.program import Add, Fold, Multiply, Relinearize, Rescale, Rotate, Scale, Shift, Total, Weigh
from mibao.he.program import Square as Squared
from mibao.he.reference import evaluate

SLOTS = 1024


def network(rng, *, side=6, channels=2, kernel=3, stride=1, padding=0, middle=None):
    image = Image(channels=1, height=side, width=side)
    convolution = Convolution(
        kernel=rng.normal(size=(channels, 1, kernel, kernel)) / kernel,
        bias=rng.normal(size=channels),
        image=image,
        stride=(stride, stride),
        padding=(padding, padding),
    )
    width = convolution.output.size
    layers = [convolution, middle or Square(), Dense(weights=rng.normal(size=(5, width)), bias=rng.normal(size=5))]
    nodes = tuple(Node(layer=layer, inputs=(index,)) for index, layer in enumerate(layers))
    return Network(low=np.full(image.size, -1.0), high=np.full(image.size, 1.0), nodes=nodes)


def in_clear(program, packed):
    """The program on slots in clear: no scale, no noise."""
    registers = [packed]
    for instruction in program.instructions:
        x = registers[instruction.left if isinstance(instruction, Add | Multiply) else instruction.source]
        match instruction:
            case Weigh(weights=weights):
                wide = weights[:, :, None] if weights.ndim == 2 else weights
                x = np.einsum("gks,ks->gs", np.broadcast_to(wide, (*wide.shape[:2], x.shape[1])), x)
            case Scale(values=values):
                x = x * (values[:, None] if values.ndim == 1 else values)
            case Shift(values=values):
                x = x + (values[:, None] if values.ndim == 1 else values)
            case Rotate(steps=steps):
                x = np.stack([np.roll(x[index * len(x) // len(steps)], -step) for index, step in enumerate(steps)])
            case Fold(steps=steps):
                for step in steps:
                    x = x + np.roll(x, -step, axis=1)
            case Total():
                x = x.sum(axis=0, keepdims=True)
            case Squared():
                x = x * x
            case Multiply(right=right):
                x = x * registers[right]
            case Add(right=right):
                x = x + registers[right]
            case Relinearize() | Rescale():
                pass
        registers.append(x)
    return registers[-1]


SHAPES = st.fixed_dictionaries(
    {
        "side": st.integers(4, 8),
        "channels": st.integers(1, 4),
        "kernel": st.integers(2, 4),
        "stride": st.integers(1, 2),
        "padding": st.integers(0, 1),
    }
)


@settings(max_examples=counts(short=25, long=400), deadline=None)
@given(shape=SHAPES, rows=st.sampled_from([1, 2, 8]), seed=st.integers(0, 2**16))
def test_the_program_computes_the_network(shape, rows, seed):
    rng = np.random.default_rng(seed)
    made = network(rng, **shape)
    builder = Builder(slots=SLOTS, weights_encrypted=False)
    program = lower(normalise(made), builder, Plan(rows=rows))
    records = rng.uniform(-1, 1, size=(rows, made.features))
    answers = program.answer.unpack(in_clear(program, program.request.pack(records, slots=SLOTS)), rows)
    assert np.allclose(answers, evaluate(made, records))


def test_a_convolution_takes_one_rotation_a_place_of_its_window_whatever_its_channels():
    made = network(np.random.default_rng(0), side=8, channels=4)
    program = lower(normalise(made), Builder(slots=4096, weights_encrypted=False), Plan(rows=64))
    first = next(step for step in program.instructions if isinstance(step, Rotate))
    weigh = next(step for step in program.instructions if isinstance(step, Weigh))
    assert len(first.steps) == 9 and weigh.weights.shape == (4, 9)


def test_between_outputs_lie_zeros_where_a_polynomial_follows():
    polynomial = Polynomial(coefficients=np.array([0.1, 0.5, 0.2, 0.1]), basis=Basis.CHEBYSHEV, low=-9.0, high=9.0)
    made = network(np.random.default_rng(1), middle=polynomial)
    program = lower(normalise(made), Builder(slots=SLOTS, weights_encrypted=False), Plan(rows=2))
    weigh = next(step for step in program.instructions if isinstance(step, Weigh))
    assert weigh.weights.ndim == 3
    records = np.random.default_rng(2).uniform(-1, 1, size=(2, made.features))
    answers = program.answer.unpack(in_clear(program, program.request.pack(records, slots=SLOTS)), 2)
    assert np.allclose(answers, evaluate(made, records))


@pytest.mark.parametrize("rows", [1, 16])
def test_ciphertexts_agree_with_the_network(rows, monkeypatch):
    monkeypatch.setattr("mibao.he.layout_packed.plans", lambda *_, **__: [])  # leave windows and columns
    made = network(np.random.default_rng(3), side=8)
    circuit = he.compile_circuit(made, mode=DATA, roles=ROLES[DATA], rows=rows, max_error=1e-2)
    assert circuit.spec.request.count == 1
    client, server = circuit.keygen()
    records = np.random.default_rng(4).uniform(-1, 1, size=(rows, made.features))
    answers = client.decrypt(server.evaluate(client.encrypt(records)))
    assert np.max(np.abs(answers - evaluate(made, records))) < 1e-2


def test_networks_without_a_sparse_matrix_and_encrypted_weights_take_other_layouts():
    made = network(np.random.default_rng(5))
    dense = Network(
        low=made.low,
        high=made.high,
        nodes=(Node(layer=Dense(weights=np.ones((2, 36)), bias=np.zeros(2)), inputs=(0,)),),
    )
    assert plans(normalise(dense), slots=SLOTS, rows=8) == []
    assert plans(normalise(made), slots=SLOTS, rows=8)
    with pytest.raises(Infeasible, match="where zeros lie would show"):
        layout_windows.lower(normalise(made), Builder(slots=SLOTS, weights_encrypted=True), Plan(rows=1))
