import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from he_cases import BOTH, DATA, ROLES, WEIGHTS
from mibao import he
from mibao.errors import InputError
from mibao.he.network import Dense, Head, Network, Node, Square

FRAME = load_iris(as_frame=True)
NAMES = tuple(FRAME.data.columns)
KINDS = np.array(["setosa", "versicolor", "virginica"])[FRAME.target]


def _predictor(model, *, mode=DATA, columns=NAMES, rows=150, **options):
    circuit = he.compile(model, calibration=FRAME.data, mode=mode, roles=ROLES[mode], rows=rows, **options)
    client, server = circuit.keygen()
    return he.Predictor(client, server.evaluate, columns=columns)


@pytest.fixture(scope="module")
def three_classes():
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(FRAME.data, KINDS)
    return model, _predictor(model)


@pytest.mark.parametrize("mode", [DATA, WEIGHTS, BOTH])
def test_a_predictor_answers_like_the_model_in_every_mode(mode):
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(FRAME.data, KINDS)
    predictor = _predictor(model, mode=mode)
    assert np.allclose(predictor.predict_proba(FRAME.data), model.predict_proba(FRAME.data), atol=1e-3)
    assert np.allclose(predictor.decision_function(FRAME.data), model.decision_function(FRAME.data), atol=1e-3)
    assert np.array_equal(predictor.predict(FRAME.data), model.predict(FRAME.data))
    assert predictor.score(FRAME.data, KINDS) == model.score(FRAME.data, KINDS)
    assert list(predictor.classes_) == list(model.classes_)


def test_two_classes_have_one_margin_and_two_probabilities():
    two = KINDS[:100] != "setosa"
    records = FRAME.data[:100]
    logistic = _predictor(LogisticRegression().fit(records, two))
    margins = _predictor(LinearSVC().fit(records, two))
    assert logistic.predict_proba(records).shape == (100, 2)
    assert logistic.decision_function(records).shape == margins.decision_function(records).shape == (100,)
    assert logistic.score(records, two) == margins.score(records, two) == 1.0
    with pytest.raises(InputError, match="gives no probabilities; use decision_function or predict"):
        margins.predict_proba(records)


def test_a_regressor_predicts_values_and_is_scored_by_them():
    records, target = FRAME.data.iloc[:, :3], FRAME.data.iloc[:, 3]
    model = LinearRegression().fit(records, target)
    circuit = he.compile(model, calibration=records, roles=ROLES[DATA], rows=150)
    client, server = circuit.keygen()
    predictor = he.Predictor(client, server.evaluate)
    assert np.allclose(predictor.predict(records), model.predict(records), atol=1e-3)
    assert predictor.score(records, target) == pytest.approx(model.score(records, target), abs=1e-3)
    assert predictor.classes_.size == 0
    assert "3 features, encrypted-data" in repr(predictor)


def test_several_labels_a_record_are_each_yes_or_no():
    network = Network(
        low=np.full(4, -9.0),
        high=np.full(4, 9.0),
        nodes=(Node(layer=Dense(weights=np.eye(4)[:2], bias=np.array([-5.5, -3.0])), inputs=(0,)),),
        head=Head.SIGMOID,
    )
    predictor = _predictor(network)
    expected = (FRAME.data.to_numpy()[:, :2] > [5.5, 3.0]).astype(int)
    clear = np.abs(FRAME.data.to_numpy()[:, :2] - [5.5, 3.0]).min(axis=1) > 0.01
    assert np.array_equal(predictor.predict(FRAME.data)[clear], expected[clear])
    assert predictor.score(FRAME.data[clear], expected[clear]) == 1.0


def test_columns_are_checked_by_name_before_anything_is_encrypted(three_classes):
    _, predictor = three_classes
    with pytest.raises(InputError, match=r"column 0 is 'petal width \(cm\)', and the model expects 'sepal length"):
        predictor.predict(FRAME.data[FRAME.data.columns[::-1]])
    with pytest.raises(InputError, match="columns: expected 4 names, got 1"):
        he.Predictor(predictor._client, bytes, columns=("a",))


def test_values_outside_the_calibrated_range_are_named_before_anything_is_sent(three_classes):
    _, predictor = three_classes
    asked = []
    watched = he.Predictor(predictor._client, asked.append, columns=NAMES)
    records = FRAME.data.to_numpy().copy()
    records[7, 2] = 321.0
    with pytest.raises(
        InputError, match=r"1 values in 1 rows .* row 7, feature 2 \(petal length \(cm\)\)\. "
    ) as caught:
        watched.predict(records)
    assert "321" not in str(caught.value) and asked == []
    with pytest.raises(InputError, match=r"row 7, feature 2\. "):
        predictor._client.encrypt(records)


def test_targets_of_another_shape_are_refused(three_classes):
    _, predictor = three_classes
    with pytest.raises(InputError, match=r"score: expected targets of shape \(150,\), got \(3,\)"):
        predictor.score(FRAME.data, KINDS[:3])


def test_a_model_with_activations_answers_like_its_polynomials():
    records = FRAME.data.to_numpy()
    rng = np.random.default_rng(0)
    model = MLPClassifier((6,), activation="logistic", max_iter=1).set_params(random_state=0)
    with pytest.warns(match="haven't converged|hasn't converged"):
        model.fit(records, KINDS)
    model.coefs_ = [rng.normal(size=(4, 6)) / 3, rng.normal(size=(6, 3))]
    translated = he.translate(model, calibration=records, degree=3)
    assert translated.answer_error < 0.2 and len(translated.explain()) == 2
    predictor = _predictor(model, degree=3, max_error=1e-2)
    difference = np.abs(predictor.predict_proba(records) - model.predict_proba(records)).max()
    assert difference <= 2 * translated.answer_error + 1e-2


def test_a_role_left_undeclared_is_refused():
    model = LogisticRegression(max_iter=200).fit(FRAME.data, KINDS)
    with pytest.raises(InputError, match="roles: not declared; name data_owner, model_owner and compute_host"):
        he.compile(model, calibration=FRAME.data)


def test_a_network_is_compiled_as_it_stands_even_where_it_leaves_features_out():
    layers = [Dense(weights=np.eye(4)[:2], bias=np.zeros(2)), Square(), Dense(weights=np.eye(2) / 9, bias=np.zeros(2))]
    nodes = tuple(Node(layer=layer, inputs=(index,)) for index, layer in enumerate(layers))
    network = Network(low=np.zeros(4), high=np.full(4, 9.0), nodes=nodes)
    predictor = _predictor(network, rows=1, max_error=1e-2)
    assert np.allclose(predictor.predict(FRAME.data[:3]), FRAME.data.to_numpy()[:3, :2] ** 2 / 9, atol=1e-2)
