"""pymerkle 7: appends a second to its SQLite tree in bulk: ``ENTRIES BATCH ENTRY_BYTES``."""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

from pymerkle import SqliteTree


def append(entries: int, batch: int, entry_bytes: int) -> dict[str, float]:
    """Appends a second, ``batch`` entries a transaction, with the root taken after each batch."""
    data = [os.urandom(entry_bytes) for _ in range(entries)]
    with tempfile.TemporaryDirectory() as folder, SqliteTree(str(Path(folder, "tree.db"))) as tree:
        started = time.perf_counter()
        for start in range(0, entries, batch):
            tree.append_entries(data[start : start + batch])
            tree.get_state()
        return {"appends_per_s": entries / (time.perf_counter() - started)}


if __name__ == "__main__":
    print(json.dumps(append(*map(int, sys.argv[1:]))))
