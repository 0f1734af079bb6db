"""Sealed models beside cryptotensors and tensorizer: every load in a fresh process, the sides in turn.

A side's time runs from its call to its return in a process that has imported what it needs and has just touched and
given back 3 GiB, so that no side waits for memory that a hypervisor has taken; what whole processes take is in the
notes. Ours opens with an ML-KEM-768 + X25519 key; the peers are given a symmetric key.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from benchmarks import llama
from benchmarks.harness import Bench, Measurement, NotMeasured, beside_peer, rounds
from benchmarks.peers.venvs import ask, ask_python

Figures = Mapping[str, float]
_SMALL = llama.CACHE / "model-256MB.safetensors"
_SMALL_TENSORS = {"embedding": (16_000, 2_048), **{f"layers.{n}.weight": (2_048, 2_048) for n in range(24)}}
_FULL = 7
LOAD_ROWS = tuple(
    f"sealed.{row}" for row in ("load_fresh", "load_fresh_tensorizer", "load_cpu", "load_cpu_tensorizer", "load_plain")
)


def _at(name: str) -> str:
    return str(llama.CACHE / name)


def _ours(action: str, *paths: str) -> dict[str, float]:
    return ask_python(Path(sys.executable), "-m", "benchmarks.sealed_work", action, *paths)


def _cryptotensors(*arguments: str) -> dict[str, float]:
    return ask("cryptotensors", "cryptotensors_rows.py", *arguments)


def _tensorizer(*arguments: str) -> dict[str, float]:
    return ask("tensorizer", "tensorizer_rows.py", *arguments)


def _timed(run: Callable[[], dict[str, float]]) -> dict[str, float]:
    """The figures of a fresh process, and how long all of it took, start and imports included."""
    started = time.perf_counter()
    figures = run()
    return {**figures, "process_s": time.perf_counter() - started}


def in_turn(sides: Mapping[str, Callable[[], dict[str, float]]], count: int) -> dict[str, dict[str, float]]:
    """The median of every figure of every side over ``count`` rounds; :func:`_available` has warmed up."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for _ in range(count):
        for name, side in sides.items():
            runs[name].append(_timed(side))
    return {
        name: {key: statistics.median(figures[key] for figures in found) for key in found[0]}
        for name, found in runs.items()
    }


def _available(sides: dict[str, Callable[[], dict[str, float]]]) -> dict[str, Callable[[], dict[str, float]]]:
    """The sides that run here at all; a peer that does not is said on standard error."""
    found = {}
    for name, side in sides.items():
        try:
            side()
        except (OSError, subprocess.SubprocessError) as error:
            if name == "ours":
                raise
            print(f"{name} does not run here: {error}", file=sys.stderr)
        else:
            found[name] = side
    return found


def _fresh(path: str) -> str:
    """``path``, with nothing there: every side writes a new file."""
    Path(path).unlink(missing_ok=True)
    return path


def measure_seal() -> Iterator[Measurement]:
    """Seal the 1 GB model; the size of what comes out."""
    source = str(llama.model())
    sides = _available(
        {
            "ours": lambda: _ours("seal", source, _fresh(_at("llama.mibao"))),
            "cryptotensors": lambda: _cryptotensors("seal", source, _fresh(_at("llama.cryptotensors"))),
        }
    )
    found = in_turn(sides, rounds(_FULL))
    size = Path(source).stat().st_size
    peer = found.get("cryptotensors")
    yield Measurement(
        id="sealed.seal_file",
        ours=size / found["ours"]["seconds"] / 1e9,
        peer=size / peer["seconds"] / 1e9 if peer else None,
        note=_costs(found) + "; ours waits until the file is on disk, the peer does not",
    )
    sealed_bytes = Path(_at("llama.mibao")).stat().st_size
    yield Measurement(id="sealed.size_overhead", ours=100 * (sealed_bytes / size - 1))


def measure_load() -> Iterator[Measurement]:
    """Load it in a fresh process."""
    source = str(llama.model())
    _ensure_sealed(source)
    sides = _available(
        {
            "ours": lambda: _ours("load", _at("llama.mibao")),
            "cryptotensors": lambda: _cryptotensors("open", _at("llama.cryptotensors")),
            "tensorizer": lambda: _tensorizer("open", _at("llama.tensors")),
            "plain": lambda: _cryptotensors("plain", source),
        }
    )
    found = in_turn(sides, rounds(_FULL))
    rates = {name: figures["bytes"] / figures["seconds"] / 1e9 for name, figures in found.items()}
    cpu = {name: figures["cpu_s"] for name, figures in found.items()}
    costs = _costs(found)
    for row, peer in (("", "cryptotensors"), ("_tensorizer", "tensorizer")):
        note = None if row else costs
        yield Measurement(id=f"sealed.load_fresh{row}", ours=rates["ours"], peer=rates.get(peer), note=note)
        yield Measurement(id=f"sealed.load_cpu{row}", ours=cpu["ours"], peer=cpu.get(peer))
    yield Measurement(id="sealed.load_plain", ours=rates["ours"], peer=rates.get("plain"), note=_where(found["ours"]))


def measure_reading() -> Iterator[Measurement]:
    """Into memory that is there already; half a tensor."""
    _ensure_sealed(str(llama.model()))
    again = in_turn({"ours": lambda: _ours("load_again", _at("llama.mibao"))}, rounds(_FULL))["ours"]
    note = (
        f"each thread, all of them busy: AES-256-GCM {again['aes']:.2f}, BLAKE3 {again['blake3']:.2f}, copying "
        f"{again['copy']:.1f} GB/s, so the limit of this machine is {again['ceiling']:.2f} GB/s; one thread alone: "
        f"{again['aes_alone']:.2f} and {again['blake3_alone']:.2f}, by which the share is {again['share_alone']:.2f}"
    )
    yield Measurement(id="sealed.load_allocated", ours=again["gb_per_s"], note=note)
    yield Measurement(id="sealed.load_allocated_share", ours=again["share"])
    part = in_turn({"ours": lambda: _ours("half", _at("llama.mibao"))}, rounds(_FULL))["ours"]
    note = f"{1e3 * part['half_s']:.0f} ms of {1e3 * part['whole_s']:.0f} ms"
    yield Measurement(id="sealed.half_tensor", ours=part["share"], note=note)


def measure_rewrap() -> Iterator[Measurement]:
    """Add and remove a recipient of the 1 GB file; the peer wraps its keys anew."""
    _ensure_sealed(str(llama.model()))
    ours = _at("llama.mibao")
    before = _ours("data_hash", ours)
    sides = _available(
        {
            "ours": lambda: _ours("rewrap", ours),
            "cryptotensors": lambda: _cryptotensors("rewrap", _at("llama.cryptotensors")),
        }
    )
    found = in_turn(sides, rounds(_FULL))
    peer = found.get("cryptotensors")
    yield Measurement(
        id="sealed.rewrap",
        ours=max(found["ours"]["add_ms"], found["ours"]["remove_ms"]),
        peer=1e3 * peer["seconds"] if peer else None,
        note=f"adding {found['ours']['add_ms']:.1f} ms, removing {found['ours']['remove_ms']:.1f} ms, four syncs each",
    )
    yield Measurement(id="sealed.rewrap_data", ours=float(_ours("data_hash", ours) == before))


def _ensure_sealed(source: str) -> None:
    """The sealed forms of the model, for whoever measures without sealing first."""
    seals: tuple[tuple[str, Callable[[str], Figures]], ...] = (
        ("llama.mibao", lambda out: _ours("seal", source, out)),
        ("llama.cryptotensors", lambda out: _cryptotensors("seal", source, out)),
        ("llama.tensors", lambda out: _tensorizer("seal", source, out)),
    )
    for name, seal in seals:
        if not Path(_at(name)).exists():
            try:
                seal(_at(name))
            except subprocess.SubprocessError as error:
                if name == "llama.mibao":
                    raise NotMeasured(f"sealing failed: {error}") from error


def _costs(found: Mapping[str, Figures]) -> str:
    """One clause a side: its time, its CPU time, and the whole process."""
    return "; ".join(
        f"{name} {figures['seconds']:.2f} s, CPU {figures['user_s']:.2f} + {figures['system_s']:.2f} s in the kernel, "
        f"whole process {figures['process_s']:.2f} s"
        for name, figures in found.items()
    )


def _where(ours: Figures) -> str:
    """Where the time of our load goes, by the ciphers' own speed and this machine's price of fresh memory."""
    from benchmarks.sealed_work import primitives
    from mibao.sealed.sealing import CHUNK_BYTES

    aes, blake3, copy = primitives(CHUNK_BYTES)
    size = ours["bytes"] / 1e9
    large, small = (_ours("fault", kind)["s_per_gb"] for kind in ("large", "small"))
    return (
        f"where our {ours['cpu_s']:.2f} CPU s go: AES {size / aes:.2f}, BLAKE3 {size / blake3:.2f}, the private copy "
        f"{size / copy:.2f}, the rest page faults ({ours['faults']:,.0f}) and bookkeeping; fresh memory costs here "
        f"{large:.2f} s/GB in large pages and {small:.2f} s/GB in small ones met one by one"
    )


def measure_small() -> Iterator[Measurement]:
    """The first rows: a model of 256 MB."""
    source = str(_small_model())
    size = Path(source).stat().st_size
    ours, peer = _at("model.mibao"), _at("model.cryptotensors")

    def rate(figures: Figures) -> float:
        return size / figures["seconds"] / 1e9

    yield beside_peer(
        "sealed.seal",
        ours=lambda: rate(_ours("seal", source, _fresh(ours))),
        peer=lambda: rate(_cryptotensors("seal", source, _fresh(peer))),
        rounds=rounds(5),
    )
    yield beside_peer(
        "sealed.open",
        ours=lambda: rate(_ours("load", ours)),
        peer=lambda: rate(_cryptotensors("open", peer)),
        rounds=rounds(5),
    )


def _small_model() -> Path:
    """A safetensors file of 25 float16 tensors shaped like a language model's, made on first use from a fixed seed."""
    import numpy as np
    from safetensors.numpy import save_file

    if not _SMALL.exists():
        _SMALL.parent.mkdir(exist_ok=True)
        draw = np.random.default_rng(0)
        tensors = {
            name: draw.standard_normal(shape, np.float32).astype(np.float16) for name, shape in _SMALL_TENSORS.items()
        }
        part = _SMALL.with_suffix(".part")
        save_file(tensors, part)
        part.rename(_SMALL)
    return _SMALL


BENCHES = (
    Bench(rows=("sealed.seal", "sealed.open"), measure=measure_small),
    Bench(rows=("sealed.seal_file", "sealed.size_overhead"), measure=measure_seal),
    Bench(rows=LOAD_ROWS, measure=measure_load),
    Bench(rows=("sealed.load_allocated", "sealed.load_allocated_share", "sealed.half_tensor"), measure=measure_reading),
    Bench(rows=("sealed.rewrap", "sealed.rewrap_data"), measure=measure_rewrap),
)
