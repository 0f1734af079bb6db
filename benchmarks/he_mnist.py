"""A convolutional network on MNIST, 28x28: four channels of 7x7, stride 3, a square, 64 more, a square, ten logits.

It is the network of TenSEAL's own tutorial, trained here once; MIBAO_DATA names the folder whose ``mnist/`` holds the
four idx files. CPU time on one thread, as a server sees it, from the bytes of a request to the bytes of an answer.
"""

from __future__ import annotations

import gzip
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Bench, Measurement, NotMeasured, in_turn, rounds
from benchmarks.he_models import CACHE, Arrays
from benchmarks.peers.venvs import ask, ask_python

_SIDE, _KERNEL, _STRIDE, _CHANNELS, _HIDDEN = 28, 7, 3, 4, 64
_CALIBRATION, _EPOCHS, _IMAGES = 4000, 12, 12
_LARGEST_ERROR = {"one": 0.5, "bulk": 1e-2}  # of logits that reach 150; accuracy is measured beside it


def arrays() -> Path:
    """The ``.npz`` of the trained network, calibration images, test images and labels.

    Raises:
        NotMeasured: MIBAO_DATA is not set, or holds no MNIST.
    """
    path = CACHE / "lenet.npz"
    if not path.exists():
        folder = Path(os.environ.get("MIBAO_DATA", "")) / "mnist"
        if "MIBAO_DATA" not in os.environ or not folder.is_dir():
            raise NotMeasured("MIBAO_DATA names no folder with mnist/*.gz")
        CACHE.mkdir(parents=True, exist_ok=True)
        print("training the network on MNIST ...", file=sys.stderr)
        np.savez(path, **_trained(folder))  # type: ignore[arg-type]
    return path


def _idx(path: Path) -> np.ndarray[Any, np.dtype[Any]]:
    data = gzip.decompress(path.read_bytes())
    shape = tuple(int.from_bytes(data[4 * axis + 4 : 4 * axis + 8], "big") for axis in range(data[3]))
    return np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def _trained(folder: Path) -> Arrays:
    import torch
    from torch.nn import functional

    torch.manual_seed(0)
    torch.set_num_threads(1)
    images = {
        name: _idx(folder / f"{name}-images-idx3-ubyte.gz").reshape(-1, 784) / 255.0 for name in ("train", "t10k")
    }
    labels = {name: _idx(folder / f"{name}-labels-idx1-ubyte.gz").astype(np.int64) for name in ("train", "t10k")}
    x, y = torch.tensor(images["train"], dtype=torch.float32), torch.tensor(labels["train"])
    places = ((_SIDE - _KERNEL) // _STRIDE + 1) ** 2 * _CHANNELS
    shapes = ((_CHANNELS, 1, _KERNEL, _KERNEL), (_HIDDEN, places), (10, _HIDDEN))
    weights = [torch.randn(shape) / np.sqrt(np.prod(shape[1:])) for shape in shapes]
    biases = [torch.zeros(shape[0]) for shape in shapes]
    for parameter in (*weights, *biases):
        parameter.requires_grad_()

    def logits(batch: Any) -> Any:
        hidden = functional.conv2d(batch.reshape(-1, 1, _SIDE, _SIDE), weights[0], biases[0], stride=_STRIDE)
        hidden = functional.linear(hidden.flatten(1) ** 2, weights[1], biases[1])
        return functional.linear(hidden**2, weights[2], biases[2])

    optimizer = torch.optim.AdamW([*weights, *biases], lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _EPOCHS)
    for _ in range(_EPOCHS):
        for rows in torch.randperm(len(x)).split(128):
            optimizer.zero_grad()
            functional.cross_entropy(logits(x[rows]), y[rows]).backward()
            torch.nn.utils.clip_grad_norm_([*weights, *biases], 1.0)
            optimizer.step()
        schedule.step()
    held = {f"w{index}": weight.detach().double().numpy() for index, weight in enumerate(weights, 1)}
    held |= {f"b{index}": bias.detach().double().numpy() for index, bias in enumerate(biases, 1)}
    return {**held, "train": images["train"][:_CALIBRATION], "test": images["t10k"], "target": labels["t10k"]}


def plain(held: Any, records: Any) -> Any:
    """The logits in clear, shape (rows, 10)."""
    images = records.reshape(-1, _SIDE, _SIDE)
    windows = np.lib.stride_tricks.sliding_window_view(images, (_KERNEL, _KERNEL), axis=(1, 2))[:, ::_STRIDE, ::_STRIDE]
    hidden = np.einsum("nyxij,oij->noyx", windows, held["w1"][:, 0]) + held["b1"][:, None, None]
    hidden = (hidden.reshape(len(records), -1) ** 2) @ held["w2"].T + held["b2"]
    return hidden**2 @ held["w3"].T + held["b3"]


def _network(held: Any) -> Any:
    from mibao.he.network import Convolution, Dense, Image, Network, Node, Square

    image = Image(channels=1, height=_SIDE, width=_SIDE)
    stride = (_STRIDE, _STRIDE)
    layers: list[Any] = [
        Convolution(kernel=held["w1"], bias=held["b1"], image=image, stride=stride),
        Square(),
        Dense(weights=held["w2"], bias=held["b2"]),
        Square(),
        Dense(weights=held["w3"], bias=held["b3"]),
    ]
    nodes = tuple(Node(layer=layer, inputs=(index,)) for index, layer in enumerate(layers))
    return Network(low=np.zeros(_SIDE**2), high=np.ones(_SIDE**2), nodes=nodes)


def encrypted_images(kind: str) -> dict[str, float]:
    """Our figures for ``"one"`` image at a time, or ``"bulk"``: the whole test set in full batches.

    Raises:
        NotMeasured: an answer was off by more than a third of a percent of the largest logits.
    """
    from mibao import he

    held = np.load(arrays())
    test = held["test"] if kind == "bulk" else held["test"][:_IMAGES]
    roles = he.Roles(data_owner="owner", model_owner="host", compute_host="host")
    circuit = he.compile(
        _network(held),
        calibration=held["train"],
        roles=roles,
        rows=4096 if kind == "bulk" else 1,
        max_error=_LARGEST_ERROR[kind],
        margin=0.3,
    )
    client, server = circuit.keygen()
    rows = circuit.spec.batch_rows if kind == "bulk" else 1
    seconds, answers, sizes = [], [], (0, 0)
    for start in range(0, len(test), rows):
        request = client.encrypt(
            test[np.arange(start, start + rows) % len(test)] if kind == "bulk" else test[start : start + 1]
        )
        started = time.process_time()
        answer = server.evaluate(request)
        seconds.append(time.process_time() - started)
        answers.append(client.decrypt_logits(answer))
        sizes = len(request), len(answer)
    got, wanted, target = np.concatenate(answers)[: len(test)], plain(held, test), held["target"][: len(test)]
    error = float(np.abs(got - wanted).max())
    right = [float(np.mean(logits.argmax(axis=1) == target)) for logits in (got, wanted)]
    print(f"{kind}: {circuit.spec.parameters}, {rows} rows a batch, largest error {error:.1e}", file=sys.stderr)
    if error > _LARGEST_ERROR[kind]:
        raise NotMeasured(f"an answer is off by {error:.1e}")
    return {
        "ms": statistics.median(seconds) * 1e3,
        "rows_per_s": rows / statistics.median(seconds),
        "images": len(test),
        "accuracy": 100 * right[0],
        "plain_accuracy": 100 * right[1],
        "error": error,
        "request_mb": sizes[0] / 1e6,
        "answer_kb": sizes[1] / 1e3,
        "keys_mb": len(server.keys_bytes()) / 1e6,
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }


def _ours(kind: str) -> dict[str, float]:
    return ask_python(Path(sys.executable), "-m", "benchmarks.he_mnist", kind, one_thread=True)


def one_image() -> Iterator[Measurement]:
    """Ours, Orion and TenSEAL in turn; the faster peer stands in the row."""
    path = str(arrays())
    notes = [_figures(_ours("one"))]
    sides: dict[str, Callable[[], float]] = {"ours": lambda: _ours("one")["ms"]}
    for peer, script in (("orion", "orion_rows.py"), ("tenseal", "tenseal_models.py")):
        try:
            found = ask(peer, script, "lenet", path, one_thread=True)
        except (OSError, subprocess.SubprocessError) as error:
            notes.append(f"{peer}: {type(error).__name__}")
            continue
        notes.append(f"{peer}: error {found['error']:.1e}, keys {found['keys_bytes'] / 1e6:.0f} MB")
        sides[peer] = lambda peer=peer, script=script: ask(peer, script, "lenet", path, one_thread=True)["ms"]  # type: ignore[misc]
    figures = dict(zip(sides, in_turn(*sides.values(), rounds=rounds(2)), strict=True))
    notes += [f"{peer} {ms:.0f} ms" for peer, ms in figures.items() if peer != "ours"]
    best = min((ms for peer, ms in figures.items() if peer != "ours"), default=None)
    yield Measurement(id="he_mnist.one", ours=figures["ours"], peer=best, note="; ".join(notes))


def bulk() -> Iterator[Measurement]:
    """The whole test set, in full batches."""
    found = _ours("bulk")
    yield Measurement(id="he_mnist.bulk", ours=found["rows_per_s"], note=_figures(found))
    gap = found["plain_accuracy"] - found["accuracy"]
    note = f"{found['accuracy']:.2f}% of {found['images']:.0f} on ciphertexts, {found['plain_accuracy']:.2f}% in clear"
    yield Measurement(id="he_mnist.accuracy_gap", ours=gap, note=note)


def _figures(found: dict[str, float]) -> str:
    return (
        f"error {found['error']:.1e} over {found['images']:.0f} images, request {found['request_mb']:.1f} MB, "
        f"answer {found['answer_kb']:.0f} KB, keys {found['keys_mb']:.1f} MB, memory {found['memory_mb']:.0f} MB"
    )


BENCHES = (
    Bench(rows=("he_mnist.one",), measure=one_image),
    Bench(rows=("he_mnist.bulk", "he_mnist.accuracy_gap"), measure=bulk),
)

if __name__ == "__main__":
    print(json.dumps(encrypted_images(sys.argv[1])))
