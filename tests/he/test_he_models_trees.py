import numpy as np
import pytest
import xgboost
from sklearn import ensemble, tree
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from threadpoolctl import threadpool_limits

from mibao.errors import InputError
from mibao.he.forests import LEAF, Forest, Tree, evaluate_forest
from mibao.he.models_trees import forest_of, holds_trees
from mibao.he.network import Head
from mibao.he.reference import finish


@pytest.fixture(autouse=True)
def _one_thread():
    with threadpool_limits(1):  # on a busy machine OpenMP waits longer for its threads than they work
        yield


IRIS = load_iris(return_X_y=True)
CANCER = load_breast_cancer(return_X_y=True)
DIABETES = load_diabetes(return_X_y=True)


def _forest(model, records):
    return forest_of(model, low=records.min(axis=0), high=records.max(axis=0))


def _answers(model, records):
    forest = _forest(model, records)
    return finish(evaluate_forest(forest, records), head=forest.head, flat=forest.flat)


@pytest.mark.parametrize("data", [IRIS, CANCER], ids=["three classes", "two classes"])
@pytest.mark.parametrize(
    "model",
    [
        tree.DecisionTreeClassifier(random_state=0),
        tree.ExtraTreeClassifier(max_depth=3, random_state=0),
        ensemble.RandomForestClassifier(8, random_state=0),
        ensemble.ExtraTreesClassifier(8, max_depth=3, random_state=0),
        ensemble.GradientBoostingClassifier(n_estimators=6, random_state=0),
        ensemble.GradientBoostingClassifier(n_estimators=4, init="zero", random_state=0),
        ensemble.HistGradientBoostingClassifier(max_iter=6, random_state=0),
        xgboost.XGBClassifier(n_jobs=1, n_estimators=6, max_depth=3),
        xgboost.XGBClassifier(n_jobs=1, n_estimators=3, num_parallel_tree=2, subsample=0.5, base_score=0.3),
    ],
)
def test_answers_are_the_probabilities_of_the_model(model, data):
    records, target = data
    if isinstance(model, xgboost.XGBClassifier) and target.max() > 1:
        model = xgboost.XGBClassifier(**{**model.get_params(), "base_score": None})
    fitted = model.fit(records, target)
    forest = _forest(fitted, records)
    assert np.allclose(_answers(fitted, records), fitted.predict_proba(records), rtol=0, atol=1e-6)
    assert forest.classes == tuple(range(target.max() + 1))
    if hasattr(fitted, "decision_function"):
        raw = evaluate_forest(forest, records)
        assert np.allclose(raw[:, 0] if forest.head is Head.BINARY else raw, fitted.decision_function(records))


@pytest.mark.parametrize(
    "model",
    [
        tree.DecisionTreeRegressor(random_state=0),
        ensemble.RandomForestRegressor(8, random_state=0),
        ensemble.GradientBoostingRegressor(n_estimators=6, random_state=0),
        ensemble.GradientBoostingRegressor(n_estimators=6, loss="huber", random_state=0),
        ensemble.HistGradientBoostingRegressor(max_iter=6, random_state=0),
        xgboost.XGBRegressor(n_jobs=1, n_estimators=6, max_depth=3),
        xgboost.XGBRegressor(n_jobs=1, n_estimators=6, objective="reg:absoluteerror"),
    ],
)
def test_answers_are_the_predictions_of_a_regressor_flat_like_them(model):
    fitted = model.fit(*DIABETES)
    answers = _answers(fitted, DIABETES[0])
    assert answers.shape == DIABETES[1].shape
    assert np.allclose(answers, fitted.predict(DIABETES[0]), rtol=1e-5)


def test_records_exactly_at_a_threshold_go_where_the_model_sends_them():
    records = np.round(np.random.default_rng(0).normal(size=(400, 3)), 1)
    target = (records.sum(axis=1) > 0).astype(int)
    for model in (xgboost.XGBClassifier(n_jobs=1, n_estimators=4), tree.DecisionTreeClassifier(random_state=0)):
        fitted = model.fit(records, target)
        forest = _forest(fitted, records)
        thresholds = [node for one in forest.trees for node in one.threshold[one.feature != LEAF]]
        exact = np.array([[value, value, value] for value in thresholds])
        assert np.allclose(_answers(fitted, exact), fitted.predict_proba(exact), rtol=0, atol=1e-6)


def test_after_early_stopping_the_trees_are_those_that_predict_uses():
    records, target = CANCER
    model = xgboost.XGBClassifier(n_jobs=1, n_estimators=60, early_stopping_rounds=2, learning_rate=1.0)
    model.fit(records[::2], target[::2], eval_set=[(records[1::2], target[1::2])], verbose=False)
    forest = _forest(model, records)
    assert len(forest.trees) == model.best_iteration + 1 < len(model.get_booster().get_dump())
    assert np.allclose(_answers(model, records), model.predict_proba(records), atol=1e-6)


def test_scalers_in_front_of_trees_go_into_their_thresholds():
    model = make_pipeline(MinMaxScaler((-3, 7)), StandardScaler(), ensemble.GradientBoostingClassifier(n_estimators=5))
    fitted = model.fit(*CANCER)
    assert holds_trees(fitted)
    assert np.allclose(_answers(fitted, CANCER[0]), fitted.predict_proba(CANCER[0]))
    with pytest.raises(InputError, match=r"pca \(PCA\): expected a scaler in front of trees; fit them without it"):
        _forest(make_pipeline(PCA(3), tree.DecisionTreeClassifier()).fit(*CANCER), CANCER[0])


def test_text_labels_are_kept():
    model = ensemble.RandomForestClassifier(2).fit(CANCER[0], np.array(["ill", "well"])[CANCER[1]])
    assert _forest(model, CANCER[0]).classes == ("ill", "well")


def test_depth_counts_comparisons_and_a_lone_leaf_has_none():
    assert _forest(tree.DecisionTreeClassifier(max_depth=3).fit(*CANCER), CANCER[0]).depth == 3
    leaf = tree.DecisionTreeRegressor().fit([[0.0], [1.0]], [5.0, 5.0])
    assert _forest(leaf, np.array([[0.0], [1.0]])).depth == 0
    assert np.array_equal(_answers(leaf, np.array([[0.5]])), [5.0])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (ensemble.GradientBoostingClassifier(loss="exponential", n_estimators=2), "expected loss='log_loss'"),
        (
            ensemble.GradientBoostingClassifier(init=tree.DecisionTreeClassifier(max_depth=1), n_estimators=2),
            "expected no init estimator of its own",
        ),
        (ensemble.HistGradientBoostingRegressor(loss="poisson", max_iter=2), "got 'poisson'"),
        (ensemble.HistGradientBoostingClassifier(categorical_features=[0], max_iter=2), "no categorical features"),
        (xgboost.XGBRegressor(n_jobs=1, objective="count:poisson", n_estimators=2), "got gbtree and count:poisson"),
        (xgboost.XGBClassifier(n_jobs=1, booster="dart", n_estimators=2), "expected gbtree and one of .*; got dart"),
    ],
)
def test_losses_and_splits_that_are_not_known_are_refused(model, message):
    records = np.abs(CANCER[0])
    records[:, 0] = CANCER[1]
    with pytest.raises(InputError, match=message):
        _forest(model.fit(records, CANCER[1]), records)


@pytest.mark.parametrize("model", [tree.DecisionTreeClassifier(), xgboost.XGBClassifier()])
def test_a_model_that_is_not_fitted_is_refused(model):
    with pytest.raises(InputError, match="expected a fitted model; call fit first"):
        _forest(model, IRIS[0])


def test_several_targets_other_widths_and_other_models_are_refused():
    two = tree.DecisionTreeRegressor().fit(DIABETES[0], np.stack([DIABETES[1]] * 2, axis=1))
    with pytest.raises(InputError, match="expected one target; use one model a target"):
        _forest(two, DIABETES[0])
    with pytest.raises(InputError, match="was fitted on 4 features, the records have 10"):
        _forest(tree.DecisionTreeClassifier().fit(*IRIS), DIABETES[0])
    with pytest.raises(InputError, match="expected a tree or an ensemble of trees, got dict"):
        _forest({}, IRIS[0])
    assert not holds_trees({})


def _arrays(**changed):
    held = {
        "feature": np.array([0, LEAF, LEAF]),
        "threshold": np.array([0.5, 0.0, 0.0]),
        "left": np.array([1, 0, 0]),
        "right": np.array([2, 0, 0]),
        "value": np.array([[0.0], [1.0], [2.0]]),
    }
    return {**held, **changed}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"left": np.array([0, 0, 0])}, "the child of one node before it"),
        ({"left": np.array([2, 0, 0])}, "the child of one node before it"),
        ({"left": np.array([3, 0, 0])}, "the child of one node before it"),
        ({"threshold": np.array([np.inf, 0.0, 0.0])}, "expected finite thresholds and values"),
        ({"value": np.array([[0.0], [np.nan], [2.0]])}, "expected finite thresholds and values"),
    ],
)
def test_arrays_that_are_no_tree_are_refused(changed, message):
    with pytest.raises(InputError, match=message):
        Tree(**_arrays(**changed))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trees": ()}, "expected at least one tree"),
        ({"base": np.zeros(2)}, "tree 0: expected 1 features and 2 outputs"),
        ({"low": np.zeros(0), "high": np.zeros(0)}, "tree 0: expected 0 features"),
        ({"low": np.ones(1)}, "the lower ones at most the upper"),
    ],
)
def test_trees_that_do_not_fit_are_refused(options, message):
    held = {"low": np.zeros(1), "high": np.full(1, 0.5), "trees": (Tree(**_arrays()),), "base": np.zeros(1)}
    with pytest.raises(InputError, match=message):
        Forest(**{**held, **options})
