import random
import shutil
from pathlib import Path

import pytest

from counts import counts
from ledger_samples import ORIGIN, events, signer
from mibao import ledger
from mibao.errors import IntegrityError, MibaoError
from mibao.ledger import Log, write_ahead

PAGE, HEADER, FRAME = 4096, 32, 24 + 4096


@pytest.fixture
def open_ledger(tmp_path: Path) -> Path:
    """A copy of a ledger and its write-ahead file as a writer that dies leaves them."""
    path = tmp_path / "open.ledger"
    folder = tmp_path / "copy"
    folder.mkdir()
    with Log.create(path, signer=signer(), origin=ORIGIN) as log:
        for batch in range(6):
            log.append(events(20, seed=batch))
        shutil.copy(path, folder / "a.ledger")
        shutil.copy(tmp_path / "open.ledger-wal", folder / "a.ledger-wal")
    return folder / "a.ledger"


def wal_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def test_entries_that_lie_in_the_write_ahead_file_alone_are_read(open_ledger: Path) -> None:
    assert ledger.verify(open_ledger, signer=signer().public).checkpoint.size == 120
    assert len(ledger.stored_entries(open_ledger)) == 120


def test_any_byte_changed_in_the_write_ahead_file_is_found(open_ledger: Path) -> None:
    wal = wal_of(open_ledger).read_bytes()
    assert (len(wal) - HEADER) % FRAME == 0
    draw = random.Random(3)  # noqa: S311 - the same bytes in every run
    for _ in range(counts(short=100, long=5000)):
        altered = bytearray(wal)
        at = draw.randrange(len(wal))
        altered[at] ^= draw.randrange(1, 256)
        if at < HEADER:
            with pytest.raises(IntegrityError, match="its header is damaged"):
                write_ahead.lost_appends(bytes(altered))
        else:
            assert write_ahead.lost_appends(bytes(altered)) > 0


def test_verify_finds_a_write_ahead_file_that_was_altered(open_ledger: Path) -> None:
    wal = bytearray(wal_of(open_ledger).read_bytes())
    wal[HEADER + 3 * FRAME + 100] ^= 1
    wal_of(open_ledger).write_bytes(wal)
    with pytest.raises(IntegrityError, match=r"damaged, [1-6] finished appends are lost"):
        ledger.verify(open_ledger, signer=signer().public)


def test_a_writer_does_not_go_on_from_the_state_that_an_altered_write_ahead_file_leaves(open_ledger: Path) -> None:
    wal = bytearray(wal_of(open_ledger).read_bytes())
    wal[HEADER + 3 * FRAME + 100] ^= 1
    wal_of(open_ledger).write_bytes(wal)
    with pytest.raises(IntegrityError, match="finished appends are lost"):
        Log.open(open_ledger, signer=signer())
    assert wal_of(open_ledger).read_bytes() == wal


def test_a_writer_drops_one_append_that_a_power_failure_tore(open_ledger: Path) -> None:
    wal = bytearray(wal_of(open_ledger).read_bytes())
    wal[-100] ^= 1
    wal_of(open_ledger).write_bytes(wal)
    with pytest.raises(IntegrityError, match="damaged, 1 finished appends are lost"):
        ledger.verify(open_ledger, signer=signer().public)
    with Log.open(open_ledger, signer=signer()) as log:
        assert log.append(events(1)) == range(100, 101)
    assert ledger.verify(open_ledger, signer=signer().public).checkpoint.size == 101


def test_what_a_writer_that_dies_leaves_is_no_damage(open_ledger: Path) -> None:
    wal = wal_of(open_ledger).read_bytes()
    for cut in range(0, len(wal), 997):
        assert write_ahead.lost_appends(wal[:cut]) == 0  # killed at any moment: the file ends there
    assert write_ahead.lost_appends(wal + bytes(FRAME)) == 0
    # Another writer has reused the beginning of the file: what follows is of before.
    old = bytearray(wal[HEADER:])
    for start in range(0, len(old), FRAME):
        old[start + 8 : start + 16] = bytes(8)
    assert write_ahead.lost_appends(wal + old) == 0


def test_frames_without_a_commit_behind_the_last_good_one_are_no_damage(open_ledger: Path) -> None:
    wal = wal_of(open_ledger).read_bytes()
    unfinished = bytearray(wal[-FRAME:])
    unfinished[4:8] = bytes(4)
    assert write_ahead.lost_appends(wal + unfinished) == 0
    assert write_ahead.lost_appends(wal + wal[-FRAME:]) == 1


def test_a_write_ahead_file_cut_at_an_append_is_a_rollback_that_a_saved_checkpoint_shows(
    open_ledger: Path, tmp_path: Path
) -> None:
    saved = ledger.stored_note(open_ledger)
    shutil.copy(open_ledger, tmp_path / "old.ledger")
    wal_of(tmp_path / "old.ledger").write_bytes(wal_of(open_ledger).read_bytes()[: HEADER + 4 * FRAME])
    try:
        found = ledger.verify(tmp_path / "old.ledger", signer=signer().public)
    except MibaoError as error:
        pytest.fail(f"expected an earlier state that verifies, got: {error}")
    assert found.checkpoint.size < 120
    with pytest.raises(IntegrityError, match="rolled back"):
        ledger.verify(tmp_path / "old.ledger", signer=signer().public, saved_checkpoint=saved)
