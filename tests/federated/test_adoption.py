import subprocess
import sys

import numpy as np
import pytest

from federated_cases import byte_source, regression_sites
from mibao.errors import InputError
from mibao.federated import FedAvg, Task, pool

linear_model = pytest.importorskip("sklearn.linear_model")


def task(model, parts, **more):
    return Task(model=model, data=parts.__getitem__, strategy=FedAvg(lr=0.3, local_epochs=5), **more)


def test_a_linear_regression_of_scikit_learn_comes_back_fitted():
    parts = regression_sites(sites=4)
    result = task(linear_model.LinearRegression(), parts).simulate(clients=4, rounds=40, randomness=byte_source(1))
    pooled = pool(parts)
    theirs = linear_model.LinearRegression().fit(pooled.features, pooled.targets)
    assert result.model.predict(pooled.features) == pytest.approx(theirs.predict(pooled.features), abs=0.02)
    assert result.model.score(pooled.features, pooled.targets) > 0.99


def test_a_logistic_regression_of_scikit_learn_predicts_classes():
    rng = np.random.default_rng(1)
    parts = [(x := rng.normal(size=(60, 3)), (x[:, 0] > x[:, 1]).astype(int)) for _ in range(4)]
    given = linear_model.LogisticRegression()
    result = task(given, parts).simulate(clients=4, rounds=20, randomness=byte_source(1))
    features = np.concatenate([x for x, _ in parts])
    assert result.model.score(features, np.concatenate([y for _, y in parts])) > 0.95
    assert result.model.predict_proba(features[:5]).shape == (5, 2)
    assert not hasattr(given, "coef_")  # a copy was fitted


@pytest.mark.parametrize(
    ("model", "more", "message"),
    [
        (linear_model.Lasso(), {}, "expected LinearRegression or LogisticRegression of scikit-learn"),
        (linear_model.LinearRegression(), {"loss": abs}, "without a loss"),
        (object(), {}, "a PyTorch module with its loss; got object without a loss"),
    ],
)
def test_a_model_of_another_kind_is_refused(model, more, message):
    with pytest.raises(InputError, match=message):
        task(model, regression_sites(), **more)


def test_linear_models_train_without_pytorch():
    program = (
        "import sys\nsys.modules['torch'] = None\nimport numpy as np\nfrom mibao.federated import *\n"
        "rng = np.random.default_rng(0)\nparts = [(rng.normal(size=(9, 2)), np.zeros(9)) for _ in range(3)]\n"
        "task = Task(model=LinearRegression(features=2), data=parts.__getitem__, strategy=FedAvg(lr=0.1))\n"
        "print(task.simulate(clients=3, rounds=1).rounds)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.returncode) == ("1\n", 0), done.stderr
