"""The trained models that ours and the peers compute alike: digits MLP and CNN with squares, logistic regression.

Trained once with a fixed seed and kept as arrays in ``.bench-cache/he``, which every peer's script reads with NumPy.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray[Any, np.dtype[Any]]]

CACHE = Path(__file__).resolve().parents[1] / ".bench-cache" / "he"
NAMES = ("mlp", "cnn", "lr")
_TRAINED = 1400  # of 1797 digits; the others are the test set
_EPOCHS = 40


def arrays(name: str) -> Path:
    """The ``.npz`` of ``name``: weights as torch and scikit-learn have them, ``train``, ``test`` and ``target``."""
    path = CACHE / f"{name}.npz"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        print(f"training the model {name} ...", file=sys.stderr)
        trained = _logistic() if name == "lr" else _digits(name)
        np.savez(path, **trained)  # type: ignore[arg-type]
    return path


def _digits(name: str) -> Arrays:
    import torch
    from sklearn.datasets import load_digits
    from torch.nn import functional

    torch.manual_seed(0)
    torch.set_num_threads(1)
    records, target = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(records))
    records, target = records[order], target[order]
    x, y = torch.tensor(records / 16.0, dtype=torch.float32), torch.tensor(target)
    shapes = {"mlp": ((64, 64), (10, 64)), "cnn": ((4, 1, 3, 3), (10, 144))}[name]
    first, second = (torch.randn(shape) / np.sqrt(np.prod(shape[1:])) for shape in shapes)
    parameters = [first, torch.zeros(shapes[0][0]), second, torch.zeros(10)]
    for parameter in parameters:
        parameter.requires_grad_()

    def logits(batch: Any) -> Any:
        w1, b1, w2, b2 = parameters
        if name == "cnn":
            hidden = functional.conv2d(batch.reshape(-1, 1, 8, 8), w1, b1).flatten(1)
        else:
            hidden = functional.linear(batch, w1, b1)
        return functional.linear(hidden * hidden, w2, b2)

    optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.05)
    for _ in range(_EPOCHS):
        for rows in torch.randperm(_TRAINED).split(50):
            optimizer.zero_grad()
            functional.cross_entropy(logits(x[rows]), y[rows]).backward()
            optimizer.step()
    held = [parameter.detach().double().numpy() for parameter in parameters]
    return {
        **dict(zip(("w1", "b1", "w2", "b2"), held, strict=True)),
        "train": x[:_TRAINED].double().numpy(),
        "test": x[_TRAINED:].double().numpy(),
        "target": target[_TRAINED:],
    }


def _logistic() -> Arrays:
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    records, target = load_breast_cancer(return_X_y=True)
    scaled = StandardScaler().fit(records[:400]).transform(records).clip(-8, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LogisticRegression().fit(scaled[:400], target[:400])
    return {
        "w": model.coef_[0],
        "b": model.intercept_,
        "train": scaled[:400],
        "test": scaled[400:],
        "target": target[400:],
    }


def plain(name: str, held: Any, records: np.ndarray[Any, np.dtype[Any]]) -> np.ndarray[Any, np.dtype[Any]]:
    """The logits in clear, shape (rows, outputs)."""
    if name == "lr":
        return np.asarray((records @ held["w"] + held["b"])[:, None])
    if name == "mlp":
        hidden = records @ held["w1"].T + held["b1"]
    else:
        windows = np.lib.stride_tricks.sliding_window_view(records.reshape(-1, 8, 8), (3, 3), axis=(1, 2))
        hidden = np.einsum("nyxij,oij->noyx", windows, held["w1"][:, 0]) + held["b1"][:, None, None]
        hidden = hidden.reshape(len(records), -1)
    return np.asarray(hidden**2 @ held["w2"].T + held["b2"])


if __name__ == "__main__":
    for each in NAMES:
        with np.load(arrays(each)) as held:
            found = plain(each, held, held["test"])
            chosen = found[:, 0] > 0 if each == "lr" else found.argmax(axis=1)
            print(each, f"accuracy {np.mean(chosen == held['target']):.4f}, logits within {np.abs(found).max():.1f}")
