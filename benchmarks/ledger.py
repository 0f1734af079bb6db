"""Appends a second: ours signs a checkpoint with each batch, the peer (pymerkle's SQLite tree) takes its root."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness import Bench, Measurement, beside_peer
from benchmarks.peers.venvs import ask, ask_python

_ENTRIES = 20_000
_BATCH = 1_000
_PEER_ENTRY_BYTES = 160  # what one of our entries takes, so that both write as much


def append(entries: int, batch: int) -> dict[str, float]:
    """Appends a second, every batch durable on disk with its signed checkpoint before the next."""
    from mibao.crypto import keys, rng
    from mibao.events import PrivacySpent
    from mibao.ledger import Log

    suite = keys.SignerSuite.ED25519
    signer = keys.generate_signer(suite, rng.random_bytes(keys.SEED_BYTES[suite]))
    session = rng.random_id()
    events = [PrivacySpent(session=session, releases=n, epsilon=n / 7, delta=1e-5) for n in range(entries)]
    with tempfile.TemporaryDirectory() as folder:
        log = Log.create(Path(folder, "bench.ledger"), signer=signer, origin="bench.example/ledger")
        started = time.perf_counter()
        for start in range(0, entries, batch):
            log.append(events[start : start + batch])
        seconds = time.perf_counter() - started
        log.close()
    return {"appends_per_s": entries / seconds}


def measure() -> Iterator[Measurement]:
    """Both in fresh processes, the same number of entries and of batches."""
    counts = [str(_ENTRIES), str(_BATCH)]
    yield beside_peer(
        "ledger.append_batched",
        ours=lambda: ask_python(Path(sys.executable), "-m", "benchmarks.ledger", *counts)["appends_per_s"],
        peer=lambda: ask("pymerkle", "pymerkle_rows.py", *counts, str(_PEER_ENTRY_BYTES))["appends_per_s"],
    )


BENCHES = (Bench(rows=("ledger.append_batched",), measure=measure),)

if __name__ == "__main__":
    print(json.dumps(append(*map(int, sys.argv[1:]))))
