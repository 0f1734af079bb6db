"""Flower's SecAgg+: one round through its own client functions: ``CLIENTS PARAMETERS SHARES THRESHOLD``.

Each client shares with the ``SHARES`` clients around it on a circle, itself among them, as its workflow arranges it.
Give it no more shares than the promise takes: its Shamir is pure Python, and 100 shares each cost its clients about
twenty times as much as a neighbourhood of 23 does, which nobody would choose.

CPU seconds on one thread, every client and the server in turn. The server's part follows its workflow's own order with
its own functions: add the masked vectors, rebuild each private seed, take its mask off. Nobody drops out.
"""

import importlib
import json
import sys
import time
from typing import Any

import numpy as np
from flwr.common import ConfigRecord, bytes_to_ndarray, ndarrays_to_parameters
from flwr.common.secure_aggregation.crypto.shamir import combine_shares
from flwr.common.secure_aggregation.ndarrays_arithmetic import (
    factor_extract,
    get_parameters_shape,
    parameters_addition,
    parameters_mod,
    parameters_subtraction,
)
from flwr.common.secure_aggregation.quantization import dequantize
from flwr.common.secure_aggregation.secaggplus_constants import Key
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen

mod: Any = importlib.import_module("flwr.client.mod.secure_aggregation.secaggplus_mod")
CLIPPING, TARGET, MODULUS = 8.0, 1 << 22, 1 << 32  # the defaults of its workflow


def setup(clients: int, *, shares: int, threshold: int) -> ConfigRecord:
    """What its server sends first."""
    return ConfigRecord(
        {
            Key.SAMPLE_NUMBER: clients,
            Key.SHARE_NUMBER: shares,
            Key.THRESHOLD: threshold,
            Key.CLIPPING_RANGE: CLIPPING,
            Key.TARGET_RANGE: TARGET,
            Key.MOD_RANGE: MODULUS,
            Key.MAX_WEIGHT: 1000.0,
        }
    )


class Round:
    """Every client's state and what it sent, stage by stage, with the CPU time it took."""

    def __init__(self, clients: int, parameters: int, *, shares: int, threshold: int) -> None:
        self.states: dict[int, Any] = {}
        self.seconds = dict.fromkeys(range(1, clients + 1), 0.0)
        self.shares, self.threshold = shares, threshold
        half, numbers = shares // 2, list(self.seconds)
        around = range(-half, half + 1) if shares < clients else range(clients)
        self.near = {n: {numbers[(place + step) % clients] for step in around} for place, n in enumerate(numbers)}
        self.vectors = {n: np.random.default_rng(n).normal(size=parameters).astype(np.float32) for n in self.seconds}
        for number in self.seconds:
            self.states[number] = mod.SecAggPlusState()
            self.states[number].nid = number

    def timed(self, number: int, call: Any, *given: Any) -> dict[str, Any]:
        """One client's stage."""
        started = time.process_time()
        answer: dict[str, Any] = call(self.states[number], *given)
        self.seconds[number] += time.process_time() - started
        return answer

    def upload(self) -> dict[int, Any]:
        """Stages 0 to 2: everybody's masked vector."""
        numbers = list(self.seconds)
        ask = setup(len(numbers), shares=self.shares, threshold=self.threshold)
        first = {n: self.timed(n, mod._setup, ConfigRecord(dict(ask))) for n in numbers}
        keys = {n: [first[n][Key.PUBLIC_KEY_1], first[n][Key.PUBLIC_KEY_2]] for n in numbers}
        shares = {
            n: self.timed(n, mod._share_keys, ConfigRecord({str(m): keys[m] for m in sorted(self.near[n])}))
            for n in numbers
        }
        inbox: dict[int, tuple[list[int], list[bytes]]] = {n: ([], []) for n in numbers}
        for source, sent in shares.items():
            for target, text in zip(sent[Key.DESTINATION_LIST], sent[Key.CIPHERTEXT_LIST], strict=True):
                inbox[target][0].append(source)
                inbox[target][1].append(text)
        return {n: self.masked(n, *inbox[n]) for n in numbers}

    def masked(self, number: int, sources: list[int], texts: list[bytes]) -> Any:
        """Stage 2 of one client."""
        configs = ConfigRecord({Key.SOURCE_LIST: sources, Key.CIPHERTEXT_LIST: texts})
        fitted = ndarrays_to_parameters([self.vectors[number]])
        return self.timed(number, mod._collect_masked_vectors, configs, 10, fitted)[Key.MASKED_PARAMETERS]


def bytes_of(masked: Any) -> int:
    """Bytes of one upload."""
    return sum(len(part) for part in masked)


def vectors_of(masked: Any) -> list[Any]:
    """The arrays in an upload."""
    return [bytes_to_ndarray(part) for part in masked]


def main(clients: int, parameters: int, shares: int, threshold: int) -> dict[str, float]:
    """The figures of one round."""
    played = Round(clients, parameters, shares=shares, threshold=threshold)
    uploads = played.upload()
    numbers = list(played.seconds)
    held: dict[int, list[bytes]] = {n: [] for n in numbers}
    for number in numbers:
        ask = ConfigRecord({Key.ACTIVE_NODE_ID_LIST: sorted(played.near[number]), Key.DEAD_NODE_ID_LIST: []})
        revealed = played.timed(number, mod._unmask, ask)
        for owner, share in zip(revealed[Key.NODE_ID_LIST], revealed[Key.SHARE_LIST], strict=True):
            held[owner].append(share)
    decoded = {n: vectors_of(one) for n, one in uploads.items()}
    started = time.process_time()
    total = decoded[numbers[0]]
    for number in numbers[1:]:
        total = parameters_addition(total, decoded[number])
    total = parameters_mod(total, MODULUS)
    for number in numbers:
        seed = combine_shares(held[number])  # all that came, as its workflow does
        total = parameters_subtraction(total, pseudo_rand_gen(seed, MODULUS, get_parameters_shape(total)))
    ratio, total = factor_extract(parameters_mod(total, MODULUS))
    mean = dequantize(total, CLIPPING, TARGET)[0] - (clients - 1) * CLIPPING
    server = time.process_time() - started
    expected = sum(played.vectors.values()) / clients
    assert np.abs(mean * (TARGET / ratio) - expected).max() < 1e-2, "its own sum does not come out"
    each = sorted(played.seconds.values())
    return {
        "client_s": each[len(each) // 2],
        "clients_s": sum(each),
        "server_s": server,
        "upload_bytes": float(bytes_of(uploads[numbers[0]])),
        "messages": 4.0,
    }


if __name__ == "__main__":
    print(json.dumps(main(*map(int, sys.argv[1:]))))
