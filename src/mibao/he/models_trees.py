"""Trees and their ensembles, of scikit-learn and XGBoost, as plain arrays. Neither library is imported."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from mibao.errors import InputError
from mibao.he.forests import LEAF, Forest, Tree
from mibao.he.models_sklearn import class_labels, fitted, is_sklearn, numbers, transformed, unwound
from mibao.he.network import Head, Scale


def forest_of(model: Any, *, low: Float64[ndarray, "features"], high: Float64[ndarray, "features"]) -> Forest:
    """A fitted tree or ensemble as a sum of trees whose head gives back its probabilities, or its predictions.

    Args:
        low: Smallest value of each feature that a client may send.
        high: Largest.

    Raises:
        InputError: not fitted, fitted on another width, or a kind of tree or loss that is not known.
    """
    steps, (_, last) = unwound(model)
    read = _reader(last)
    if read is None:
        raise InputError(f"trees: expected a tree or an ensemble of trees, got {type(last).__name__}")
    held = read(last)
    expected = fitted(steps[0][1] if steps else last, "n_features_in_")
    if expected != low.shape[0]:
        raise InputError(f"calibration: the model was fitted on {expected} features, the records have {low.shape[0]}")
    trees = held.trees
    for name, step in reversed(steps):
        trees = _before(trees, name, step)
    return Forest(
        low=low,
        high=high,
        trees=tuple(trees),
        base=held.base,
        head=held.head,
        flat=held.flat,
        classes=held.classes,
        rounds=held.rounds and not steps,
    )


def _before(trees: list[Tree], name: str, step: Any) -> list[Tree]:
    """The trees for records as they are before a scaler: its scale and shift go into the thresholds."""
    for label, layer in reversed(transformed(name, step)):
        if not isinstance(layer, Scale) or not np.all(layer.factor > 0):
            raise InputError(
                f"{label} ({type(step).__name__}): expected a scaler in front of trees; fit them without it"
            )
        trees = [
            replace(tree, threshold=(tree.threshold - layer.shift[tree.feature]) / layer.factor[tree.feature])
            for tree in trees
        ]
    return trees


def holds_trees(model: Any) -> bool:
    """Whether :func:`forest_of` knows the kind of ``model``, or of what a pipeline ends in."""
    return _reader(unwound(model)[1][1]) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """What is read from a model, whichever library it is of."""

    trees: list[Tree]
    base: Float64[ndarray, "outputs"]
    head: Head = Head.IDENTITY
    flat: bool = False
    classes: tuple[str, ...] | tuple[int, ...] = ()
    rounds: bool = True


def _reader(model: Any) -> Callable[[Any], _Held] | None:
    if any(base.__module__.startswith("xgboost.") for base in type(model).__mro__):
        return _xgboost
    return next((read for name, read in _SKLEARN.items() if is_sklearn(model, name)), None)


def _decision_tree(model: Any) -> _Held:
    return _averaged(model, [model])


def _random_forest(model: Any) -> _Held:
    return _averaged(model, list(fitted(model, "estimators_")))


def _averaged(model: Any, parts: list[Any]) -> _Held:
    """Means of the parts' probabilities or predictions."""
    if fitted(model, "n_outputs_") != 1:
        raise InputError(f"{type(model).__name__}: expected one target; use one model a target")
    classifies = hasattr(model, "classes_")
    trees = []
    for part in parts:
        held = fitted(part, "tree_")
        value = numbers(held.value)[:, 0, :]
        if classifies:
            value = value / value.sum(axis=1, keepdims=True)
        trees.append(_sklearn_tree(held, value / len(parts)))
    classes = class_labels(type(model).__name__, model) if classifies else ()
    head = Head.PROBABILITIES if classifies else Head.IDENTITY
    base = np.zeros(trees[0].value.shape[1])
    return _Held(trees=trees, base=base, head=head, flat=not classifies, classes=classes)


def _boosted(model: Any) -> _Held:
    stages = fitted(model, "estimators_")
    if getattr(model, "loss", None) == "exponential":
        raise InputError(f"{type(model).__name__}: expected loss='log_loss', got 'exponential'")
    if model.init is not None and model.init != "zero":
        raise InputError(f"{type(model).__name__}: expected no init estimator of its own")
    # The prior does not depend on the record: any will do.
    base = numbers(model._raw_predict_init(np.zeros((1, model.n_features_in_), dtype=np.float32)))[0]
    outputs = stages.shape[1]
    trees = []
    for stage in stages:
        for column, part in enumerate(stage):
            value = np.zeros((part.tree_.node_count, outputs))
            value[:, column] = model.learning_rate * numbers(part.tree_.value)[:, 0, 0]
            trees.append(_sklearn_tree(part.tree_, value))
    return _Held(trees=trees, base=base, **_boosted_ending(model, outputs))


def _histogram_boosted(model: Any) -> _Held:
    if fitted(model, "is_categorical_") is not None:
        raise InputError(f"{type(model).__name__}: expected no categorical features; encode them as numbers")
    if model.loss not in ("log_loss", "squared_error", "absolute_error", "quantile"):
        raise InputError(f"{type(model).__name__}: expected a loss without a link of its own, got {model.loss!r}")
    outputs = model.n_trees_per_iteration_
    trees = [
        _histogram_tree(part.nodes, column, outputs) for stage in model._predictors for column, part in enumerate(stage)
    ]
    base = numbers(model._baseline_prediction).reshape(-1)
    return _Held(trees=trees, base=base, rounds=False, **_boosted_ending(model, outputs))


def _boosted_ending(model: Any, outputs: int) -> dict[str, Any]:
    if not hasattr(model, "classes_"):
        return {"flat": True}
    head = Head.BINARY if outputs == 1 else Head.SOFTMAX
    return {"head": head, "classes": class_labels(type(model).__name__, model)}


_SKLEARN: Mapping[str, Callable[[Any], _Held]] = MappingProxyType(
    {
        "BaseDecisionTree": _decision_tree,
        "BaseForest": _random_forest,
        "BaseGradientBoosting": _boosted,
        "BaseHistGradientBoosting": _histogram_boosted,
    }
)


def _sklearn_tree(held: Any, value: Float64[ndarray, "nodes outputs"]) -> Tree:
    inner = np.asarray(held.children_left) != -1
    return _tree(
        feature=np.where(inner, held.feature, LEAF),
        threshold=held.threshold,
        left=held.children_left,
        right=held.children_right,
        value=value,
    )


def _histogram_tree(nodes: Any, column: int, outputs: int) -> Tree:
    inner = nodes["is_leaf"] == 0
    if np.any(nodes["is_categorical"][inner]):
        raise InputError("trees: expected no categorical splits; encode categories as numbers")
    value = np.zeros((len(nodes), outputs))
    value[:, column] = nodes["value"]
    return _tree(
        feature=np.where(inner, nodes["feature_idx"], LEAF),
        threshold=nodes["num_threshold"],
        left=nodes["left"],
        right=nodes["right"],
        value=value,
    )


def _tree(*, feature: Any, threshold: Any, left: Any, right: Any, value: Any) -> Tree:
    """The arrays with nothing at places that nobody reads, and children behind their parents."""
    feature = np.asarray(feature, dtype=np.int64)
    inner = feature != LEAF
    return Tree(
        feature=feature,
        threshold=np.where(inner, np.asarray(threshold, dtype=np.float64), 0.0),
        left=np.where(inner, np.asarray(left, dtype=np.int64), 0),
        right=np.where(inner, np.asarray(right, dtype=np.int64), 0),
        value=np.where(inner[:, None], 0.0, np.asarray(value, dtype=np.float64)),
    )


_XGBOOST_HEADS: Mapping[str, Head] = MappingProxyType(
    {
        "binary:logistic": Head.BINARY,
        "multi:softprob": Head.SOFTMAX,
        "multi:softmax": Head.SOFTMAX,
        "reg:squarederror": Head.IDENTITY,
        "reg:absoluteerror": Head.IDENTITY,
        "reg:pseudohubererror": Head.IDENTITY,
    }
)


def _xgboost(model: Any) -> _Held:
    booster, name = _booster(model)
    held = _learned(json.loads(bytes(booster.save_raw("json"))), name=name)
    return replace(held, classes=class_labels(name, model)) if held.classes else held


def forest_of_json(
    held: Mapping[str, Any], *, low: Float64[ndarray, "features"], high: Float64[ndarray, "features"]
) -> Forest:
    """The forest in what ``XGBClassifier.save_model("NAME.json")`` wrote, read from JSON; XGBoost is not needed.

    Raises:
        InputError: not such a file, another objective, or trees that do not fit.
    """
    try:
        read = _learned(held, name="XGBoost")
        features = int(held["learner"]["learner_model_param"]["num_feature"])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise InputError(
            "XGBoost: expected a model that save_model wrote as JSON; a field is missing or wrong"
        ) from error
    if features != low.shape[0]:
        raise InputError(f"calibration: the model was fitted on {features} features, the records have {low.shape[0]}")
    return Forest(
        low=low,
        high=high,
        trees=tuple(read.trees),
        base=read.base,
        head=read.head,
        flat=read.flat,
        classes=read.classes,
    )


def _learned(model: Mapping[str, Any], *, name: str) -> _Held:
    """From the library's own JSON.

    Source: XGBoost, "Introduction to Model IO", the schema of ``save_model`` to JSON.
    """
    learner = model["learner"]
    objective, kind = learner["objective"]["name"], learner["gradient_booster"]["name"]
    head = _XGBOOST_HEADS.get(objective)
    if head is None or kind != "gbtree":
        raise InputError(f"{name}: expected gbtree and one of {', '.join(_XGBOOST_HEADS)}; got {kind} and {objective}")
    outputs = max(1, int(learner["learner_model_param"]["num_class"]))
    held = learner["gradient_booster"]["model"]
    used = len(held["trees"])
    best = learner["attributes"].get("best_iteration")
    if best is not None:  # what predict() uses after early stopping
        used = held["iteration_indptr"][int(best) + 1]
    pairs = list(zip(held["trees"], held["tree_info"], strict=True))[:used]
    trees = [_xgboost_tree(tree, column, outputs, name) for tree, column in pairs]
    base = _base_score(learner["learner_model_param"]["base_score"], head, outputs)
    if head is Head.IDENTITY:
        return _Held(trees=trees, base=base, flat=True)
    return _Held(trees=trees, base=base, head=head, classes=tuple(range(max(2, outputs))))


def _booster(model: Any) -> tuple[Any, str]:
    name = type(model).__name__
    if not hasattr(model, "get_booster"):
        raise InputError(f"{name}: expected an XGBClassifier or XGBRegressor, as scikit-learn would use them")
    if not model.__sklearn_is_fitted__():
        raise InputError(f"{name}: expected a fitted model; call fit first")
    return model.get_booster(), name


def _xgboost_tree(tree: Mapping[str, Any], column: int, outputs: int, name: str) -> Tree:
    if any(tree["split_type"]):
        raise InputError(f"{name}: expected no categorical splits; encode categories as numbers")
    left = np.array(tree["left_children"])
    inner = left != -1
    conditions = np.array(tree["split_conditions"], dtype=np.float32)
    value = np.zeros((len(left), outputs))
    value[:, column] = conditions
    return _tree(
        feature=np.where(inner, tree["split_indices"], LEAF),
        # XGBoost goes left below the threshold, we at most at it: the float32 just before.
        threshold=np.nextafter(conditions, np.float32(-np.inf)),
        left=left,
        right=tree["right_children"],
        value=value,
    )


def _base_score(text: str, head: Head, outputs: int) -> Float64[ndarray, "outputs"]:
    """What the sum starts from; XGBoost keeps a probability where the objective has one."""
    scores = np.array([float(score) for score in text.strip("[]").split(",")])
    if head is Head.BINARY:
        scores = np.log(scores / (1.0 - scores))
    return np.broadcast_to(scores, (outputs,)).copy()
