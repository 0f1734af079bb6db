"""The proven bound of compiled programs lies over what their answers are off by, in every mode and layout."""

from itertools import pairwise

import numpy as np
import pytest
import seal

from counts import counts
from he_cases import BOTH, DATA, ROLES, WEIGHTS
from mibao import he
from mibao.errors import InputError
from mibao.he.circuit import compile_circuit
from mibao.he.network import Dense, Network, Node, Square
from mibao.he.noise_bound import NoiseRules, secret_norm_limit
from mibao.he.program_noise import program_noise
from mibao.he.reference import evaluate
from mibao.he.release import ReleasePolicy, Releasing, decrypt_for_release
from mibao.he.scheduling import schedule


def network(rng):
    nodes, widths = [], (4, 3, 2)
    for inputs, outputs in pairwise(widths):
        if nodes:
            nodes.append(Node(layer=Square(), inputs=(len(nodes),)))
        weights, bias = rng.normal(size=(outputs, inputs)) / inputs, rng.normal(size=outputs)
        nodes.append(Node(layer=Dense(weights=weights, bias=bias), inputs=(len(nodes),)))
    ranges = ((-1.0, 1.0),) + ((-9.0, 9.0),) * len(nodes)
    low = np.full(widths[0], -1.0)
    return Network(low=low, high=-low, nodes=tuple(nodes), ranges=ranges)


HELD = {}


def compiled(model, mode, rows):
    """Compiled once for each mode and number of rows, from which the model follows."""
    if (mode, rows) not in HELD:
        HELD[mode, rows] = compile_circuit(model, mode=mode, roles=ROLES[mode], rows=rows, max_error=0.05)
    return HELD[mode, rows]


def bound_of(circuit, mode):
    spec = circuit.spec
    parameters = spec.parameters
    primes = parameters.primes()
    created = seal.CoeffModulus.Create(parameters.ring_degree, list(parameters.modulus_bits))
    special = created[-1].value() if len(parameters.modulus_bits) > 1 else None
    rules = NoiseRules(
        degree=parameters.ring_degree,
        primes=primes,
        special_prime=special,
        secret_norm=secret_norm_limit(parameters.ring_degree),
    )
    held = schedule(spec, circuit.program)
    bounds = np.ones(circuit.program.request.count)
    return program_noise(circuit.program, held, rules, mode=mode, input_bound=bounds), rules


@pytest.mark.parametrize("mode", [DATA, WEIGHTS, BOTH], ids=lambda mode: mode.value)
@pytest.mark.parametrize("rows", [1, 4096][: counts(short=1, long=2)])
def test_answers_lie_within_the_bound(mode, rows):
    rng = np.random.default_rng(rows)
    model = network(rng)
    circuit = compiled(model, mode, rows)
    client, server = circuit.keygen()
    records = rng.uniform(-1, 1, (20, 4))
    sent = client.encrypt(records) if mode is not WEIGHTS else he.request_in_clear(circuit.spec, records)
    errors = np.abs(client.decrypt_logits(server.evaluate(sent)) - evaluate(model, records))
    known, _ = bound_of(circuit, mode)
    assert known.scale == pytest.approx(circuit.spec.answer_scale, rel=1e-9)
    assert np.max(errors) <= known.slot_error
    assert np.all(np.abs(evaluate(model, records)) <= known.message)


def test_records_in_clear_so_small_that_a_rounding_step_is_added_lie_within_the_bound():
    model = network(np.random.default_rng(1))
    circuit = compiled(model, WEIGHTS, 1)
    client, server = circuit.keygen()
    records = np.array([[0.0] * 4, [1e-12] * 4])
    answer = server.evaluate(he.request_in_clear(circuit.spec, records))
    known, _ = bound_of(circuit, WEIGHTS)
    assert np.max(np.abs(client.decrypt_logits(answer) - evaluate(model, records))) <= known.slot_error


class Counting:
    def take(self, **_):
        return None


def test_noise_that_the_unflooded_parameters_leave_no_room_for_is_refused():
    circuit = compiled(network(np.random.default_rng(1)), DATA, 1)
    client, _ = circuit.keygen()
    known, _ = bound_of(circuit, DATA)
    policy = ReleasePolicy(answers_limit=10, statistical_bits=40, known=known)
    releasing = Releasing(engine=client._engine, secret=client._secret, policy=policy, count=Counting())
    with pytest.raises(InputError, match="compile for release with a larger ring"):
        decrypt_for_release([], releasing)
