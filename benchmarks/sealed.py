"""Seal and open a model file of 256 MB in fresh processes, beside cryptotensors (encrypted and signed).

Both sides protect the same tensors. Ours seals to an ML-KEM-768 + X25519 key and reads its source from the page
cache; the peer is given the tensors in memory and a symmetric key.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness import Bench, Measurement, beside_peer
from benchmarks.peers.venvs import ROOT, ask, ask_python

if TYPE_CHECKING:
    from mibao.crypto.keys import RecipientPrivateKey, SignerPrivateKey

_CACHE = ROOT / ".bench-cache"
_SOURCE = _CACHE / "model-256MB.safetensors"
_SEALED = {"ours": _CACHE / "model.mibao", "peer": _CACHE / "model.cryptotensors"}
_TENSORS = {"embedding": (16_000, 2_048), **{f"layers.{n}.weight": (2_048, 2_048) for n in range(24)}}


def source() -> Path:
    """A safetensors file of 25 float16 tensors shaped like a language model's, made on first use from a fixed seed."""
    import numpy as np
    from safetensors.numpy import save_file

    if not _SOURCE.exists():
        _CACHE.mkdir(exist_ok=True)
        draw = np.random.default_rng(0)
        tensors = {name: draw.standard_normal(shape, np.float32).astype(np.float16) for name, shape in _TENSORS.items()}
        part = _SOURCE.with_suffix(".part")
        save_file(tensors, part)
        part.rename(_SOURCE)
    return _SOURCE


def _keys() -> tuple[RecipientPrivateKey, SignerPrivateKey]:
    """Fixed keys, so that a later process can open the file: this measures time and protects nothing."""
    from mibao.crypto import keys

    recipient, signer = keys.RecipientSuite.MLKEM768_X25519, keys.SignerSuite.ED25519
    return (
        keys.generate_recipient(recipient, bytes(keys.SEED_BYTES[recipient])),
        keys.generate_signer(signer, bytes(keys.SEED_BYTES[signer])),
    )


def seal() -> dict[str, float]:
    """Seconds to seal the source to a new file."""
    from mibao import sealed

    recipient, signer = _keys()
    started = time.perf_counter()
    sealed.seal(_SOURCE, _SEALED["ours"], recipients=[recipient.public], signer=signer, model_id="bench", version=1)
    return {"seconds": time.perf_counter() - started}


def open_sealed() -> dict[str, float]:
    """Seconds until every tensor stands in owned memory, signature and every hash checked."""
    from mibao import sealed

    recipient, signer = _keys()
    started = time.perf_counter()
    with sealed.open_model(_SEALED["ours"], identity=recipient, signer=signer.public) as model:
        tensors = model.load_numpy()
        seconds = time.perf_counter() - started
        loaded_bytes = sum(tensor.nbytes for tensor in tensors.values())
        del tensors  # a model closes once nobody holds its memory
        return {"seconds": seconds, "bytes": loaded_bytes}


def _gb_per_s(size_bytes: int, run: Callable[[], dict[str, float]], *, out: Path | None = None) -> float:
    if out is not None:
        out.unlink(missing_ok=True)  # both sides write a new file
    return size_bytes / run()["seconds"] / 1e9


def measure() -> Iterator[Measurement]:
    """Seal first: what is opened is the file that the last run sealed."""
    path = source()
    size = path.stat().st_size
    yield beside_peer(
        "sealed.seal",
        ours=lambda: _gb_per_s(size, lambda: _ours("seal"), out=_SEALED["ours"]),
        peer=lambda: _gb_per_s(size, lambda: _peer("seal", str(path), str(_SEALED["peer"])), out=_SEALED["peer"]),
    )
    yield beside_peer(
        "sealed.open",
        ours=lambda: _gb_per_s(size, lambda: _ours("open")),
        peer=lambda: _gb_per_s(size, lambda: _peer("open", str(_SEALED["peer"]))),
    )


def _ours(action: str) -> dict[str, float]:
    return ask_python(Path(sys.executable), "-m", "benchmarks.sealed", action)


def _peer(*arguments: str) -> dict[str, float]:
    return ask("cryptotensors", "cryptotensors_rows.py", *arguments)


BENCHES = (Bench(rows=("sealed.seal", "sealed.open"), measure=measure),)

if __name__ == "__main__":
    print(json.dumps({"seal": seal, "open": open_sealed}[sys.argv[1]]()))
