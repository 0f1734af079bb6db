"""Trained models in files that execute nothing when they are read: skops, safetensors with a config, XGBoost's JSON."""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

from mibao.errors import InputError, MissingExtra
from mibao.he.files import read_bytes
from mibao.he.forests import Forest
from mibao.he.model_config import network_of_files
from mibao.he.models import DEFAULT_MARGIN, bounds_from, forest_from, network_of
from mibao.he.models_trees import forest_of_json, holds_trees
from mibao.he.network import Network

_PICKLES = (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt", ".sav", ".bin")
_PICKLE_START = b"\x80"  # of protocol 2 and later
_WANTED = "expected a skops file (skops.io.dump), safetensors beside a JSON config, or XGBoost's own .json"
# Arrays and settings of scikit-learn that skops does not trust by itself; only their attributes are read here.
_TRUSTED = frozenset(
    {
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
        "sklearn.tree._tree.Tree",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn._loss.link.IdentityLink",
        "sklearn._loss.link.Interval",
        "sklearn._loss.link.LogitLink",
        "sklearn._loss.link.MultinomialLogit",
    }
)
# What skops and scikit-learn raise over a file that is damaged, hostile, or of another version.
_FAULTS = (
    zipfile.BadZipFile, OSError, KeyError, IndexError, ValueError, TypeError, AttributeError, ImportError,
    NotImplementedError, RecursionError, MemoryError, UnicodeError, EOFError, zlib.error, struct.error, RuntimeError,
)  # fmt: skip


def read_model(path: Path, *, calibration: Any, margin: float = DEFAULT_MARGIN) -> Network | Forest:
    """The model in a file, with the input bounds that ``calibration`` shows.

    Args:
        path: ``NAME.skops``; ``NAME.safetensors`` with ``NAME.json`` beside it; or a ``.json`` of XGBoost.

    Raises:
        InputError: the file is missing, is a pickle or of another kind, holds types that are not trusted, or a model
            that cannot be computed on ciphertexts.
        MissingExtra: a skops file, and skops is not installed.
    """
    data = read_bytes(path)
    if path.suffix in _PICKLES or data.startswith(_PICKLE_START):
        raise InputError(f"{path}: {_WANTED}; a pickle executes code when it is read")
    if path.suffix == ".safetensors":
        low, high = bounds_from(calibration, margin=margin)
        return network_of_files(data, read_bytes(path.with_suffix(".json")), low=low, high=high)
    if path.suffix == ".json":
        low, high = bounds_from(calibration, margin=margin)
        return forest_of_json(_json_of(path, data), low=low, high=high)
    if path.suffix == ".skops":
        model = skops_model(data, name=str(path))
        build = forest_from if holds_trees(model) else network_of
        return build(model, calibration=calibration, margin=margin)
    raise InputError(f"{path}: {_WANTED}")


def skops_model(data: bytes, *, name: str) -> Any:
    """The scikit-learn model in a skops file; ``name`` stands in errors.

    Raises:
        InputError: not such a file, or it holds a type outside scikit-learn and NumPy.
        MissingExtra: skops is not installed.
    """
    try:
        from skops import io  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise MissingExtra("A scikit-learn model in a file", extra="sklearn") from error
    try:
        found = set(io.get_untrusted_types(data=data))
        untrusted = sorted(found - _TRUSTED)
        if untrusted:
            raise InputError(f"{name}: holds types that are not trusted: {', '.join(untrusted)}; nothing was loaded")
        return io.loads(data, trusted=sorted(found))
    except _FAULTS as error:
        raise InputError(f"{name}: {_WANTED}; this file cannot be read ({type(error).__name__})") from error


def _json_of(path: Path, data: bytes) -> Any:
    try:
        held = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected JSON") from error
    if isinstance(held, dict) and "learner" in held:
        return held
    raise InputError(f"{path}: expected XGBoost's JSON; for a network give its .safetensors, with the config beside it")
