"""Mask notes into a vault until told to stop or killed; print each masked note once it is acknowledged.

Usage: vault_writer.py VAULT FIRST NOTES   (0 notes: without end)
"""

import itertools
import sys
from pathlib import Path

from mibao.deid import Pseudonymiser
from vault_notes import KEY, SCOPE, note


def main(path: Path, first: int, notes: int) -> None:
    session = Pseudonymiser.open(path, key=KEY, scope=SCOPE)
    print("ready", flush=True)  # noqa: T201
    for number in range(first, first + notes) if notes else itertools.count(first):
        print(number, session.mask(note(number)).text, sep="\t", flush=True)  # noqa: T201
    session.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
