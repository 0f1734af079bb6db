"""The same trained models on ciphertexts: ours beside Orion v2 and TenSEAL, as a server pays for them.

CPU time on one thread, from the bytes of a request to the bytes of an answer, digests and serialization included.
Concrete-ML pins another PyTorch and 2 GB of CUDA: its figure is from an earlier measurement, and marked so.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Bench, Measurement, NotMeasured, in_turn, rounds
from benchmarks.he_models import arrays, plain
from benchmarks.peers.venvs import ask, ask_python

_LARGEST_ERROR = 1e-3
_LEAST_AGREEMENT = 0.999
_BOTH = "both"
_FLOODED, _RELEASED = "flooded", 1000
_CONCRETE = {
    "mlp": "Concrete-ML 1.9 with ReLU at 6 bits 18,000-22,000 ms (an earlier measurement)",
    "cnn": "Concrete-ML not measured",
    "lr": "Concrete-ML 1.9 6.2 ms (an earlier measurement)",
}


def encrypted_network(name: str, rows: int, mode: str = "data") -> dict[str, float]:
    """Our figures for requests of ``rows`` rows; the error and the agreement are those of the whole test set.

    Raises:
        NotMeasured: an answer was off by more than 1e-3, or a class changed.
    """
    from mibao import he

    held = np.load(arrays(name))
    both = mode == _BOTH
    roles = he.Roles(
        data_owner="owner", model_owner="owner" if both else "host", compute_host="cloud" if both else "host"
    )
    circuit = he.compile(
        _network(name, held),
        calibration=np.concatenate([held["train"], held["test"]]),
        mode=he.ComputeMode.ENCRYPTED_BOTH if both else he.ComputeMode.ENCRYPTED_DATA,
        roles=roles,
        rows=rows,
        release=he.Release(answers_limit=_RELEASED, statistical_bits=40) if mode == _FLOODED else None,
    )
    client, server = circuit.keygen()
    read = _reader(client, mode)
    seconds, answers = [], []
    test = held["test"][:20] if mode == _FLOODED else held["test"]
    batches = max(-(-len(test) // rows), 3)
    for batch in range(batches):
        request = client.encrypt(test[np.arange(batch * rows, (batch + 1) * rows) % len(test)])
        started = time.process_time()
        answer = server.evaluate(request)
        seconds.append(time.process_time() - started)
        answers.append(read(answer))
    got = np.concatenate(answers)[: len(test)]
    wanted = plain(name, held, test)
    error, agreement = float(np.abs(got - wanted).max()), float(np.mean(_classes(got) == _classes(wanted)))
    print(f"{name}, {rows} rows, {circuit.spec.parameters}: largest error {error:.1e}", file=sys.stderr)
    if error > _LARGEST_ERROR or agreement < _LEAST_AGREEMENT:
        raise NotMeasured(f"{name}: an answer is off by {error:.1e}, {agreement:.2%} of the classes were kept")
    median = statistics.median(seconds)
    return {
        "ms": median * 1e3,
        "rows_per_s": rows / median,
        "error": error,
        "agreement": 100 * agreement,
        "request_kb": len(request) / 1e3,
        "answer_kb": len(answer) / 1e3,
        "keys_mb": len(server.keys_bytes()) / 1e6,
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }


def _reader(client: Any, mode: str) -> Callable[[bytes], Any]:
    """What reads answers: where they are to be released, through the noise that hides the key, and counted."""
    if mode != _FLOODED:
        read: Callable[[bytes], Any] = client.decrypt_logits
        return read
    from mibao.he.release_state import ReleaseFile

    limits = {"answers_limit": _RELEASED, "statistical_bits": 40}
    count = ReleaseFile(Path(tempfile.mkdtemp()) / "client.released", key_id=client.key_id)
    count.create(client.release_policy(**limits))
    return lambda answer: client.decrypt_for_release(answer, count=count, **limits)


def _network(name: str, held: Any) -> Any:
    from mibao.he.network import Convolution, Dense, Image, Network, Node, Square

    if name == "lr":
        layers: list[Any] = [Dense(weights=held["w"][None], bias=held["b"])]
    else:
        first: Any = Dense(weights=held["w1"], bias=held["b1"]) if name == "mlp" else None
        if first is None:
            image = Image(channels=1, height=8, width=8)
            first = Convolution(kernel=held["w1"], bias=held["b1"], image=image)
        layers = [first, Square(), Dense(weights=held["w2"], bias=held["b2"])]
    records = np.concatenate([held["train"], held["test"]])
    nodes = tuple(Node(layer=layer, inputs=(index,)) for index, layer in enumerate(layers))
    return Network(low=records.min(axis=0), high=records.max(axis=0), nodes=nodes)


def _classes(logits: Any) -> Any:
    return logits[:, 0] > 0 if logits.shape[1] == 1 else logits.argmax(axis=1)


def _ours(name: str, rows: int, mode: str = "data") -> dict[str, float]:
    return ask_python(Path(sys.executable), "-m", "benchmarks.he_networks", name, str(rows), mode, one_thread=True)


def _peer(peer: str, name: str) -> dict[str, float]:
    script = {"orion": "orion_rows.py", "tenseal": "tenseal_models.py"}[peer]
    return ask(peer, script, name, str(arrays(name)), one_thread=True)


def one_sample(name: str) -> Iterator[Measurement]:
    """Ours, Orion and TenSEAL in turn; the faster peer stands in the row, the other in its note."""
    held = _ours(name, 1)
    sides: dict[str, Callable[[], float]] = {"ours": lambda: _ours(name, 1)["ms"]}
    notes = [_CONCRETE[name], _figures(held)]
    for peer in ("orion", "tenseal"):
        try:
            found = _peer(peer, name)
        except (OSError, subprocess.SubprocessError) as error:
            notes.append(f"{peer}: {type(error).__name__}")
            continue
        notes.append(f"{peer}: error {found['error']:.1e}, keys {found['keys_bytes'] / 1e6:.1f} MB")
        sides[peer] = lambda peer=peer: _peer(peer, name)["ms"]  # type: ignore[misc]
    figures = dict(zip(sides, in_turn(*sides.values(), rounds=rounds(3)), strict=True))
    notes += [f"{peer} {ms:.1f} ms" for peer, ms in figures.items() if peer != "ours"]
    best = min((ms for peer, ms in figures.items() if peer != "ours"), default=None)
    yield Measurement(id=f"he_networks.{name}_one", ours=figures["ours"], peer=best, note="; ".join(notes))
    if name == "mlp":
        yield Measurement(id="he_networks.keys", ours=held["keys_mb"], note=_figures(held))
        yield Measurement(id="he_networks.request", ours=held["request_kb"])
        yield Measurement(id="he_networks.answer", ours=held["answer_kb"])
        yield Measurement(id="he_networks.error", ours=held["error"], note="MLP, one sample, the whole test set")
        yield Measurement(
            id="he_networks.agreement", ours=held["agreement"], note="MLP, one sample, the whole test set"
        )


def batched(name: str, rows: int, row: str) -> Iterator[Measurement]:
    """Rows a second of requests of ``rows`` rows. TenSEAL's batched tensors stand beside ``he.clear_weights`` only."""
    runs = [_ours(name, rows) for _ in range(rounds(3))]
    rate = statistics.median(run["rows_per_s"] for run in runs)
    yield Measurement(id=row, ours=rate, note=f"no peer's batched mode is measured here; {_figures(runs[0])}")


def encrypted_weights() -> Iterator[Measurement]:
    """What encrypting the weights as well costs: one MLP sample, both modes in turn."""
    both, clear = in_turn(lambda: _ours("mlp", 1, _BOTH)["ms"], lambda: _ours("mlp", 1)["ms"], rounds=rounds(3))
    yield Measurement(id="he_networks.encrypted_weights", ours=both, peer=clear, note="peer: ours, weights in clear")


def released() -> Iterator[Measurement]:
    """One MLP sample whose answer may be shared: noise for 1,000 answers and 40 bits, on the larger ring it takes."""
    runs = [_ours("mlp", 1, _FLOODED) for _ in range(rounds(3))]
    median = statistics.median(run["ms"] for run in runs)
    yield Measurement(id="he_networks.mlp_released", ours=median, note=f"20 samples; {_figures(runs[0])}")


def _figures(found: dict[str, float]) -> str:
    return (
        f"error {found['error']:.1e}, agreement {found['agreement']:.2f}%, request {found['request_kb']:.0f} KB, "
        f"answer {found['answer_kb']:.0f} KB, keys {found['keys_mb']:.1f} MB, memory {found['memory_mb']:.0f} MB"
    )


_MLP_ROWS = ("mlp_one", "keys", "request", "answer", "error", "agreement")
BENCHES = (
    Bench(rows=tuple(f"he_networks.{row}" for row in _MLP_ROWS), measure=lambda: one_sample("mlp")),
    Bench(rows=("he_networks.mlp_64",), measure=lambda: batched("mlp", 64, "he_networks.mlp_64")),
    Bench(rows=("he_networks.mlp_bulk",), measure=lambda: batched("mlp", 4096, "he_networks.mlp_bulk")),
    Bench(rows=("he_networks.cnn_one",), measure=lambda: one_sample("cnn")),
    Bench(rows=("he_networks.cnn_batch",), measure=lambda: batched("cnn", 64, "he_networks.cnn_batch")),
    Bench(rows=("he_networks.lr_one",), measure=lambda: one_sample("lr")),
    Bench(rows=("he_networks.lr_bulk",), measure=lambda: batched("lr", 1024, "he_networks.lr_bulk")),
    Bench(rows=("he_networks.encrypted_weights",), measure=encrypted_weights),
    Bench(rows=("he_networks.mlp_released",), measure=released),
)

if __name__ == "__main__":
    print(json.dumps(encrypted_network(sys.argv[1], int(sys.argv[2]), sys.argv[3])))
