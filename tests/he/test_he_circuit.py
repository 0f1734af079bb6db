import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counts import counts
from he_cases import BOTH, DATA, ROLES, WEIGHTS, circuit, linear_circuit, network_of, records_of, request, weights_of
from mibao import he
from mibao.errors import InputError, MissingExtra
from mibao.he import engine_seal
from mibao.he.layout_packed import Plan
from mibao.he.lowering import Infeasible
from mibao.he.network import Dense, Square
from mibao.he.reference import evaluate

MODES = [DATA, WEIGHTS, BOTH]


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=counts(short=12, long=300), deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 12), st.integers(1, 3)),
    bound=st.sampled_from([0.5, 1.0, 8.0]),
)
def test_decrypted_logits_stay_within_the_predicted_error_and_name_the_same_class(mode, seed, shape, bound):
    rows, features, outputs = shape
    weights, bias = weights_of(features=features, outputs=outputs, seed=seed)
    compiled = circuit(mode, features=features, outputs=outputs, bound=bound, seed=seed)
    records = records_of(rows=rows, features=features, bound=bound, seed=seed)
    client, server = compiled.keygen()
    logits = client.decrypt(server.evaluate(request(compiled.spec, client, records)))
    plain = records @ weights + bias
    assert logits.shape == plain.shape
    assert np.max(np.abs(logits - plain)) <= compiled.spec.predicted_error <= 1e-3
    if outputs > 1:
        ranked = np.sort(plain, axis=1)
        clear = ranked[:, -1] - ranked[:, -2] > 2 * compiled.spec.predicted_error
        assert np.array_equal(np.argmax(logits, axis=1)[clear], np.argmax(plain, axis=1)[clear])


@pytest.mark.parametrize("mode", MODES)
def test_more_rows_than_slots_take_several_batches(mode):
    compiled = circuit(mode)
    records = records_of(rows=2 * compiled.spec.request.rows + 3)
    weights, bias = weights_of()
    client, server = compiled.keygen()
    logits = client.decrypt(server.evaluate(request(compiled.spec, client, records)))
    assert compiled.spec.batches(len(records)) == 3
    assert np.max(np.abs(logits - (records @ weights + bias))) < 1e-3


@pytest.mark.parametrize("mode", MODES)
def test_zero_weights_and_zero_columns_change_nothing(mode):
    weights, bias = weights_of()
    weights[1] = 0.0
    records = records_of()
    records[:, 2] = 0.0
    compiled = linear_circuit(weights, bias, mode=mode)
    client, server = compiled.keygen()
    logits = client.decrypt(server.evaluate(request(compiled.spec, client, records)))
    assert np.max(np.abs(logits - (records @ weights + bias))) < 1e-3


@pytest.mark.parametrize("mode", MODES)
def test_an_output_without_weights_answers_with_its_bias(mode):
    weights, bias = weights_of()
    weights[:, 1] = 0.0
    compiled = linear_circuit(weights, bias, mode=mode)
    client, server = compiled.keygen()
    records = records_of()
    logits = client.decrypt(server.evaluate(request(compiled.spec, client, records)))
    assert np.max(np.abs(logits - (records @ weights + bias))) < 1e-3


@pytest.mark.parametrize("plan", [Plan(rows=1, spread=False, rows_at=None), Plan(rows=1, spread=True, rows_at=None)])
def test_whole_groups_of_diagonals_without_weights_are_left_out(plan, monkeypatch):
    """A matrix with one diagonal: every other group of diagonals is a sum of nothing, which anyone could read."""
    monkeypatch.setattr("mibao.he.layout_packed.plans", lambda *_, **__: [plan])
    monkeypatch.setattr("mibao.he.layout_columns.lower", _unsuitable)
    rng = np.random.default_rng(0)
    first = Dense(weights=rng.normal(size=(16, 16)) / 4, bias=rng.normal(size=16))
    last = Dense(weights=np.diag(rng.normal(size=16)), bias=rng.normal(size=16))
    network = network_of(first, Square(), last, features=16, bound=1.0)
    compiled = he.compile_circuit(network, mode=DATA, roles=ROLES[DATA], rows=1)
    client, server = compiled.keygen()
    records = records_of(rows=2, features=16, bound=1.0)
    assert np.max(np.abs(client.decrypt(server.evaluate(client.encrypt(records))) - evaluate(network, records))) < 1e-3


def _unsuitable(*_):
    raise Infeasible("left out")


def test_a_matrix_of_zeros_alone_is_answered_by_another_layout():
    last = Dense(weights=np.zeros((2, 4)), bias=np.array([1.0, -1.5]))
    network = network_of(Dense(weights=np.eye(4), bias=np.zeros(4)), Square(), last, features=4, bound=1.0)
    compiled = he.compile_circuit(network, mode=DATA, roles=ROLES[DATA], rows=1)
    client, server = compiled.keygen()
    answers = client.decrypt(server.evaluate(client.encrypt(records_of(rows=2, bound=1.0))))
    assert np.max(np.abs(answers - [1.0, -1.5])) < 1e-3


def test_records_of_zeros_answer_with_the_bias_when_only_weights_are_encrypted():
    compiled = circuit(WEIGHTS)
    client, server = compiled.keygen()
    logits = client.decrypt(server.evaluate(he.request_in_clear(compiled.spec, np.zeros((2, 4)))))
    assert np.max(np.abs(logits - weights_of()[1])) < 1e-3


def test_single_precision_and_integer_records_are_taken():
    compiled = circuit()
    client, server = compiled.keygen()
    records = np.array([[1, -2, 3, 0]])
    exact = client.decrypt(server.evaluate(client.encrypt(records)))
    single = client.decrypt(server.evaluate(client.encrypt(records.astype(np.float32))))
    assert np.max(np.abs(exact - single)) < 2e-3


def test_the_smallest_ring_that_keeps_the_error_is_chosen():
    assert circuit(DATA).spec.parameters.ring_degree == 2048
    assert circuit(DATA, max_error=1e-6).spec.parameters.ring_degree == 4096
    assert circuit(DATA, max_error=1e-9).spec.parameters.ring_degree == 8192


@pytest.mark.parametrize("max_error", [1e-4, 1e-5, 1e-7])
@pytest.mark.parametrize("mode", MODES)
def test_a_tighter_error_is_kept_on_a_larger_ring(mode, max_error):
    compiled = circuit(mode, max_error=max_error)
    weights, bias = weights_of()
    records = records_of(rows=200)
    client, server = compiled.keygen()
    logits = client.decrypt(server.evaluate(request(compiled.spec, client, records)))
    assert np.max(np.abs(logits - (records @ weights + bias))) <= compiled.spec.predicted_error <= max_error


def test_where_weights_are_encrypted_the_parameters_tell_only_the_power_of_two_over_the_largest_logit():
    weights, bias = weights_of()
    specs = []
    for scaled in (weights, weights[::-1] * 0.99):
        specs.append(linear_circuit(scaled, bias * 0, mode=BOTH).spec.to_value())
    assert specs[0] == specs[1]


def test_a_circuit_survives_its_bytes():
    compiled = circuit()
    again = he.Circuit.from_bytes(compiled.to_bytes())
    assert again.spec.to_value() == compiled.spec.to_value()
    assert again.to_bytes() == compiled.to_bytes()


def test_the_public_circuit_is_enough_for_the_data_owner_and_holds_no_weights():
    compiled = circuit()
    public = he.Circuit.from_bytes(compiled.public().to_bytes())
    client = he.generate_client(public.spec)
    server = he.Server.from_bytes(bundle=compiled.to_bytes(), keys=client.server_keys())
    records = records_of()
    weights, bias = weights_of()
    assert np.max(np.abs(client.decrypt(server.evaluate(client.encrypt(records))) - (records @ weights + bias))) < 1e-3
    for value in weights.ravel():
        assert np.float64(value).tobytes() not in public.to_bytes()
    with pytest.raises(InputError, match="circuit without them"):
        public.keygen()


@pytest.mark.parametrize(
    ("weights", "bias", "message"),
    [
        (np.full((4, 1), np.nan), np.ones(1), "layer 1: expected finite numbers"),
        (np.ones((4, 1)), np.array([np.inf]), "layer 1: expected finite numbers"),
        (np.ones((16385, 1)), np.ones(1), "expected layers of width at most 16384, got 16385"),
        (np.full((4, 1), 1e12), np.ones(1), "no parameters keep the error"),
    ],
)
def test_unusable_weights_are_refused(weights, bias, message):
    with pytest.raises(InputError, match=message):
        linear_circuit(weights, bias, bound=1.0)


@pytest.mark.parametrize("bound", [-1.0, float("inf"), float("nan")])
def test_an_input_range_that_is_none_is_refused(bound):
    with pytest.raises(InputError, match="expected finite bounds, the lower ones at most the upper ones"):
        circuit(bound=bound)


def test_a_circuit_draws_its_own_id():
    network = network_of(Dense(weights=np.ones((2, 4)), bias=np.ones(2)))
    ids = {he.compile_circuit(network, mode=DATA, roles=ROLES[DATA]).spec.circuit_id for _ in range(2)}
    assert len(ids) == 2


def test_without_the_library_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "seal", None)
    engine_seal.engine_for.cache_clear()
    with pytest.raises(MissingExtra, match=r"encrypted compute needs the extra 'he': .*pip install '\.\[he\]'"):
        circuit().keygen()
