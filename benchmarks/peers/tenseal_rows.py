"""TenSEAL: rows a second of encrypted logistic regression on 30 features: ``clear|both``.

Measured as a server sees it, in CPU time on one thread: from the bytes of a request to the bytes of an answer. Three
layouts: a vector a row with a dot product (its tutorials' way), and for batches one vector a feature, or its tensor in
batched mode; the faster one counts. The parameters are the smallest that it takes: a single prime it refuses. After
rescaling it sets the scale to its nominal value, which costs precision, so it may err more than ours may.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tenseal as ts

FEATURES = 30
ROUNDS = 5
LARGEST_ERROR = 1e-2
DEGREE, PRIMES, SCALE = 4096, [38, 30, 38], 2.0**30
ROWS = DEGREE // 2
Weights = np.ndarray[Any, np.dtype[np.float64]]


def context() -> Any:
    """TenSEAL's context; the secret key is in it, as in its tutorials, and only used to check the answer."""
    made = ts.context(ts.SCHEME_TYPE.CKKS, DEGREE, coeff_mod_bit_sizes=PRIMES, n_threads=1)
    made.global_scale = SCALE
    return made


def best(evaluate: Callable[[], bytes], rows: int) -> tuple[float, bytes]:
    """Rows a second over the fastest of several rounds, and the last answer."""
    seconds = []
    for _ in range(ROUNDS):
        started = time.process_time()
        answer = evaluate()
        seconds.append(time.process_time() - started)
    return rows / min(seconds), answer


def one_row(mode: str, weights: Weights, bias: float) -> tuple[float, float]:
    """One vector a row, one dot product."""
    made = context()
    made.generate_galois_keys()
    row = np.random.default_rng(1).normal(size=FEATURES)
    request = ts.ckks_vector(made, row).serialize()
    factor = ts.ckks_vector(made, weights) if mode == "both" else weights

    def evaluate() -> bytes:
        return (ts.ckks_vector_from(made, request).dot(factor) + bias).serialize()  # type: ignore[no-any-return]

    rate, answer = best(evaluate, 1)
    return rate, float(abs(ts.ckks_vector_from(made, answer).decrypt()[0] - (row @ weights + bias)))


def columns(mode: str, weights: Weights, bias: float) -> tuple[float, float]:
    """One vector a feature: a product and a sum each, no rotation. Relinearized once, after the sum."""
    made = context()
    made.auto_relin = mode == "clear"
    records = np.random.default_rng(2).normal(size=(ROWS, FEATURES))
    request = [ts.ckks_vector(made, column).serialize() for column in records.T]
    if mode == "both":
        factors = [ts.ckks_vector(made, np.full(ROWS, weight)) for weight in weights]
    else:
        factors = [ts.plain_tensor(np.full(ROWS, weight)) for weight in weights]

    def evaluate() -> bytes:
        total: Any = None
        for sent, factor in zip(request, factors, strict=True):
            product = ts.ckks_vector_from(made, sent) * factor
            total = product if total is None else total + product
        return (total + [bias] * ROWS).serialize()  # type: ignore[no-any-return]

    rate, answer = best(evaluate, ROWS)
    got = np.array(ts.ckks_vector_from(made, answer).decrypt())
    return rate, float(np.abs(got - (records @ weights + bias)).max())


def tensor(mode: str, weights: Weights, bias: float) -> tuple[float, float]:
    """Its own batched mode: a tensor of 30 ciphertexts, rows in the slots."""
    made = context()
    records = np.random.default_rng(3).normal(size=(ROWS, FEATURES))
    request = ts.ckks_tensor(made, ts.plain_tensor(records), batch=True).serialize()
    factor = ts.plain_tensor(weights)
    if mode == "both":
        factor = ts.ckks_tensor(made, ts.plain_tensor(np.tile(weights, (ROWS, 1))), batch=True)

    def evaluate() -> bytes:
        return ((ts.ckks_tensor_from(made, request) * factor).sum(1) + bias).serialize()  # type: ignore[no-any-return]

    rate, answer = best(evaluate, ROWS)
    got = np.array(ts.ckks_tensor_from(made, answer).decrypt().tolist()).ravel()
    return rate, float(np.abs(got - (records @ weights + bias)).max())


def main(mode: str) -> dict[str, float]:
    """Every layout; what fails or errs too much is said on standard error and left out."""
    rng = np.random.default_rng(0)
    weights, bias = rng.normal(size=FEATURES) * 0.5, 0.25
    figures: dict[str, float] = {}
    for layout, kind in ((one_row, "one_row"), (columns, "batched"), (tensor, "batched")):
        try:
            rate, error = layout(mode, weights, bias)
        except (ValueError, RuntimeError, TypeError) as problem:
            print(f"{layout.__name__}: {str(problem).splitlines()[0]}", file=sys.stderr)
            continue
        print(f"{layout.__name__}: {rate:,.0f} rows/s, largest error {error:.1e}", file=sys.stderr)
        if error <= LARGEST_ERROR:
            figures[f"{kind}_rows_per_s"] = max(figures.get(f"{kind}_rows_per_s", 0.0), rate)
    return figures


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
