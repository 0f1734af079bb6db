"""Append batches to a ledger until told to stop or killed; print each range once it is acknowledged.

Usage: ledger_writer.py LEDGER BATCH_SIZE BATCHES   (0 batches: without end)
"""

import itertools
import sys
from pathlib import Path

from ledger_samples import events, signer
from mibao.ledger import Log


def main(path: Path, batch_size: int, batches: int) -> None:
    with Log.open(path, signer=signer()) as log:
        print("ready", flush=True)  # noqa: T201
        for number in range(batches) if batches else itertools.count():
            acknowledged = log.append(events(batch_size, seed=number))
            print(acknowledged.start, acknowledged.stop, flush=True)  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
