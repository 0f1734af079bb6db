"""De-identification as a step of a scikit-learn pipeline. Needs scikit-learn and, for policies that use it, a key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mibao.deid.columns import Column
from mibao.deid.custom import CustomTypes
from mibao.deid.detection import default_engine
from mibao.deid.masking import scope_key
from mibao.deid.operations import Operator
from mibao.deid.policies import PSEUDONYMS, REPLACE, Policy, ready_policy
from mibao.deid.tables import SAMPLE_ROWS, TableMasker
from mibao.errors import InputError, MissingExtra

try:
    from sklearn.base import BaseEstimator, TransformerMixin
    from sklearn.utils.validation import check_is_fitted
except ImportError as error:
    raise MissingExtra("a scikit-learn transformer", extra="sklearn") from error

_OWN = {"replace": REPLACE, "pseudonyms": PSEUDONYMS}


class Deidentifier(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Changes the personal data in tables and texts as a policy says; what comes in comes out in the same shape.

    ``fit`` infers the type of each column from its name and a sample; ``transform`` changes cells by it, and searches
    those of columns without a type as text. Takes a pandas DataFrame or Series, a two-dimensional array, or a list of
    texts. Numbers and nothing stay what they are, unless they are personal data.

    Args:
        policy: The name of a ready policy, ``replace``, ``pseudonyms``, or a :class:`~mibao.deid.policies.Policy`.
        key: 32 bytes, for policies that depend on one: a pickled estimator holds it.
        scope: Whose data these are: two scopes share no pseudonym.
        types: Types of the user's own.
    """

    def __init__(
        self,
        policy: str | Policy = "replace",
        *,
        key: bytes | None = None,
        scope: str = "sklearn",
        types: CustomTypes | None = None,
    ) -> None:
        self.policy = policy
        self.key = key
        self.scope = scope
        self.types = types

    def fit(self, X: Any, y: object = None) -> Deidentifier:  # noqa: N803 - scikit-learn's name
        """Infer the columns' types.

        Raises:
            InputError: there is no such policy, it needs a key, or ``X`` is neither a table nor texts.
        """
        del y
        named = _columns(X)
        sample = {name: [_text(value) for value in list(values)[:SAMPLE_ROWS]] for name, values in named.items()}
        self.columns_: dict[str, Column] = self._masker(sample).columns
        self.n_features_in_ = len(named)
        if hasattr(X, "columns"):
            self.feature_names_in_ = np.array([*named], dtype=object)
        return self

    def transform(self, X: Any) -> Any:  # noqa: N803
        """``X`` with its personal data changed.

        Raises:
            InputError: ``X`` has other columns than what was fitted.
        """
        check_is_fitted(self)
        named = _columns(X)
        if [*named] != [*self.columns_]:
            raise InputError(f"Deidentifier: expected the {len(self.columns_)} columns that were fitted, got others")
        masker = self._masker({})
        masker.columns = dict(self.columns_)
        changed = {name: _changed(masker, name, values) for name, values in named.items()}
        if hasattr(X, "columns"):
            out = X.copy()
            for name, values in changed.items():
                out[name] = values
            return out
        if np.ndim(X) == 1:
            (values,) = changed.values()
            return X.__class__(values, index=X.index, name=X.name) if hasattr(X, "iloc") else _objects(values)
        return np.stack([_objects(values) for values in changed.values()], axis=1)

    def get_feature_names_out(self, input_features: Sequence[str] | None = None) -> Any:
        """The columns' names, which stay."""
        check_is_fitted(self)
        return np.array([*self.columns_] if input_features is None else [*input_features], dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.one_d_array = tags.input_tags.two_d_array = True
        tags.input_tags.categorical = tags.input_tags.allow_nan = True
        tags.requires_fit = True
        return tags

    def _masker(self, sample: dict[str, list[str]]) -> TableMasker:
        policy = self.policy if isinstance(self.policy, Policy) else _OWN.get(self.policy) or ready_policy(self.policy)
        own = None if self.key is None else scope_key(self.key, self.scope)
        if self.types is None:
            return TableMasker(Operator(policy, scope_key=own), sample, engine=default_engine())
        policy = self.types.applied_to(policy)
        return TableMasker(
            Operator(policy, scope_key=own), sample, engine=self.types.engine, detectors=self.types.detectors
        )


def _columns(table: Any) -> dict[str, Any]:
    """The columns by name; texts alone are the one column ``text``, those of an array are called by their place."""
    if hasattr(table, "columns"):
        names = [str(name) for name in table.columns]
        if len(set(names)) < len(names) or not all(isinstance(name, str) for name in table.columns):
            raise InputError("Deidentifier: expected columns whose names are text, each once")
        return {name: table[name].tolist() for name in names}
    if isinstance(table, str) or np.ndim(table) not in (1, 2):
        raise InputError("Deidentifier: expected a DataFrame, a Series, an array of one or two dimensions, or texts")
    if np.ndim(table) == 1:
        return {"text": [*table]}
    return {f"x{index}": column.tolist() for index, column in enumerate(_objects(table).T)}


def _changed(masker: TableMasker, name: str, values: Sequence[Any]) -> list[Any]:
    """A column changed; a value that is no text becomes one only where it is changed."""
    before = [None if _is_nothing(value) or isinstance(value, bool) else _text(value) for value in values]
    after = masker.column(name, before)
    return [
        value if text == changed else changed for value, text, changed in zip(values, before, after, strict=True)
    ]  # fmt: skip


def _is_nothing(value: Any) -> bool:
    return value is None or bool(value != value)  # noqa: PLR0124 - NaN, whatever its type


def _text(value: Any) -> str:
    return "" if _is_nothing(value) else value if isinstance(value, str) else str(value)


def _objects(values: Any) -> Any:
    made = np.empty(np.shape(values), dtype=object)
    made[...] = values
    return made
