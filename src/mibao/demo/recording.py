"""Step 5: everything that happened, in a ledger; and one entry altered in a copy of it."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from mibao import ledger
from mibao.codec import records
from mibao.crypto import keys
from mibao.crypto.keys import SignerPublicKey, SignerSuite
from mibao.demo.outcome import Cost, Recorded
from mibao.demo.surroundings import Surroundings
from mibao.errors import IntegrityError
from mibao.events import Event

LEDGER_NAME = "ledger.db"
ALTERED_NAME = "ledger.altered.db"
PUBLIC_KEY_NAME = "ledger.pub"
ORIGIN = "mibao.demo/ledger"
_READ = "SELECT entry FROM entries WHERE position = ?"
_ALTER = "UPDATE entries SET entry = ? WHERE position = ?"


def record(around: Surroundings, events: Sequence[Event]) -> tuple[Recorded, Cost]:
    """Whether the ledger verifies, and whether an altered entry is named; beside a plain log of the same events."""
    signer = keys.generate_signer(SignerSuite.ED25519, around.randomness(keys.SEED_BYTES[SignerSuite.ED25519]))
    path = around.folder / LEDGER_NAME
    (around.folder / PUBLIC_KEY_NAME).write_text(keys.encode_public(signer.public) + "\n", encoding="ascii")

    def keep() -> None:
        with ledger.Log.create(path, signer=signer, origin=ORIGIN) as log:
            log.append(events)

    seconds = around.timed(keep)
    plain = around.folder / "events.plain.jsonl"
    plain_seconds = around.timed(lambda: _write_plain(plain, events))
    report = Recorded(
        entries=len(ledger.stored_entries(path)),
        verified=_verifies(path, signer.public),
        tampered_index=len(events) // 2,
        found_index=_found_in_altered_copy(path, signer.public, index=len(events) // 2),
    )
    cost = Cost(
        protection="Ledger",
        plain_seconds=plain_seconds,
        protected_seconds=seconds,
        plain_bytes=plain.stat().st_size,
        protected_bytes=path.stat().st_size,
    )
    return report, cost


def _verifies(path: Path, signer: SignerPublicKey) -> bool:
    try:
        ledger.verify(path, signer=signer, origin=ORIGIN)
    except IntegrityError:
        return False
    return True


def _found_in_altered_copy(path: Path, signer: SignerPublicKey, *, index: int) -> int | None:
    """The entry that ``verify`` names after one bit of entry ``index`` was flipped in a copy of the ledger."""
    altered = path.with_name(ALTERED_NAME)
    shutil.copyfile(path, altered)
    with closing(sqlite3.connect(altered)) as connection, connection:
        (stored,) = connection.execute(_READ, (index,)).fetchone()
        changed = bytearray(stored)
        changed[len(changed) // 2] ^= 1
        connection.execute(_ALTER, (bytes(changed), index))
    try:
        ledger.verify(altered, signer=signer, origin=ORIGIN)
    except IntegrityError as error:
        return error.index
    return None


def _write_plain(path: Path, events: Sequence[Event]) -> None:
    with path.open("w", encoding="ascii") as file:
        for event in events:
            value = records.to_value(event)
            file.write(json.dumps(value, default=bytes.hex) + "\n")
        file.flush()
        os.fsync(file.fileno())
