import warnings

import numpy as np
import pytest
from sklearn import linear_model, svm
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, Normalizer, RobustScaler, StandardScaler

from mibao.errors import InputError
from mibao.he.models import network_of
from mibao.he.network import Activation, Function, Head
from mibao.he.reference import evaluate, finish

IRIS = load_iris(return_X_y=True)
CANCER = load_breast_cancer(return_X_y=True)
DIABETES = load_diabetes(return_X_y=True)


def _fitted(model, data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a few steps are enough here
        return model.fit(*data)


def _answers(model, records):
    network = network_of(model, calibration=records)
    return finish(evaluate(network, records), head=network.head, flat=network.flat)


def _mlp(kind=MLPClassifier, **options):
    return kind(hidden_layer_sizes=(7, 5), max_iter=30, random_state=0, **options)


@pytest.mark.parametrize("data", [IRIS, CANCER], ids=["three classes", "two classes"])
@pytest.mark.parametrize(
    "model",
    [
        make_pipeline(StandardScaler(), linear_model.LogisticRegression()),
        make_pipeline(StandardScaler(), linear_model.LogisticRegressionCV(Cs=2, cv=2, use_legacy_attributes=False)),
        make_pipeline(StandardScaler(), linear_model.SGDClassifier(loss="log_loss", random_state=0)),
        make_pipeline(MinMaxScaler(), PCA(2, whiten=True), OneVsRestClassifier(linear_model.LogisticRegression())),
        make_pipeline(make_pipeline(RobustScaler(), "passthrough"), PCA(3), LinearDiscriminantAnalysis()),
        make_pipeline(SelectKBest(k=2), MaxAbsScaler(), make_pipeline(StandardScaler(), _mlp(activation="tanh"))),
        make_pipeline(StandardScaler(with_mean=False), _mlp(activation="logistic")),
        make_pipeline(StandardScaler(with_std=False), _mlp(activation="relu")),
        make_pipeline(TruncatedSVD(2), _mlp(activation="identity")),
        GridSearchCV(linear_model.LogisticRegression(max_iter=50), {"C": [0.1, 1.0]}, cv=2),
    ],
)
def test_answers_are_the_probabilities_of_the_model(model, data):
    fitted = _fitted(model, data)
    assert np.allclose(_answers(fitted, data[0]), fitted.predict_proba(data[0]), rtol=0, atol=1e-9)


@pytest.mark.parametrize("data", [IRIS, CANCER], ids=["three classes", "two classes"])
@pytest.mark.parametrize(
    "model",
    [
        make_pipeline(StandardScaler(), svm.LinearSVC()),
        make_pipeline(StandardScaler(), linear_model.SGDClassifier(random_state=0)),
        make_pipeline(StandardScaler(), linear_model.SGDClassifier(loss="modified_huber", random_state=0)),
        make_pipeline(StandardScaler(), linear_model.Perceptron(random_state=0)),
        make_pipeline(StandardScaler(), linear_model.RidgeClassifier()),
        make_pipeline(StandardScaler(), OneVsRestClassifier(svm.LinearSVC())),
    ],
)
def test_answers_are_the_margins_where_the_model_has_no_probabilities_of_a_head(model, data):
    fitted = _fitted(model, data)
    assert np.allclose(_answers(fitted, data[0]), fitted.decision_function(data[0]), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "model",
    [
        linear_model.LinearRegression(),
        linear_model.Ridge(),
        linear_model.Ridge(fit_intercept=False),
        linear_model.RidgeCV(),
        linear_model.Lasso(),
        linear_model.LassoCV(cv=2),
        linear_model.ElasticNet(),
        linear_model.BayesianRidge(),
        linear_model.HuberRegressor(),
        make_pipeline(StandardScaler(), linear_model.SGDRegressor(random_state=0)),
        make_pipeline(StandardScaler(), svm.LinearSVR(random_state=0)),
        make_pipeline(StandardScaler(), _mlp(MLPRegressor)),
    ],
)
def test_answers_are_the_predictions_of_a_regressor_flat_like_them(model):
    fitted = _fitted(model, DIABETES)
    answers = _answers(fitted, DIABETES[0])
    assert answers.shape == (len(DIABETES[1]),)
    assert np.allclose(answers, fitted.predict(DIABETES[0]), rtol=1e-9, atol=1e-9)


def test_several_targets_and_several_labels_a_record_have_a_column_each():
    records, target = DIABETES
    both = np.stack([target, -target], axis=1)
    model = linear_model.Ridge().fit(records, both)
    assert np.allclose(_answers(model, records), model.predict(records))
    labels = (both > [100, -150]).astype(int)
    several = _fitted(_mlp(), (records, labels))
    assert np.allclose(_answers(several, records), several.predict_proba(records))
    assert network_of(several, calibration=records).head is Head.SIGMOID


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (np.array(["no", "yes"])[CANCER[1]], ("no", "yes")),
        (np.array(["no", "yes"], dtype=object)[CANCER[1]], ("no", "yes")),
        (CANCER[1] > 0, (0, 1)),
        (CANCER[1] * 2.0 - 1.0, (-1, 1)),
    ],
    ids=["text", "objects", "booleans", "floats"],
)
def test_classes_are_kept_as_text_or_whole_numbers(labels, classes):
    model = make_pipeline(StandardScaler(), linear_model.LogisticRegression()).fit(CANCER[0], labels)
    assert network_of(model, calibration=CANCER[0]).classes == classes


def test_other_classes_are_refused():
    model = make_pipeline(StandardScaler(), linear_model.LogisticRegression()).fit(*CANCER)
    model[-1].classes_ = np.array([0.5, 1.5])
    with pytest.raises(InputError, match="expected classes that are text, whole numbers or booleans, got float64"):
        network_of(model, calibration=CANCER[0])


def test_hidden_layers_keep_their_activations_and_names():
    model = make_pipeline(StandardScaler(), _fitted(_mlp(), IRIS))
    model[0].fit(IRIS[0])
    nodes = network_of(model, calibration=IRIS[0]).nodes
    assert [node.name for node in nodes if isinstance(node.layer, Activation)] == [
        "mlpclassifier, relu 1",
        "mlpclassifier, relu 2",
    ]
    assert nodes[2].layer == Activation(function=Function.RELU)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (make_pipeline(Normalizer(), svm.LinearSVC()), r"normalizer \(Normalizer\) cannot .*or use StandardScaler"),
        (make_pipeline(SimpleImputer(), svm.LinearSVC()), "simpleimputer .* fill gaps before encryption"),
        (make_pipeline(MinMaxScaler(clip=True), svm.LinearSVC()), r"minmaxscaler: clip=True compares.*clip=False"),
        (svm.SVC(), "SVC cannot be computed on ciphertexts; use LinearSVC"),
        (KNeighborsClassifier(), "it keeps its training records: use LogisticRegression"),
        (GaussianNB(), "GaussianNB cannot be computed on ciphertexts; use LogisticRegression"),
        (OneVsRestClassifier(_mlp()), "expected linear models inside"),
    ],
)
def test_what_ciphertexts_cannot_do_is_refused_with_what_to_use_instead(model, message):
    with pytest.raises(InputError, match=message):
        network_of(_fitted(model, IRIS), calibration=IRIS[0])


@pytest.mark.parametrize(
    "model", [linear_model.LogisticRegression(), make_pipeline(StandardScaler(), svm.LinearSVC()), _mlp()]
)
def test_a_model_that_is_not_fitted_is_refused(model):
    with pytest.raises(InputError, match="expected a fitted model; call fit first"):
        network_of(model, calibration=IRIS[0])


def test_what_is_no_model_is_refused():
    with pytest.raises(InputError, match=r"expected a fitted scikit-learn estimator or a torch.nn.Module, got dict"):
        network_of({}, calibration=IRIS[0])


def test_a_calibration_of_another_width_is_refused():
    model = _fitted(linear_model.Ridge(), DIABETES)
    with pytest.raises(InputError, match="the model was fitted on 10 features, the records have 4"):
        network_of(model, calibration=IRIS[0])


def test_bounds_are_the_calibrations_with_a_margin():
    records = np.array([[0.0, 1.0, 5.0], [10.0, 3.0, 5.0]])
    model = linear_model.Ridge().fit(records, [0.0, 1.0])
    network = network_of(model, calibration=records, margin=0.1)
    assert np.allclose(network.low, [-1.0, 0.8, 4.0]) and np.allclose(network.high, [11.0, 3.2, 6.0])
    stated = network_of(model, calibration=records, input_range=(0, 16))
    assert np.array_equal(stated.low, np.zeros(3)) and np.array_equal(stated.high, np.full(3, 16.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": -0.1}, "expected a margin of 0 to 10 widths, got -0.1"),
        ({"input_range": (3, 3)}, "expected a smaller and a larger number"),
        ({"input_range": (1, 3)}, "a record of the calibration lies outside it"),
    ],
)
def test_ranges_that_make_no_sense_are_refused(options, message):
    records = np.array([[0.0], [2.0]])
    with pytest.raises(InputError, match=message):
        network_of(linear_model.Ridge().fit(records, [0.0, 1.0]), calibration=records, **options)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (np.zeros(4), r"expected the shape \(rows, features\) with at least one row, got \(4,\)"),
        (np.zeros((0, 4)), r"with at least one row, got \(0, 4\)"),
        (np.array([["a", "b"]]), "expected numbers, in an array or a DataFrame"),
        (np.array([[0.0, 1.0], [2.0, np.nan]]), "got a NaN or an infinity in row 1, feature 1"),
    ],
)
def test_records_that_are_none_are_refused(records, message):
    with pytest.raises(InputError, match=message):
        network_of(linear_model.Ridge().fit(*DIABETES), calibration=records)


def test_columns_of_a_frame_are_checked_by_name_and_order():
    frame = load_iris(as_frame=True).data
    model = linear_model.LogisticRegression(max_iter=200).fit(frame, IRIS[1])
    assert np.array_equal(network_of(model, calibration=frame).low, network_of(model, calibration=IRIS[0]).low)
    with pytest.raises(InputError, match=r"column 0 is 'petal width \(cm\)', and the model expects 'sepal length"):
        network_of(model, calibration=frame[frame.columns[::-1]])
    with pytest.raises(InputError, match=r"columns missing: \['petal width \(cm\)'\]; columns .* lacks: \['width'\]"):
        network_of(model, calibration=frame.rename(columns={"petal width (cm)": "width"}))
    with pytest.raises(InputError, match="expected numbers"):
        network_of(model, calibration=frame.map(str).replace("5.1", "a"))
