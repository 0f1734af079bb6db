"""Trees through the same doors as networks: compiled, written and read, asked by a predictor."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.tree import DecisionTreeRegressor

from counts import counts
from he_cases import BOTH, DATA, ROLES, WEIGHTS
from mibao import he
from mibao.errors import InputError, IntegrityError
from mibao.he import envelope, files
from mibao.he.envelope import Envelope, Kind
from mibao.he.sandbox import SandboxedServer
from mibao.he.trees import TreeCircuit
from mibao.types import RandomId

FRAME = load_breast_cancer(as_frame=True)
RECORDS = FRAME.data[["mean concave points", "worst area"]]
KINDS = np.array(["malignant", "benign"])[FRAME.target]


def compiled(model, **options):
    return he.compile(
        model, calibration=RECORDS, roles=ROLES[DATA], agreement=0.9, circuit_id=RandomId(bytes(16)), **options
    )


@pytest.fixture(scope="module")
def stumps():
    """A boosted model of two stumps with its circuit."""
    model = GradientBoostingClassifier(n_estimators=2, max_depth=1, random_state=0).fit(RECORDS, KINDS)
    return model, compiled(model)


def test_a_predictor_answers_like_the_model_with_its_labels_and_columns(stumps):
    model, circuit = stumps
    client, server = circuit.keygen()
    asked = he.Predictor(client, server.evaluate, columns=tuple(RECORDS.columns))
    near = circuit.trees.ambiguous(RECORDS.to_numpy())
    assert np.array_equal(asked.predict(RECORDS)[~near], model.predict(RECORDS)[~near])
    assert np.max(np.abs(asked.predict_proba(RECORDS) - model.predict_proba(RECORDS))[~near]) < 0.02
    assert list(asked.classes_) == list(model.classes_)
    assert asked.score(RECORDS, KINDS) == pytest.approx(model.score(RECORDS, KINDS), abs=0.1)
    with pytest.raises(InputError, match="column 0 is 'worst area', and the model expects 'mean concave points'"):
        asked.predict(RECORDS[RECORDS.columns[::-1]])


@pytest.mark.parametrize(
    "model",
    [
        RandomForestClassifier(n_estimators=2, max_depth=2, random_state=0),
        DecisionTreeRegressor(max_depth=2, random_state=0),
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_circuit_survives_its_bytes(model):
    target = KINDS if hasattr(model, "classes_") or "Classifier" in type(model).__name__ else FRAME.target.astype(float)
    circuit = compiled(model.fit(RECORDS, target))
    again = he.ForestCircuit.from_bytes(circuit.to_bytes())
    assert again.to_bytes() == circuit.to_bytes()
    assert again.public().to_bytes() == circuit.public().to_bytes()
    assert np.array_equal(again.trees.evaluate_in_clear(RECORDS.to_numpy()), _clear(circuit))
    assert again.explain() == circuit.explain()
    assert any("trees of depth 2" in line for line in circuit.explain())
    assert not any("trees of depth 2" in line for line in circuit.public().explain())


def _clear(circuit):
    return circuit.trees.evaluate_in_clear(RECORDS.to_numpy())


def test_a_host_with_only_its_files_answers_in_a_worker(stumps, tmp_path):
    _, circuit = stumps
    client = circuit.generate_client()
    files.write_circuit(tmp_path / "bundle", circuit)
    files.write_client_key(tmp_path / "client.key", client)
    files.write_bytes(tmp_path / "server.keys", client.server_keys())
    bundle, keys = (files.read_bytes(tmp_path / name) for name in ("bundle", "server.keys"))
    with SandboxedServer(bundle=bundle, keys=keys) as host:
        answer = host.evaluate(client.encrypt(RECORDS.to_numpy()[:9]))
    scores = files.read_client_key(tmp_path / "client.key").decrypt_logits(answer)
    assert np.max(np.abs(scores - _clear(circuit)[:9])) < 1e-3
    assert isinstance(files.read_circuit(tmp_path / "bundle"), he.ForestCircuit)


@pytest.mark.parametrize("mode", [WEIGHTS, BOTH], ids=lambda mode: mode.value)
def test_trees_are_not_encrypted(mode):
    model = DecisionTreeRegressor(max_depth=1).fit(RECORDS, FRAME.target)
    with pytest.raises(InputError, match=f"trees: expected encrypted-data, got {mode.value}; trees stay in clear"):
        he.compile(model, calibration=RECORDS, roles=ROLES[mode], mode=mode)


# A bundle is read strictly.


def _changed(circuit, **fields):
    opened = envelope.decode(circuit.to_bytes(), Kind.FOREST_BUNDLE)
    trees = {**opened.header["trees"], **fields}
    header = {**opened.header, "trees": trees}
    return envelope.encode(Envelope(kind=Kind.FOREST_BUNDLE, header=header, body=bytes(opened.body)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"nodes": []}, "forest: expected fewer trees, or fewer nodes"),
        ({"nodes": [3, 1 << 20]}, "forest: expected fewer trees, or fewer nodes"),
        ({"nodes": [3, "3"]}, "forest: field nodes is malformed"),
        ({"nodes": [3]}, "forest: its body is longer than its header says"),
        ({"nodes": [3, 5]}, "forest: its body is shorter than its header says"),
        ({"terms": [1]}, "forest: expected fewer trees, or fewer nodes"),
        ({"separation": 0.0}, "a comparison that separates nothing"),
        ({"agreement": 2.0}, "forest: field agreement is malformed"),
        ({"surplus": 1}, "forest: expected the fields nodes"),
    ],
    ids=str,
)
def test_a_bundle_with_one_wrong_field_is_refused(stumps, fields, message):
    with pytest.raises(IntegrityError, match=message):
        he.ForestCircuit.from_bytes(_changed(stumps[1], **fields))


@settings(max_examples=counts(short=40, long=2000), deadline=None)
@given(data=st.data())
def test_a_bundle_whose_numbers_were_changed_is_refused_or_holds_bounded_trees(stumps, data):
    """Under a matching digest, as a hostile sender writes it: what is accepted is a circuit like any other."""
    opened = envelope.decode(stumps[1].to_bytes(), Kind.FOREST_BUNDLE)
    body = bytearray(opened.body)
    start = data.draw(st.sampled_from([0, stumps[1].spec.features * 257 * 8, len(body) - 400]))
    at = data.draw(st.integers(start, len(body) - 8))
    body[at : at + 8] = data.draw(st.binary(min_size=8, max_size=8))
    stored = envelope.encode(Envelope(kind=Kind.FOREST_BUNDLE, header=opened.header, body=bytes(body)))
    try:
        read = he.ForestCircuit.from_bytes(stored)
    except IntegrityError:
        return
    assert isinstance(read.trees, TreeCircuit) and read.trees.forest.depth == 1


def test_a_network_s_reader_refuses_a_forest_and_the_other_way_round(stumps):
    with pytest.raises(InputError, match="wrong kind of file: expected bundle or circuit, got bundle of trees"):
        he.Circuit.from_bytes(stumps[1].to_bytes())
    with pytest.raises(InputError, match="wrong kind of file: expected bundle of trees or circuit of trees"):
        he.ForestCircuit.from_bytes(envelope.encode(Envelope(kind=Kind.CIRCUIT, header={}, body=b"")))
