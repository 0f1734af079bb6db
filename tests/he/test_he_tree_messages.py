"""A forest asked by bytes: probabilities like the model's, and every message bound to its circuit and key."""

import pickle

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.tree import DecisionTreeClassifier

from he_cases import DATA, ROLES, reframed
from mibao.errors import InputError, IntegrityError, KeyMismatch
from mibao.he.envelope import Kind
from mibao.he.forest_circuit import ForestCircuit, server_of
from mibao.he.forest_spec import forest_spec
from mibao.he.forests import LEAF, Forest, Tree
from mibao.he.network import Head
from mibao.he.sign import compose_sign
from mibao.he.tree_messages import TreeClient
from mibao.he.trees import TreeCircuit, _parameters, fit_scale
from mibao.types import RandomId

ID, OTHER_ID = RandomId(bytes(16)), RandomId(bytes([1]) * 16)
RECORDS, LABELS = load_breast_cancer(return_X_y=True)
RECORDS = RECORDS[:, [7, 27]]


def stump_circuit():
    fitted = DecisionTreeClassifier(max_depth=1, random_state=0).fit(RECORDS, LABELS).tree_
    inner = fitted.children_left >= 0
    tree = Tree(
        feature=np.where(inner, fitted.feature, LEAF).astype(np.int64),
        threshold=np.where(inner, fitted.threshold, 0.0),
        left=np.where(inner, fitted.children_left, 0).astype(np.int64),
        right=np.where(inner, fitted.children_right, 0).astype(np.int64),
        value=np.where(inner[:, None], 0.0, fitted.value[:, 0, 1:] * 4 - 2),
    )
    low, high = RECORDS.min(axis=0), RECORDS.max(axis=0)
    forest = Forest(low=low, high=high, trees=(tree,), base=np.zeros(1), head=Head.BINARY, classes=(0, 1))
    sign = compose_sign(separation=2.0**-4, max_error=0.05)
    return TreeCircuit(
        forest=forest,
        scale=fit_scale(RECORDS, rounds=True),
        sign=sign,
        parameters=_parameters(sign.depth + 1),
        agreement=1.0,
        ambiguous_share=0.0,
    )


def compiled(circuit_id=ID):
    trees = stump_circuit()
    return ForestCircuit(spec=forest_spec(trees, circuit_id=circuit_id, roles=ROLES[DATA]), trees=trees)


@pytest.fixture(scope="module")
def asked():
    """The circuit, a client, its host, a request and its answer."""
    circuit = compiled()
    client, server = circuit.keygen()
    sent = client.encrypt(RECORDS)
    return circuit, client, server, sent, server.evaluate(sent)


def test_probabilities_are_those_of_the_trees_polynomials(asked):
    circuit, client, _, _, answer = asked
    probabilities = client.decrypt(answer)
    expected = 1 / (1 + np.exp(-circuit.trees.evaluate_in_clear(RECORDS)[:, 0]))
    assert probabilities.shape == (len(RECORDS), 2)
    assert np.max(np.abs(probabilities[:, 1] - expected)) < 1e-3
    assert np.max(np.abs(probabilities.sum(axis=1) - 1)) < 1e-12


def test_the_same_rows_encrypt_differently_twice(asked):
    _, client, _, sent, _ = asked
    assert client.encrypt(RECORDS) != sent


def test_another_key_s_client_refuses_the_answer_and_its_host_the_request(asked):
    circuit, _, _, sent, answer = asked
    other, elsewhere = circuit.keygen()
    with pytest.raises(KeyMismatch, match="answer: made under another key"):
        other.decrypt(answer)
    with pytest.raises(KeyMismatch, match="request: made under another key"):
        elsewhere.evaluate(sent)


def test_keys_and_requests_of_another_circuit_are_refused(asked):
    _, client, _, _, _ = asked
    with pytest.raises(KeyMismatch, match="server keys: made for another circuit"):
        server_of(bundle=compiled(OTHER_ID).to_bytes(), keys=client.server_keys())


def test_altered_messages_are_refused(asked):
    _, client, server, sent, answer = asked
    for call, data in ((server.evaluate, sent), (client.decrypt, answer)):
        for at in (30, len(data) // 2, len(data) - 1):
            changed = bytearray(data)
            changed[at] ^= 1
            with pytest.raises(IntegrityError):
                call(bytes(changed))


@pytest.mark.parametrize("rows", [8193, 1 << 20])
def test_rows_that_do_not_match_the_ciphertexts_are_refused(asked, rows):
    _, client, server, sent, answer = asked
    with pytest.raises(IntegrityError, match="request: its size does not match its rows"):
        server.evaluate(reframed(sent, Kind.REQUEST, header=lambda held: {**held, "rows": rows}))
    with pytest.raises(IntegrityError, match="answer: its size does not match its rows"):
        client.decrypt(reframed(answer, Kind.ANSWER, header=lambda held: {**held, "rows": rows}))


def test_records_that_do_not_suit_are_refused(asked):
    _, client, _, _, _ = asked
    with pytest.raises(InputError, match="records: expected 1 to 1048576 rows, got 0"):
        client.encrypt(np.zeros((0, 2)))
    with pytest.raises(InputError, match="trees: expected finite records of 2 features"):
        client.encrypt(np.zeros((2, 3)))


def test_a_client_is_neither_shown_nor_pickled(asked):
    _, client, _, _, _ = asked
    assert repr(client) == "TreeClient(opaque)"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(client)


def test_a_client_survives_its_secret_bytes(asked):
    _, client, server, _, answer = asked
    again = TreeClient.from_secret_bytes(client.reveal_secret_bytes())
    assert again.key_id == client.key_id
    assert np.array_equal(again.decrypt(answer), client.decrypt(answer))
    assert np.max(np.abs(again.decrypt(server.evaluate(again.encrypt(RECORDS))) - client.decrypt(answer))) < 1e-3


def test_the_public_circuit_and_the_client_s_key_hold_nothing_of_the_trees(asked):
    circuit, client, _, _, _ = asked
    shown = circuit.public().to_bytes()
    for threshold in circuit.trees.forest.trees[0].threshold[:1]:
        for held in (shown, client.reveal_secret_bytes(), client.server_keys()):
            assert np.float64(threshold).tobytes() not in held and np.float32(threshold).tobytes() not in held
    assert np.float64(circuit.trees.forest.trees[0].threshold[0]).tobytes() in circuit.to_bytes()
    with pytest.raises(InputError, match="a server takes the trees, and this is the circuit without them"):
        circuit.public().keygen()
