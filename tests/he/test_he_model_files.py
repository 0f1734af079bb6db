import json
import pickle

import numpy as np
import pytest
import xgboost
from safetensors.numpy import save
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from skops import io
from threadpoolctl import threadpool_limits

from mibao.errors import InputError
from mibao.he.forests import Forest, evaluate_forest
from mibao.he.model_files import read_model
from mibao.he.network import Network
from mibao.he.reference import evaluate, finish
from mibao.he.tables import table_of_csv

RECORDS, TARGET = load_breast_cancer(return_X_y=True)
RECORDS = RECORDS[:, :6]


@pytest.fixture(autouse=True)
def _one_thread():
    with threadpool_limits(1):
        yield


@pytest.fixture
def write(tmp_path):
    def write(name, data):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


@pytest.mark.parametrize(
    "model",
    [
        make_pipeline(StandardScaler(), LogisticRegression()),
        make_pipeline(StandardScaler(), MLPClassifier((4,), max_iter=600, tol=1e-2, random_state=0)),
        GradientBoostingClassifier(n_estimators=3),
        HistGradientBoostingClassifier(max_iter=3),
        RandomForestClassifier(3),
    ],
)
def test_a_scikit_learn_model_comes_back_from_skops(write, model):
    fitted = model.fit(RECORDS, TARGET)
    held = read_model(write("model.skops", io.dumps(fitted)), calibration=RECORDS)
    raw = evaluate(held, RECORDS) if isinstance(held, Network) else evaluate_forest(held, RECORDS)
    assert np.allclose(finish(raw, head=held.head, flat=held.flat), fitted.predict_proba(RECORDS))


def test_xgboosts_own_json_needs_no_skops(write, tmp_path):
    model = xgboost.XGBClassifier(n_estimators=4, max_depth=2).fit(RECORDS, TARGET)
    model.save_model(tmp_path / "model.json")
    held = read_model(tmp_path / "model.json", calibration=RECORDS)
    assert isinstance(held, Forest) and held.classes == (0, 1)
    raw = evaluate_forest(held, RECORDS)
    assert np.allclose(finish(raw, head=held.head, flat=held.flat), model.predict_proba(RECORDS), atol=1e-6)
    with pytest.raises(InputError, match="was fitted on 6 features, the records have 2"):
        read_model(tmp_path / "model.json", calibration=RECORDS[:, :2])


def test_safetensors_lie_beside_their_config(write):
    write("model.json", json.dumps({
        "format": "mibao-network", "version": 1, "input_shape": [6], "layers": [{"type": "dense", "tensor": "out"}],
    }).encode())  # fmt: skip
    held = read_model(write("model.safetensors", save({"out.weight": np.eye(6)})), calibration=RECORDS, margin=0.0)
    assert np.allclose(evaluate(held, RECORDS), RECORDS)
    assert np.array_equal(held.low, RECORDS.min(axis=0)) and np.array_equal(held.high, RECORDS.max(axis=0))


class Hostile:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


@pytest.mark.parametrize("name", ["model.pkl", "model.joblib", "model.pt", "model.skops", "model.safetensors", "model"])
def test_a_pickle_is_refused_whatever_it_is_called_and_never_executed(write, name):
    with pytest.raises(InputError, match=r"expected a skops file .* a pickle executes code when it is read"):
        read_model(write(name, pickle.dumps(Hostile())), calibration=RECORDS)


def _untrusted(values):
    return values


def test_a_type_that_is_not_trusted_is_named_and_nothing_is_loaded(write):
    model = make_pipeline(FunctionTransformer(_untrusted), LogisticRegression()).fit(RECORDS[:4] / 99, TARGET[17:21])
    path = write("model.skops", io.dumps(model))
    with pytest.raises(InputError, match=r"types that are not trusted: .*_untrusted; nothing was loaded"):
        read_model(path, calibration=RECORDS)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("model.skops", b"PK\x03\x04", r"cannot be read \(BadZipFile\)"),
        ("model.onnx", b"", "expected a skops file"),
        ("model.json", b"{", "expected JSON"),
        ("model.json", b"{}", "expected XGBoost's JSON; for a network give its .safetensors"),
        ("model.json", b'{"learner": {}}', "a field is missing or wrong"),
        ("model.safetensors", b"{}", r"model.json: cannot be read \(No such file"),
    ],
)
def test_other_files_are_refused(write, name, data, message):
    with pytest.raises(InputError, match=message):
        read_model(write(name, data), calibration=RECORDS)


def test_damaged_skops_files_are_refused_with_an_error_of_ours(write):
    data = io.dumps(make_pipeline(StandardScaler(), LogisticRegression()).fit(RECORDS, TARGET))
    rng = np.random.default_rng(0)
    for _ in range(40):
        changed = bytearray(data)
        for place in rng.integers(0, len(data), size=8):
            changed[place] = rng.integers(256)
        try:
            read_model(write("model.skops", bytes(changed)), calibration=RECORDS)
        except InputError:
            continue


def test_a_csv_files_columns_are_named_and_its_cells_are_numbers():
    table = table_of_csv(b"\xef\xbb\xbfage,height\n1,2.5\n-3e1,4\n", name="in.csv")
    assert table.columns == ("age", "height")
    assert np.array_equal(np.asarray(table), [[1.0, 2.5], [-30.0, 4.0]])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a,b\n", "expected a line of column names and at least one record"),
        (b"a,b\n1\n", "expected 2 cells in line 2, got 1"),
        (b"a,b\n1,2\n3,secret\n", r"expected a number in line 3, column 1 \(b\)$"),
        (b"\xff\xfe", "expected a CSV file in UTF-8"),
    ],
)
def test_what_is_no_table_of_numbers_is_refused_without_its_content(data, message):
    with pytest.raises(InputError, match=message):
        table_of_csv(data, name="in.csv")
