"""A model of another library, as a task takes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mibao.errors import InputError, MissingExtra
from mibao.federated.models import LinearRegression, LogisticRegression, Model
from mibao.federated.records import Records

_LINEAR: dict[str, type[LinearRegression] | type[LogisticRegression]] = {
    "LinearRegression": LinearRegression,
    "LogisticRegression": LogisticRegression,
}


def adopt(given: Any, *, loss: Any, records: Callable[[], Records]) -> Model:
    """``given`` as a model: a PyTorch module or what makes one, or a linear model of scikit-learn.

    Args:
        loss: Of a PyTorch module.
        records: The first site's, for a scikit-learn model, which knows its size only from data.

    Raises:
        InputError: none of these; names what came.
        MissingExtra: PyTorch is not installed.
    """
    if type(given).__module__.partition(".")[0] == "sklearn":
        return _of_sklearn(given, loss=loss, records=records)
    if loss is None:
        raise InputError(
            "task: expected a model of mibao or scikit-learn, or a PyTorch module with its loss; "
            f"got {getattr(given, '__name__', type(given).__name__)} without a loss"
        )
    try:
        import torch  # noqa: F401, PLC0415 - heavy, and an extra
    except ImportError as error:
        raise MissingExtra("a PyTorch module", extra="torch") from error
    from mibao.federated.models_torch import TorchModel  # noqa: PLC0415

    return TorchModel(given, loss=loss)


def _of_sklearn(given: Any, *, loss: Any, records: Callable[[], Records]) -> Model:
    kind = type(given).__name__
    if kind not in _LINEAR or loss is not None:
        raise InputError(
            f"task: expected LinearRegression or LogisticRegression of scikit-learn without a loss, got {kind}"
        )
    from mibao.federated.models_sklearn import SklearnModel  # noqa: PLC0415

    return SklearnModel(linear=_LINEAR[kind](features=records().features.shape[1]), estimator=given)
