import json
import shutil
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counts import counts
from ledger_samples import ORIGIN, START_MS, alter, events, hybrid_signer, signer, write
from mibao import ledger
from mibao.errors import InputError, IntegrityError, KeyMismatch
from mibao.ledger import Log, merkle
from mibao.ledger import checkpoint as checkpoints
from mibao.ledger import entry as entries
from mibao.ledger.log import MAX_BATCH
from vectors_io import vectors

VECTORS = Path(__file__).parents[1] / "vectors"


@settings(max_examples=counts(short=8, long=100), deadline=None)
@given(sizes=st.lists(st.integers(0, 9), max_size=5), seed=st.integers(0, 1 << 30))
def test_whatever_is_appended_verifies_and_every_entry_can_be_proven(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], seed: int
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "a.ledger"
    kept, notes = [], []
    with Log.create(path, signer=signer(), origin=ORIGIN) as log:
        for batch, size in enumerate(sizes):
            new = events(size, seed=seed + batch)
            assert log.append(new) == range(len(kept), len(kept) + size)
            kept.extend(new)
            notes.append(log.note)
    assert [entry.event for entry in ledger.stored_entries(path)] == kept
    assert ledger.verify(path, signer=signer().public).checkpoint.size == len(kept)
    for note in notes:
        saved = checkpoints.verify(note, signer().public)
        found = ledger.verify(path, signer=signer().public, saved_checkpoint=note)
        assert found.saved == saved
        merkle.verify_consistency(
            old_size=saved.size,
            old_root=saved.root,
            new_size=found.checkpoint.size,
            new_root=found.checkpoint.root,
            proof=ledger.prove_consistency(path, old_size=saved.size),
        )
    for index, event in enumerate(kept):
        assert ledger.verify_proof(ledger.prove(path, index), signer=signer().public).entry.event == event


def test_a_closed_ledger_is_one_file_and_reading_it_adds_none(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ledger", count=30)
    before = path.read_bytes()
    ledger.verify(path, signer=signer().public)
    ledger.export(path)
    ledger.prove(path, 3)
    ledger.stored_note(path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.ledger"]
    assert path.read_bytes() == before


def test_a_ledger_in_a_folder_without_write_permission_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "evidence"
    folder.mkdir()
    path = write(folder / "a.ledger", count=30)
    path.chmod(stat.S_IRUSR)
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        assert ledger.verify(path, signer=signer().public).checkpoint.size == 30
    finally:
        folder.chmod(stat.S_IRWXU)


def test_a_ledger_is_read_while_another_object_has_it_open(tmp_path: Path) -> None:
    path = tmp_path / "a.ledger"
    with Log.create(path, signer=signer(), origin=ORIGIN) as log:
        for size in (1, 20, 500):
            log.append(events(size))
            found = ledger.verify(path, signer=signer().public)
            assert (found.note, found.checkpoint) == (log.note, log.checkpoint)


def test_a_reopened_ledger_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ledger", count=13)
    with Log.open(path, signer=signer()) as log:
        assert log.append(events(2)) == range(13, 15)
        assert log.checkpoint.origin == ORIGIN
    assert ledger.verify(path, signer=signer().public).checkpoint.size == 15


def test_two_objects_append_in_turn_without_losing_an_entry(tmp_path: Path) -> None:
    path = tmp_path / "a.ledger"
    with Log.create(path, signer=signer(), origin=ORIGIN) as first, Log.open(path, signer=signer()) as second:
        taken = [log.append(events(3)) for _ in range(4) for log in (first, second)]
    assert [index for one in taken for index in one] == list(range(24))
    assert ledger.verify(path, signer=signer().public).checkpoint.size == 24


def test_equal_ledgers_export_to_equal_bytes_and_the_export_holds_every_field(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one", count=40, batch=7), write(tmp_path / "two", count=40, batch=7)
    exported = ledger.export(one)
    assert exported == ledger.export(two)
    *lines, last = [json.loads(line) for line in exported.splitlines()]
    assert last == {"checkpoint": ledger.stored_note(one)}
    assert [line["index"] for line in lines] == list(range(40))
    assert lines[0]["fields"]["strategy"] == "fedsgd"
    assert lines[7]["time_ms"] == START_MS + 1000


def test_no_events_change_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ledger", count=3)
    before = ledger.export(path)
    with Log.open(path, signer=signer()) as log:
        assert log.append([]) == range(3, 3)
    assert ledger.export(path) == before


def test_a_batch_with_one_bad_event_is_refused_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ledger", count=3)
    good, bad = events(1)[0], events(1)[0]
    object.__setattr__(bad, "round", 1.5)
    with Log.open(path, signer=signer()) as log:
        with pytest.raises(InputError, match="expected int, got float"):
            log.append([good, bad])
        assert log.append([good]) == range(3, 4)
    assert ledger.verify(path, signer=signer().public).checkpoint.size == 4


def test_a_batch_over_the_limit_is_refused(tmp_path: Path) -> None:
    with Log.create(tmp_path / "a.ledger", signer=signer(), origin=ORIGIN) as log:
        with pytest.raises(InputError, match=f"expected at most {MAX_BATCH} events at once"):
            log.append(events(1) * (MAX_BATCH + 1))
        assert log.checkpoint.size == 0


def test_a_ledger_of_another_key_is_not_appended_to(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ledger", count=3)
    before = path.read_bytes()
    with pytest.raises(KeyMismatch, match="not by the given key"):
        Log.open(path, signer=signer(2))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.ledger"]


def test_a_hybrid_key_makes_no_ledger_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a ledger is signed by an ed25519 key"):
        Log.create(tmp_path / "a.ledger", signer=hybrid_signer(), origin=ORIGIN)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.ledger"
    path.write_text("something else")
    with pytest.raises(InputError, match="expected no file there"):
        Log.create(path, signer=signer(), origin=ORIGIN)
    assert path.read_text() == "something else"
    assert [file.name for file in tmp_path.iterdir()] == ["a.ledger"]


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be created"):
        Log.create(tmp_path / "nowhere" / "a.ledger", signer=signer(), origin=ORIGIN)


@pytest.mark.parametrize("content", [None, b"", b"text", b"SQLite format 3\x00" + bytes(84)])
def test_what_is_not_a_ledger_is_refused_and_left_alone(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.ledger"
    if content is not None:
        path.write_bytes(content)
    expected = "no such file" if content is None else "not a mibao ledger"
    with pytest.raises(InputError, match=expected):
        Log.open(path, signer=signer())
    with pytest.raises(InputError, match=expected):
        ledger.verify(path, signer=signer().public)
    with pytest.raises(InputError, match=expected):
        ledger.export(path)
    assert (path.read_bytes() if path.exists() else None) == content
    assert len(list(tmp_path.iterdir())) == (0 if content is None else 1)


def test_a_folder_given_as_a_ledger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a ledger file, got a folder"):
        ledger.verify(tmp_path, signer=signer().public)


@pytest.mark.parametrize("index", [-1, 3, 1 << 70])
def test_an_entry_that_is_not_there_cannot_be_proven(tmp_path: Path, index: int) -> None:
    path = write(tmp_path / "a.ledger", count=3)
    with pytest.raises(InputError, match="it holds 3 entries, numbered from 0"):
        ledger.prove(path, index)


def test_paths_with_every_odd_character_work(tmp_path: Path) -> None:
    path = write(tmp_path / "账本 ?#%20&mode=memory;'x.ledger", count=3)
    with Log.open(path, signer=signer()) as log:
        log.append(events(1))
    assert ledger.verify(path, signer=signer().public).checkpoint.size == 4
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE head SET frontier = zeroblob(length(frontier))", "frontier: it does not lead to the signed root"),
        ("UPDATE head SET frontier = x''", "frontier: its length does not fit"),
        ("UPDATE head SET note = x'ff'", "checkpoint: not text"),
        ("DELETE FROM head", "checkpoint: expected exactly one"),
        ("DELETE FROM entries WHERE position = 12", "expected 13 entries as the checkpoint says"),
        ("INSERT INTO entries VALUES (13, x'00', zeroblob(32))", "expected 13 entries as the checkpoint says"),
        ("CREATE TABLE notes (text TEXT)", "as specified, and nothing else"),
        ("PRAGMA user_version = 2", "expected format version 1"),
    ],
)
def test_a_ledger_altered_by_hand_is_not_appended_to(tmp_path: Path, statement: str, message: str) -> None:
    path = write(tmp_path / "a.ledger", count=13)
    alter(path, statement)
    with pytest.raises(IntegrityError, match=message):
        Log.open(path, signer=signer())


def test_a_ledger_that_changes_under_an_open_log_stops_the_next_append(tmp_path: Path) -> None:
    path = tmp_path / "a.ledger"
    with Log.create(path, signer=signer(), origin=ORIGIN) as log:
        log.append(events(10))
        alter(path, "DELETE FROM entries WHERE position = 9")
        with pytest.raises(IntegrityError, match="expected 10 entries as the checkpoint says"):
            log.append(events(1))


def test_the_frozen_ledger_is_what_the_same_events_make_today_and_is_still_read(tmp_path: Path) -> None:
    case, frozen = vectors("ledger", "ledger_v1"), tmp_path / "frozen.ledger"
    shutil.copy(VECTORS / "ledger" / "ledger_v1.db", frozen)
    for path in (frozen, write(tmp_path / "new.ledger", count=5, batch=2)):
        assert ledger.stored_note(path) == case["checkpoint"]
        assert ledger.prove(path, 3) == case["proof_of_3"]
        assert ledger.export(path).decode().splitlines() == case["export"]
        assert [entries.encode(entry).hex() for entry in ledger.stored_entries(path)] == case["entries"]
        assert ledger.verify(path, signer=signer().public).checkpoint.origin == case["origin"]
