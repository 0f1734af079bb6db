"""Encrypted rows a second of logistic regression on 30 features, as the server pays for them.

CPU time on one thread, from the bytes of a request to the bytes of an answer, digests and serialization included.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.harness import Bench, Measurement, NotMeasured, beside_peer
from benchmarks.peers.venvs import ask, ask_python

_FEATURES = 30
_ROUNDS = 5
_ROWS = 2048
_BOUND = 8.0
_LARGEST_ERROR = 1e-3
_MODES = {"clear": "encrypted-data", "both": "encrypted-both"}


def encrypted_rows_per_second(mode: str) -> float:
    """Rows a second of one full batch, the fastest of several rounds, in ``mode`` ``"clear"`` or ``"both"``.

    Raises:
        NotMeasured: a logit was off by more than 1e-3.
    """
    from mibao import he
    from mibao.he.network import Dense, Node

    rng = np.random.default_rng(0)
    weights, bias = rng.normal(size=(_FEATURES, 1)) * 0.5, np.array([0.25])
    host = "model" if mode == "clear" else "host"
    owner = "model" if mode == "clear" else "owner"
    roles = he.Roles(data_owner="owner", model_owner=owner, compute_host=host)
    bounds = np.full(_FEATURES, _BOUND)
    layer = Dense(weights=weights.T, bias=bias)
    network = he.Network(low=-bounds, high=bounds, nodes=(Node(layer=layer, inputs=(0,)),))
    circuit = he.compile_circuit(network, mode=he.ComputeMode(_MODES[mode]), roles=roles, rows=_ROWS)
    client, server = circuit.keygen()
    records = rng.normal(size=(circuit.spec.request.rows, _FEATURES)).clip(-_BOUND, _BOUND)
    request = client.encrypt(records)
    seconds = []
    for _ in range(_ROUNDS):
        started = time.process_time()
        answer = server.evaluate(request)
        seconds.append(time.process_time() - started)
    error = float(np.max(np.abs(client.decrypt(answer) - (records @ weights + bias))))
    print(f"{circuit.spec.parameters}: largest error {error:.1e}", file=sys.stderr)
    if error > _LARGEST_ERROR:
        raise NotMeasured(f"a logit is off by {error:.1e}")
    return len(records) / min(seconds)


def measure(mode: str, row: str) -> Iterator[Measurement]:
    """Ours and TenSEAL's best batched layout, each in a fresh process."""
    yield beside_peer(
        row,
        ours=lambda: ask_python(Path(sys.executable), "-m", "benchmarks.he", mode, one_thread=True)["rows_per_s"],
        peer=lambda: ask("tenseal", "tenseal_rows.py", mode, one_thread=True)["batched_rows_per_s"],
    )


BENCHES = (
    Bench(rows=("he.clear_weights",), measure=lambda: measure("clear", "he.clear_weights")),
    Bench(rows=("he.encrypted_weights",), measure=lambda: measure("both", "he.encrypted_weights")),
)

if __name__ == "__main__":
    print(json.dumps({"rows_per_s": encrypted_rows_per_second(sys.argv[1])}))
