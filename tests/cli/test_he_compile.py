import json
import stat

import numpy as np
import pytest
from safetensors.numpy import save_file
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier
from skops import io

from command_line import mibao

FRAME = load_iris(as_frame=True)
ROLES = ("--data-owner", "patient", "--model-owner", "hospital", "--compute-host", "hospital", "--rows", "4096")


@pytest.fixture
def folder(tmp_path):
    model = LogisticRegression(max_iter=200).fit(FRAME.data, FRAME.target)
    (tmp_path / "model.skops").write_bytes(io.dumps(model))
    FRAME.data.to_csv(tmp_path / "iris.csv", index=False)
    np.save(tmp_path / "iris.npy", FRAME.data.to_numpy())
    return tmp_path


def _compile(folder, model="model.skops", calibration="iris.csv", roles=ROLES):
    return mibao("he", "compile", model, "--calibration", calibration, "-o", "my.circuit", *roles, folder=folder)


def test_a_skops_file_becomes_a_circuit_that_answers_like_the_model(folder):
    done = _compile(folder)
    assert done.returncode == 0, done.stderr
    assert "data owner (patient) could read: records, answers" in done.stdout
    assert "my.circuit: mode 0600, with the weights in clear" in done.stdout
    assert mibao("he", "keygen", "my.circuit", "-o", "keys", folder=folder).returncode == 0
    for step in (
        ("encrypt", "my.circuit", "iris.npy", "--key", "keys/client.key", "-o", "request"),
        ("evaluate", "my.circuit", "request", "--keys", "keys/server.keys", "-o", "answer"),
        ("decrypt", "my.circuit", "answer", "--key", "keys/client.key", "-o", "out.npy"),
    ):
        assert mibao("he", *step, folder=folder).returncode == 0
    model = LogisticRegression(max_iter=200).fit(FRAME.data, FRAME.target)
    raw, proba = model.decision_function(FRAME.data), model.predict_proba(FRAME.data)
    answers = np.load(folder / "out.npy")
    assert min(np.abs(answers - raw).max(), np.abs(answers - proba).max()) < 1e-3


def test_safetensors_and_a_config_become_a_circuit(folder):
    save_file({"out.weight": np.eye(4)[:2]}, folder / "net.safetensors")
    config = {
        "format": "mibao-network",
        "version": 1,
        "input_shape": [4],
        "layers": [{"type": "dense", "tensor": "out"}],
    }
    (folder / "net.json").write_text(json.dumps(config), encoding="utf-8")
    done = _compile(folder, model="net.safetensors", calibration="iris.npy")
    assert done.returncode == 0, done.stderr
    assert mibao("he", "explain", "my.circuit", folder=folder).returncode == 0


def test_trees_in_a_file_become_a_circuit_that_is_tried_in_one_go(folder):
    records, target = load_breast_cancer(return_X_y=True)
    np.save(folder / "cancer.npy", records[:, [7, 23]])
    model = DecisionTreeClassifier(max_depth=1, random_state=0).fit(records[:, [7, 23]], target)
    (folder / "tree.skops").write_bytes(io.dumps(model))
    done = _compile(folder, model="tree.skops", calibration="cancer.npy")
    assert done.returncode == 0, done.stderr
    assert "1 trees of depth 1, 1 comparisons" in done.stdout
    tried = mibao("he", "predict", "my.circuit", "cancer.npy", "-o", "out.npy", folder=folder)
    assert tried.returncode == 0, tried.stderr
    probabilities = np.load(folder / "out.npy")
    agreement = np.mean(probabilities.argmax(axis=1) == model.predict(records[:, [7, 23]]))
    assert probabilities.shape == (len(records), 2) and agreement > 0.99


def test_a_circuit_is_tried_in_one_go_and_nothing_stays_behind_but_its_answers(folder):
    assert _compile(folder).returncode == 0
    before = sorted(path.name for path in folder.iterdir())
    tried = mibao("he", "predict", "my.circuit", "iris.npy", "-o", "out.npy", folder=folder)
    assert tried.returncode == 0, tried.stderr
    assert "never share them" in tried.stdout and "protects nobody" in " ".join(tried.stdout.split())
    model = LogisticRegression(max_iter=200).fit(FRAME.data, FRAME.target)
    assert np.abs(np.load(folder / "out.npy") - model.predict_proba(FRAME.data)).max() < 1e-3
    assert stat.S_IMODE((folder / "out.npy").stat().st_mode) == 0o600
    assert sorted(path.name for path in folder.iterdir()) == sorted([*before, "out.npy"])
    again = mibao("he", "predict", "my.circuit", "iris.npy", "-o", "out.npy", folder=folder)
    assert again.returncode == 2 and "out.npy exists already" in again.stderr


def test_a_parquet_file_calibrates_with_its_columns_checked(folder):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pytest.importorskip("pyarrow").table(dict(FRAME.data.items()))
    parquet.write_table(table, folder / "iris.parquet")
    assert _compile(folder, calibration="iris.parquet").returncode == 0
    parquet.write_table(table.select(table.column_names[::-1]), folder / "turned.parquet")
    done = _compile(folder, calibration="turned.parquet")
    assert done.returncode == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"roles": ROLES[2:]}, "roles: data_owner is not declared; name all of data_owner, model_owner, compute_host"),
        ({"model": "model.pkl"}, "model.pkl: expected a skops file"),
        (
            {"model": "tree.skops", "roles": (*ROLES, "--mode", "encrypted-both")},
            "trees: expected encrypted-data, got encrypted-both; trees stay in clear at their owner",
        ),
        ({"calibration": "iris.parquet"}, "iris.parquet: expected a Parquet file"),
        ({"calibration": "turned.csv"}, "column 0 is 'petal width (cm)', and the model expects 'sepal length (cm)'"),
        ({"calibration": "absent.npy"}, "absent.npy: cannot be read (No such file or directory)"),
    ],
)
def test_wrong_use_ends_in_one_line_and_writes_nothing(folder, options, message):
    (folder / "model.pkl").write_bytes(b"\x80\x04N.")
    (folder / "tree.skops").write_bytes(io.dumps(DecisionTreeClassifier(max_depth=2).fit(FRAME.data, FRAME.target)))
    (folder / "iris.parquet").write_bytes(b"PAR1")
    FRAME.data[FRAME.data.columns[::-1]].to_csv(folder / "turned.csv", index=False)
    done = _compile(folder, **options)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert not (folder / "my.circuit").exists()


def test_a_circuit_that_is_there_is_not_overwritten(folder):
    (folder / "my.circuit").write_bytes(b"mine")
    done = _compile(folder)
    assert done.returncode == 2 and "my.circuit exists already" in done.stderr
    assert (folder / "my.circuit").read_bytes() == b"mine"
