"""What a fresh process of ours does for the sealed rows: ``python -m benchmarks.sealed_work ACTION [PATH ...]``.

Its last line is one JSON object. The keys are fixed, so that a later process can open the file: this measures time and
protects nothing.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.llama import LARGE_TENSOR
from benchmarks.peers.cost import Cost, warm_memory
from mibao import sealed
from mibao.crypto import keys
from mibao.sealed.model import SealedModel
from mibao.sealed.sealing import CHUNK_BYTES

Figures = dict[str, float]


def identity(seed: int = 0) -> keys.RecipientPrivateKey:
    """A recipient's key: ML-KEM-768 + X25519."""
    suite = keys.RecipientSuite.MLKEM768_X25519
    return keys.generate_recipient(suite, bytes([seed]) * keys.SEED_BYTES[suite])


def vendor() -> keys.SignerPrivateKey:
    """The signer's key: Ed25519, as the peer's."""
    suite = keys.SignerSuite.ED25519
    return keys.generate_signer(suite, bytes(keys.SEED_BYTES[suite]))


def _open(path: str) -> SealedModel:
    return sealed.open_model(path, identity=identity(), signer=vendor().public)


def seal(source: str, out: str) -> Figures:
    """Seal ``source``, which lies in the page cache, to the new file ``out``; it is on disk when this returns."""
    recipients, signer = [identity().public], vendor()
    warm_memory()
    cost = Cost()
    report = sealed.seal(source, out, recipients=recipients, signer=signer, model_id="bench", version=1)
    return {**cost.figures(), "sealed_bytes": report.sealed_bytes, "plaintext_bytes": report.plaintext_bytes}


def load(path: str) -> Figures:
    """From the closed file to every tensor in owned memory; signature, header, table, index and every chunk checked."""
    recipient, signer = identity(), vendor().public
    warm_memory()
    cost = Cost()
    model = sealed.open_model(path, identity=recipient, signer=signer)
    tensors = model.load_numpy()
    return {**cost.figures(), "bytes": sum(tensor.nbytes for tensor in tensors.values())}


def load_again(path: str) -> Figures:
    """The same into memory that is there already, and between the loads the ciphers' own speed."""
    from mibao.sealed import reading
    from mibao.sealed.memory import fresh_memory

    recipient, signer = identity(), vendor().public
    with _open(path) as model:
        size = model.opened.parts[0].chunks.data_bytes
    memory = fresh_memory(size)
    reading.wipe(memory)  # faults every page in
    threads = len(os.sched_getaffinity(0))
    seconds, rates, alone = [], [], []
    for _ in range(3):
        rates.append(primitives(CHUNK_BYTES, threads=threads))
        alone.append(primitives(CHUNK_BYTES, total_bytes=1 << 26))
        cost = Cost()
        with sealed.open_model(path, identity=recipient, signer=signer) as model:
            part = model.opened.parts[0]
            reading.decrypt_into(model.opened, part, range(len(part.chunks)), memory)
        seconds.append(cost.figures()["seconds"])
    rate = size / sorted(seconds)[1] / 1e9
    aes, blake3, copy = (sorted(column)[1] for column in zip(*rates, strict=True))
    aes_alone, blake3_alone, _ = (sorted(column)[1] for column in zip(*alone, strict=True))
    ceiling, ceiling_alone = (threads / (1 / a + 1 / b) for a, b in ((aes, blake3), (aes_alone, blake3_alone)))
    return {
        "gb_per_s": rate, "aes": aes, "blake3": blake3, "copy": copy, "ceiling": ceiling, "share": rate / ceiling,
        "aes_alone": aes_alone, "blake3_alone": blake3_alone, "share_alone": rate / ceiling_alone,
    }  # fmt: skip


def primitives(chunk_bytes: int, *, threads: int = 1, total_bytes: int = 1 << 27) -> tuple[float, float, float]:
    """GB/s that each of ``threads`` busy threads gets, each on one chunk's buffers of its own.

    AES-256-GCM decryption, BLAKE3, and copying memory.
    """
    from concurrent.futures import ThreadPoolExecutor

    from mibao.crypto.aead import AesGcm
    from mibao.sealed import merkle

    cipher, nonce = AesGcm(bytes(32)), bytes(12)

    def workload(kind: str) -> Callable[[], object]:
        plain, sealed_chunk = memoryview(bytearray(chunk_bytes)), memoryview(bytearray(chunk_bytes + 16))
        cipher.seal_into(nonce, plain, b"", sealed_chunk)
        copies = {
            "aes": lambda: cipher.open_into(nonce, sealed_chunk, b"", plain),
            "blake3": lambda: merkle.index_entry(sealed_chunk),
            "copy": lambda: plain.__setitem__(slice(None), sealed_chunk[:chunk_bytes]),
        }
        return copies[kind]

    def repeat(work: Callable[[], object]) -> None:
        for _ in range(total_bytes // chunk_bytes):
            work()

    rates = []
    for kind in ("aes", "blake3", "copy"):
        workloads = [workload(kind) for _ in range(threads)]
        with ThreadPoolExecutor(threads) as pool:
            started = time.perf_counter()
            list(pool.map(repeat, workloads))
            rates.append(total_bytes / (time.perf_counter() - started) / 1e9)
    return rates[0], rates[1], rates[2]


def half(path: str) -> Figures:
    """Half the rows of the 131 MB tensor, and all of it, in turn; the medians of seven."""
    times: dict[str, list[float]] = {"half": [], "whole": []}
    with _open(path) as model:
        rows = model[LARGE_TENSOR].shape[0]
        for _ in range(8):
            for name, stop in (("half", rows // 2), ("whole", rows)):
                cost = Cost()
                kept = model.rows(LARGE_TENSOR, 0, stop)
                times[name].append(cost.figures()["seconds"])
                del kept  # wiping it does not count
    middle = {name: sorted(figures[1:])[3] for name, figures in times.items()}  # the first of each warms up
    return {"half_s": middle["half"], "whole_s": middle["whole"], "share": middle["half"] / middle["whole"]}


def rewrap(path: str) -> Figures:
    """Add a recipient, then remove it: milliseconds of each."""
    other, recipient = identity(1), identity()
    cost = Cost()
    sealed.rewrap(path, identity=recipient, add=[other.public])
    add_s = cost.figures()["seconds"]
    cost = Cost()
    sealed.rewrap(path, identity=recipient, remove=[other.key_id])
    figures = cost.figures()
    return {"add_ms": 1e3 * add_s, "remove_ms": 1e3 * figures["seconds"], "cpu_ms": 1e3 * figures["cpu_s"]}


def data_hash(path: str) -> str:
    """SHA-256 of the file's data region: every byte from its first chunk to its end."""
    import hashlib

    from mibao.sealed import opening
    from mibao.sealed.files import FileSource

    with FileSource(Path(path)) as source:
        data_at = opening.read_unverified(source).preamble.data_at
    with Path(path).open("rb") as file:
        file.seek(data_at)
        return hashlib.file_digest(file, "sha256").hexdigest()


def fault(kind: str) -> Figures:
    """Seconds a GB that this machine takes to hand out fresh memory, by one thread, in ``large`` or ``small`` pages."""
    import mmap

    size = 1 << 28
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    pages.madvise(mmap.MADV_HUGEPAGE if kind == "large" else mmap.MADV_NOHUGEPAGE)
    cost = Cost()
    for at in range(0, size, mmap.PAGESIZE):
        pages[at] = 1
    touched = cost.figures()["seconds"]
    cost = Cost()
    for at in range(0, size, mmap.PAGESIZE):
        pages[at] = 1
    return {"s_per_gb": (touched - cost.figures()["seconds"]) / size * 1e9}


def main(action: str, *paths: str) -> object:
    """The figures of one action."""
    if action == "data_hash":
        return {"sha256": data_hash(*paths)}
    actions: dict[str, Callable[..., Figures]] = {
        "seal": seal, "load": load, "load_again": load_again, "half": half, "rewrap": rewrap, "fault": fault
    }  # fmt: skip
    return actions[action](*paths)


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])), flush=True)
    os._exit(0)  # nothing of a benchmark's memory is secret: leave without wiping a gigabyte
