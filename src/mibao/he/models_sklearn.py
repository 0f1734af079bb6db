"""scikit-learn's estimators and pipelines as networks. Fitted attributes are read; scikit-learn is not imported.

An estimator is known by the name of its class, or of a class that it derives from, inside the package ``sklearn``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from mibao.errors import InputError
from mibao.he.network import Activation, Dense, Function, Head, Layer, Network, Node, Scale

Steps = list[tuple[str, Layer]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How answers are read: what the client does after decryption."""

    head: Head = Head.IDENTITY
    flat: bool = False
    classes: tuple[str, ...] | tuple[int, ...] = ()


def network_of_estimator(
    model: Any, *, low: Float64[ndarray, "features"], high: Float64[ndarray, "features"]
) -> Network:
    """A fitted estimator, or a pipeline that ends in one, as a network whose head gives back its probabilities.

    Where the estimator has ``predict_proba`` the answers are those, else its ``decision_function``, else ``predict``.

    Args:
        low: Smallest value of each feature that a client may send.
        high: Largest.

    Raises:
        InputError: a step is not fitted, or is none that can be computed on ciphertexts; the message says what to use
            instead.
    """
    steps, final = unwound(model)
    layers: Steps = [layer for name, step in steps for layer in transformed(name, step)]
    name, estimator = final
    more, ending = _ended(name, estimator)
    nodes = tuple(
        Node(layer=layer, inputs=(index,), name=label) for index, (label, layer) in enumerate([*layers, *more])
    )
    expected = _features(steps[0][1] if steps else estimator)
    if expected != low.shape[0]:
        raise InputError(f"calibration: the model was fitted on {expected} features, the records have {low.shape[0]}")
    return Network(low=low, high=high, nodes=nodes, head=ending.head, flat=ending.flat, classes=ending.classes)


def feature_names(model: Any) -> tuple[str, ...]:
    """The columns of the DataFrame that ``model`` was fitted on, or nothing."""
    steps, (_, estimator) = unwound(model)
    first = steps[0][1] if steps else estimator
    return tuple(str(name) for name in getattr(first, "feature_names_in_", ()))


def unwound(model: Any) -> tuple[list[tuple[str, Any]], tuple[str, Any]]:
    """A pipeline's transformers, and the estimator at its end; nested pipelines and searches opened."""
    if is_sklearn(model, "BaseSearchCV"):
        return unwound(fitted(model, "best_estimator_"))
    if not is_sklearn(model, "Pipeline"):
        return [], (type(model).__name__, model)
    named = [(str(name), step) for name, step in model.steps if step is not None and step != "passthrough"]
    if not named:
        raise InputError("Pipeline: expected an estimator at its end, got no step")
    opened = [(name, part) for name, step in named[:-1] for part in _parts(step)]
    inner, (_, last) = unwound(named[-1][1])
    return [*opened, *inner], (named[-1][0], last)


def _parts(step: Any) -> list[Any]:
    if not is_sklearn(step, "Pipeline"):
        return [step]
    return [part for _, inner in step.steps if inner is not None and inner != "passthrough" for part in _parts(inner)]


def transformed(name: str, step: Any) -> Steps:
    """A fitted transformer as layers, with the name that errors give them. Raises ``InputError``."""
    kind = _kind(step, _TRANSFORMERS)
    if kind is None:
        raise _unsupported(name, step)
    return [(name, layer) for layer in _TRANSFORMERS[kind](name, step)]


def _standard(name: str, step: Any) -> list[Layer]:
    width = _features(step)
    mean = fitted(step, "mean_") if step.with_mean else np.zeros(width)
    scale = fitted(step, "scale_") if step.with_std else np.ones(width)
    return [Scale(factor=numbers(1.0 / scale), shift=numbers(-mean / scale))]


def _min_max(name: str, step: Any) -> list[Layer]:
    if step.clip:
        raise InputError(f"{name}: clip=True compares, which ciphertexts cannot; use MinMaxScaler(clip=False)")
    return [Scale(factor=numbers(fitted(step, "scale_")), shift=numbers(step.min_))]


def _max_abs(name: str, step: Any) -> list[Layer]:
    factor = numbers(1.0 / fitted(step, "scale_"))
    return [Scale(factor=factor, shift=np.zeros_like(factor))]


def _robust(name: str, step: Any) -> list[Layer]:
    width = _features(step)
    center = fitted(step, "center_") if step.with_centering else np.zeros(width)
    scale = fitted(step, "scale_") if step.with_scaling else np.ones(width)
    return [Scale(factor=numbers(1.0 / scale), shift=numbers(-center / scale))]


def _pca(name: str, step: Any) -> list[Layer]:
    weights = numbers(fitted(step, "components_"))
    if step.whiten:
        weights = weights / np.sqrt(numbers(step.explained_variance_))[:, None]
    return [Dense(weights=weights, bias=-weights @ numbers(step.mean_))]


def _svd(name: str, step: Any) -> list[Layer]:
    weights = numbers(fitted(step, "components_"))
    return [Dense(weights=weights, bias=np.zeros(len(weights)))]


def _selector(name: str, step: Any) -> list[Layer]:
    chosen = np.asarray(step.get_support(indices=True))
    weights = np.zeros((len(chosen), _features(step)))
    weights[np.arange(len(chosen)), chosen] = 1.0
    return [Dense(weights=weights, bias=np.zeros(len(chosen)))]


_TRANSFORMERS: Mapping[str, Callable[[str, Any], list[Layer]]] = MappingProxyType(
    {
        "StandardScaler": _standard,
        "MinMaxScaler": _min_max,
        "MaxAbsScaler": _max_abs,
        "RobustScaler": _robust,
        "PCA": _pca,
        "TruncatedSVD": _svd,
        "SelectorMixin": _selector,
    }
)


def _ended(name: str, estimator: Any) -> tuple[Steps, Ending]:
    kind = _kind(estimator, _ESTIMATORS)
    if kind is None:
        raise _unsupported(name, estimator)
    return _ESTIMATORS[kind](name, estimator)


def _linear_regressor(name: str, estimator: Any) -> tuple[Steps, Ending]:
    return [(name, _dense(estimator))], Ending(flat=fitted(estimator, "coef_").ndim == 1)


def _linear_classifier(name: str, estimator: Any) -> tuple[Steps, Ending]:
    """What has ``decision_function`` only: a margin for two classes, one a class for more."""
    layer = _dense(estimator)
    return [(name, layer)], Ending(flat=layer.bias.size == 1, classes=class_labels(name, estimator))


def _logistic(name: str, estimator: Any) -> tuple[Steps, Ending]:
    layer = _dense(estimator)
    scheme = getattr(estimator, "multi_class", "auto")  # scikit-learn before 1.8 had a choice
    head = Head.BINARY
    if layer.bias.size > 1:
        liblinear = getattr(estimator, "solver", "") == "liblinear"
        head = Head.ONE_VS_REST if scheme == "ovr" or liblinear else Head.SOFTMAX
    elif scheme == "multinomial":
        raise InputError(f"{name}: expected multi_class='auto' for two classes, got 'multinomial'")
    return [(name, layer)], Ending(head=head, classes=class_labels(name, estimator))


def _sgd(name: str, estimator: Any) -> tuple[Steps, Ending]:
    if estimator.loss != "log_loss":  # modified_huber's probabilities are no function of a head; its margins are
        return _linear_classifier(name, estimator)
    layer = _dense(estimator)
    head = Head.BINARY if layer.bias.size == 1 else Head.ONE_VS_REST
    return [(name, layer)], Ending(head=head, classes=class_labels(name, estimator))


def _one_vs_rest(name: str, estimator: Any) -> tuple[Steps, Ending]:
    parts = fitted(estimator, "estimators_")
    if estimator.multilabel_:
        raise InputError(f"{name}: expected one label a record; for several use one model a label")
    endings = [_ended(name, part) for part in parts]
    layers = [steps[0][1] for steps, _ in endings]
    if any(len(steps) != 1 for steps, _ in endings):
        raise InputError(f"{name}: expected linear models inside, such as LogisticRegression or LinearSVC")
    dense = [layer for layer in layers if isinstance(layer, Dense)]
    layer = Dense(
        weights=np.concatenate([part.weights for part in dense]), bias=np.concatenate([part.bias for part in dense])
    )
    probable = all(_kind(part, _ESTIMATORS) in ("LogisticRegression",) or _is_log_loss(part) for part in parts)
    classes = class_labels(name, estimator)
    if probable:
        return [(name, layer)], Ending(head=Head.BINARY if len(dense) == 1 else Head.ONE_VS_REST, classes=classes)
    return [(name, layer)], Ending(flat=len(dense) == 1, classes=classes)


def _is_log_loss(estimator: Any) -> bool:
    return is_sklearn(estimator, "SGDClassifier") and estimator.loss == "log_loss"


def _mlp(name: str, estimator: Any) -> tuple[Steps, Ending]:
    weights, biases = fitted(estimator, "coefs_"), estimator.intercepts_
    function = _MLP_FUNCTIONS[estimator.activation]
    layers: Steps = []
    for index, (matrix, bias) in enumerate(zip(weights, biases, strict=True), start=1):
        layers.append((f"{name}, layer {index}", Dense(weights=numbers(matrix).T.copy(), bias=numbers(bias))))
        if index < len(weights) and function is not None:
            layers.append((f"{name}, {estimator.activation} {index}", Activation(function=function)))
    if is_sklearn(estimator, "MLPRegressor"):
        return layers, Ending(flat=True)
    if estimator.out_activation_ == "softmax":
        return layers, Ending(head=Head.SOFTMAX, classes=class_labels(name, estimator))
    if estimator.n_outputs_ == 1:
        return layers, Ending(head=Head.BINARY, classes=class_labels(name, estimator))
    return layers, Ending(head=Head.SIGMOID)  # several labels a record


_MLP_FUNCTIONS: Mapping[str, Function | None] = MappingProxyType(
    {"relu": Function.RELU, "tanh": Function.TANH, "logistic": Function.SIGMOID, "identity": None}
)

# Looked up along an estimator's bases, nearest first: `Ridge` is a `LinearModel`, `Perceptron` an SGD classifier.
_ESTIMATORS: Mapping[str, Callable[[str, Any], tuple[Steps, Ending]]] = MappingProxyType(
    {
        "OneVsRestClassifier": _one_vs_rest,
        "MLPClassifier": _mlp,
        "MLPRegressor": _mlp,
        "LogisticRegression": _logistic,
        "LinearDiscriminantAnalysis": _logistic,
        "SGDClassifier": _sgd,
        "BaseSGDClassifier": _linear_classifier,
        "LinearSVC": _linear_classifier,
        "RidgeClassifier": _linear_classifier,
        "RidgeClassifierCV": _linear_classifier,
        "LinearModel": _linear_regressor,
        "SGDRegressor": _linear_regressor,
        "BaseSGDRegressor": _linear_regressor,
    }
)


def _dense(estimator: Any) -> Dense:
    weights = np.atleast_2d(numbers(fitted(estimator, "coef_")))
    return Dense(weights=weights, bias=np.broadcast_to(numbers(estimator.intercept_), (len(weights),)).copy())


def class_labels(name: str, estimator: Any) -> tuple[str, ...] | tuple[int, ...]:
    """Labels as text or whole numbers; ``False`` and ``True`` become 0 and 1, to which they are equal.

    Raises:
        InputError: other labels.
    """
    labels = np.asarray(fitted(estimator, "classes_"))
    if labels.dtype.kind in "US" or all(isinstance(label, str) for label in labels.tolist()):
        return tuple(str(label) for label in labels.tolist())
    if labels.dtype.kind in "biu" or (labels.dtype.kind == "f" and np.all(labels == np.rint(labels))):
        return tuple(int(label) for label in labels.tolist())
    raise InputError(f"{name}: expected classes that are text, whole numbers or booleans, got {labels.dtype}")


def _features(step: Any) -> int:
    return int(fitted(step, "n_features_in_"))


def fitted(step: Any, attribute: str) -> Any:
    """What fitting left behind. Raises ``InputError`` when it is not there."""
    try:
        return getattr(step, attribute)
    except AttributeError as error:
        raise InputError(f"{type(step).__name__}: expected a fitted model; call fit first") from error


def numbers(values: Any) -> Float64[ndarray, "..."]:
    """``values`` as float64. Raises ``InputError`` for one that is not finite."""
    numbers = np.array(values, dtype=np.float64)
    if not np.all(np.isfinite(numbers)):
        raise InputError("model: expected finite weights, got a NaN or an infinity")
    return numbers


def is_sklearn(model: Any, name: str) -> bool:
    """Whether ``model`` is of scikit-learn's class ``name``, or of one that derives from it."""
    return any(base.__name__ == name and base.__module__.startswith("sklearn.") for base in type(model).__mro__)


def _kind(model: Any, known: Mapping[str, Any]) -> str | None:
    """The nearest base of ``model`` that is known."""
    names = (base.__name__ for base in type(model).__mro__ if base.__module__.startswith("sklearn."))
    return next((name for name in names if name in known), None)


def _unsupported(name: str, step: Any) -> InputError:
    kind = type(step).__name__
    advice = next((advice for base, advice in _INSTEAD.items() if is_sklearn(step, base)), None)
    shown = kind if name == kind else f"{name} ({kind})"
    supported = "linear and logistic models, linear SVMs, MLPs, trees and their ensembles, behind scalers and PCA"
    return InputError(f"{shown} cannot be computed on ciphertexts; {advice or f'use one of: {supported}'}")


_INSTEAD: Mapping[str, str] = MappingProxyType(
    {
        "SimpleImputer": "fill gaps before encryption, and compile the steps behind it",
        "OneHotEncoder": "encode categories before encryption, and compile the steps behind it",
        "OrdinalEncoder": "encode categories before encryption, and compile the steps behind it",
        "ColumnTransformer": "transform columns before encryption, and compile the steps behind it",
        "FunctionTransformer": "apply it before encryption, and compile the steps behind it",
        "Normalizer": "it divides by each record's norm: apply it before encryption, or use StandardScaler",
        "QuantileTransformer": "use StandardScaler or MinMaxScaler",
        "PowerTransformer": "apply it before encryption, or use StandardScaler",
        "PolynomialFeatures": "apply it before encryption, or use an MLPClassifier",
        "KernelPCA": "use PCA",
        "SVC": "use LinearSVC, or an MLPClassifier where a kernel is needed",
        "NuSVC": "use LinearSVC, or an MLPClassifier where a kernel is needed",
        "SVR": "use LinearSVR, or an MLPRegressor where a kernel is needed",
        "KNeighborsClassifier": "it keeps its training records: use LogisticRegression or an MLPClassifier",
        "KNeighborsRegressor": "it keeps its training records: use Ridge or an MLPRegressor",
        "GaussianProcessClassifier": "use an MLPClassifier",
        "GaussianNB": "use LogisticRegression",
        "CalibratedClassifierCV": "compile the model inside, and calibrate its answers after decryption",
        "VotingClassifier": "compile one of its models, or a GradientBoostingClassifier",
        "StackingClassifier": "compile one of its models, or a GradientBoostingClassifier",
        "GammaRegressor": "use Ridge on the logarithm of the target",
        "PoissonRegressor": "use Ridge on the logarithm of the target",
    }
)
