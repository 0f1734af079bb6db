"""A ledger under another name, and files planted beside it."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from ledger_samples import alter, events, signer
from mibao import ledger
from mibao.errors import InputError, IntegrityError
from mibao.ledger import checkpoint as checkpoints

SIGNER = signer()
_WRITER = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from ledger_samples import events, signer
from mibao import ledger
log = ledger.Log.open(Path(sys.argv[1]), signer=signer())
for _ in range(10):
    log.append(events(1))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def real(tmp_path: Path) -> Path:
    """A ledger whose ten acknowledged entries still lie in its write-ahead file: the writer was killed."""
    (tmp_path / "real").mkdir()
    path = tmp_path / "real" / "a.ledger"
    ledger.Log.create(path, signer=SIGNER, origin="example.com/a").close()
    done = subprocess.run(
        [sys.executable, "-c", _WRITER, str(path), str(Path(__file__).parents[1])], check=False, timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    assert path.with_name("a.ledger-wal").stat().st_size > 0
    return path


def link_of(real: Path, kind: str) -> Path:
    if kind == "file":
        link = real.parent.parent / "current.ledger"
        link.symlink_to(real)
        return link
    folder = real.parent.parent / "current"
    folder.symlink_to(real.parent, target_is_directory=True)
    return folder / real.name


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_link_shows_every_acknowledged_entry(real: Path, kind: str) -> None:
    assert ledger.verify(link_of(real, kind), signer=SIGNER.public).checkpoint.size == 10


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_writer_through_a_link_loses_no_acknowledged_entry(real: Path, kind: str) -> None:
    with ledger.Log.open(link_of(real, kind), signer=SIGNER) as log:
        assert log.append(events(1)) == range(10, 11)
    assert ledger.verify(real, signer=SIGNER.public).checkpoint.size == 11


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_damage_in_the_write_ahead_file_is_seen_through_a_link(real: Path, kind: str) -> None:
    wal = real.with_name("a.ledger-wal")
    content = bytearray(wal.read_bytes())
    content[40] ^= 1
    wal.write_bytes(content)
    link = link_of(real, kind)
    with pytest.raises(IntegrityError, match="finished appends are lost"):
        ledger.Log.open(link, signer=SIGNER)
    with pytest.raises(IntegrityError, match="finished appends are lost"):
        ledger.verify(link, signer=SIGNER.public)


@pytest.mark.parametrize("planted", ["a file", "a dangling link"])
def test_a_planted_rollback_journal_is_refused_by_everyone_and_not_played_back(tmp_path: Path, planted: str) -> None:
    path = tmp_path / "a.ledger"
    with ledger.Log.create(path, signer=SIGNER, origin="example.com/a") as log:
        log.append(events(5))
    journal = path.with_name("a.ledger-journal")
    if planted == "a file":
        journal.write_bytes(bytes.fromhex("d9d505f920a163d7") + bytes(600))
    else:
        journal.symlink_to("nowhere")
    before = path.read_bytes()
    for reader in (
        lambda: ledger.verify(path, signer=SIGNER.public),
        lambda: ledger.stored_entries(path),
        lambda: ledger.export(path),
        lambda: ledger.Log.open(path, signer=SIGNER),
    ):
        with pytest.raises(IntegrityError, match="rollback journal beside the ledger"):
            reader()
    assert path.read_bytes() == before
    assert os.path.lexists(journal)


@pytest.mark.parametrize("code", [0x07, 0x1B, 0x7F, 0x9B, 0x9D, 0x202E, 0x2066, 0x200F])
def test_a_note_that_could_steer_a_terminal_is_refused_before_it_is_printed(code: int) -> None:
    note = f"example.com/a\n0\nAAAA\n\n\u2014 na{chr(code)}me AAAAAAAA\n"
    with pytest.raises(IntegrityError, match="a control character"):
        checkpoints.split_note(note)


def test_a_writer_does_not_go_on_from_an_older_state_put_under_it(tmp_path: Path) -> None:
    path = tmp_path / "a.ledger"
    with ledger.Log.create(path, signer=SIGNER, origin="example.com/a") as log:
        log.append(events(5))
        connection = sqlite3.connect(path)
        older = connection.execute("SELECT note, frontier FROM head").fetchone()
        connection.close()
        log.append(events(5, seed=1))
        alter(path, "DELETE FROM entries WHERE position >= 5", ("UPDATE head SET note = ?, frontier = ?", older))
        with pytest.raises(IntegrityError, match="rolled back or rewritten while it was open"):
            log.append(events(5, seed=2))
        assert log.checkpoint.size == 10
    assert ledger.stored_note(path).encode() == older[0]


@pytest.mark.parametrize("suffix", ["-wal", "-journal"])
def test_a_new_ledger_does_not_take_over_what_lies_beside_its_name(real: Path, suffix: str) -> None:
    path = real.with_name("new.ledger")
    shutil.copy(real.with_name("a.ledger-wal"), path.with_name(path.name + suffix))
    with pytest.raises(InputError, match=f"expected no file new.ledger{suffix} beside a new ledger"):
        ledger.Log.create(path, signer=SIGNER, origin="example.com/a")
    assert not path.exists()
