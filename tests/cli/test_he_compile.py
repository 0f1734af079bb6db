import json

import numpy as np
import pytest
from safetensors.numpy import save_file
from sklearn.datasets import load_iris
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"roles": ROLES[2:]}, "roles: data_owner is not declared; name all of data_owner, model_owner, compute_host"),
        ({"model": "model.pkl"}, "model.pkl: expected a skops file"),
        ({"model": "tree.skops"}, "tree.skops: trees are compiled from Python, with mibao.he.trees"),
        ({"calibration": "turned.csv"}, "column 0 is 'petal width (cm)', and the model expects 'sepal length (cm)'"),
        ({"calibration": "absent.npy"}, "absent.npy: cannot be read (No such file or directory)"),
    ],
)
def test_wrong_use_ends_in_one_line_and_writes_nothing(folder, options, message):
    (folder / "model.pkl").write_bytes(b"\x80\x04N.")
    (folder / "tree.skops").write_bytes(io.dumps(DecisionTreeClassifier(max_depth=2).fit(FRAME.data, FRAME.target)))
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
