import random
import re
import shutil
import sqlite3
from collections import Counter
from functools import lru_cache
from pathlib import Path

import jaxtyping
import pytest

from counts import counts
from ledger_samples import ORIGIN, START_MS, alter, events, hybrid_signer, signer, write
from mibao import ledger
from mibao.errors import InputError, IntegrityError, KeyMismatch, MibaoError
from mibao.ledger import Log, merkle
from mibao.ledger import checkpoint as checkpoints
from mibao.ledger import entry as entries
from mibao.ledger.checkpoint import Checkpoint
from mibao.ledger.entry import Entry
from mibao.ledger.verification import ROLLBACK_CAVEAT

COUNT = 100
# Another entry, well formed: what a thoughtful forger would put in place of one.
FORGED = entries.encode(Entry(time_ms=START_MS, event=events(2, seed=99)[1]))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "a.ledger", count=COUNT, batch=10)


def refusal(path: Path, *, saved: str | None = None) -> IntegrityError:
    with pytest.raises(IntegrityError) as caught:
        ledger.verify(path, signer=signer().public, saved_checkpoint=saved)
    return caught.value


def test_an_untouched_ledger_verifies_and_says_what_that_leaves_open(path: Path) -> None:
    found = ledger.verify(path, signer=signer().public)
    assert (found.checkpoint.origin, found.checkpoint.size, found.saved) == (ORIGIN, COUNT, None)
    assert found.note == ledger.stored_note(path)
    assert found.caveat == ROLLBACK_CAVEAT
    assert "rollback to an earlier state" in ROLLBACK_CAVEAT


def test_an_empty_ledger_verifies(tmp_path: Path) -> None:
    path = write(tmp_path / "empty.ledger", count=0)
    assert ledger.verify(path, signer=signer().public).checkpoint.size == 0


@pytest.mark.parametrize("index", [0, 1, 63, 64, 99])
def test_an_altered_entry_is_named(path: Path, index: int) -> None:
    alter(path, ("UPDATE entries SET entry = ? WHERE position = ?", (FORGED, index)))
    error = refusal(path)
    assert (str(error), error.index) == (f"entry {index}: altered, it does not match its stored hash", index)


def test_of_several_altered_entries_the_first_is_named(path: Path) -> None:
    alter(path, ("UPDATE entries SET entry = ? WHERE position IN (71, 17, 40)", (FORGED,)))
    assert refusal(path).index == 17


def test_an_altered_stored_hash_is_named(path: Path) -> None:
    alter(path, "UPDATE entries SET leaf_hash = zeroblob(32) WHERE position = 5")
    assert refusal(path).index == 5


@pytest.mark.parametrize(("index", "first", "last"), [(5, 0, 63), (70, 64, 95), (99, 96, 99)])
def test_an_entry_altered_together_with_its_hash_is_found_and_its_subtree_named(
    path: Path, index: int, first: int, last: int
) -> None:
    values = (FORGED, merkle.leaf_hash(FORGED), index)
    alter(path, ("UPDATE entries SET entry = ?, leaf_hash = ? WHERE position = ?", values))
    error = refusal(path)
    assert error.index == first
    assert str(error) == f"entries {first} to {last}: altered or reordered together with their stored hashes"


def test_an_entry_altered_together_with_every_unsigned_hash_is_found(path: Path) -> None:
    alter(path, ("UPDATE entries SET entry = ?, leaf_hash = ? WHERE position = 7", (FORGED, merkle.leaf_hash(FORGED))))
    rows = sqlite3.connect(path).execute("SELECT leaf_hash FROM entries ORDER BY position").fetchall()
    frontier = merkle.EMPTY.extended([leaf for (leaf,) in rows]).encode()
    alter(path, ("UPDATE head SET frontier = ?", (frontier,)))
    assert str(refusal(path)) == "entries: altered or reordered together with their stored hashes"


def test_two_entries_that_changed_places_are_found(path: Path) -> None:
    alter(
        path,
        "UPDATE entries SET position = 1000 WHERE position = 3",
        "UPDATE entries SET position = 3 WHERE position = 7",
        "UPDATE entries SET position = 7 WHERE position = 1000",
    )
    assert str(refusal(path)) == "entries 0 to 63: altered or reordered together with their stored hashes"


@pytest.mark.parametrize("index", [0, 50])
def test_a_dropped_entry_is_named(path: Path, index: int) -> None:
    alter(path, ("DELETE FROM entries WHERE position = ?", (index,)))
    error = refusal(path)
    assert (str(error), error.index) == (f"entry {index}: missing or out of order", index)


def test_a_dropped_entry_whose_gap_was_closed_is_found(path: Path) -> None:
    alter(
        path,
        "DELETE FROM entries WHERE position = 98",
        "UPDATE entries SET position = 98 WHERE position = 99",
    )
    assert str(refusal(path)) == "truncated: entries 99 to 99 are missing"


def test_a_truncated_tail_is_found(path: Path) -> None:
    alter(path, "DELETE FROM entries WHERE position >= 90")
    error = refusal(path)
    assert (str(error), error.index) == ("truncated: entries 90 to 99 are missing", 90)


def test_an_entry_added_behind_the_checkpoint_is_found(path: Path) -> None:
    alter(path, ("INSERT INTO entries VALUES (100, ?, ?)", (FORGED, merkle.leaf_hash(FORGED))))
    assert str(refusal(path)) == "entry 100: beyond what the checkpoint covers"


def test_an_entry_before_the_first_is_found(path: Path) -> None:
    alter(path, ("INSERT INTO entries VALUES (-1, ?, ?)", (FORGED, merkle.leaf_hash(FORGED))))
    assert str(refusal(path)) == "entry 0: missing or out of order"


def test_bytes_that_are_no_entry_are_named_even_when_the_signer_signed_them(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ledger", count=2)
    text = b"Jane Doe, born 1970"
    leaves = [*(merkle.leaf_hash(data) for data in raw_entries(path)), merkle.leaf_hash(text)]
    frontier = merkle.EMPTY.extended(leaves)
    note = checkpoints.sign(Checkpoint(origin=ORIGIN, size=3, root=frontier.root), signer())
    alter(
        path,
        ("INSERT INTO entries VALUES (2, ?, ?)", (text, leaves[2])),
        ("UPDATE head SET note = ?, frontier = ?", (note.encode(), frontier.encode())),
    )
    error = refusal(path)
    assert str(error).startswith("entry 2: canonical record:")
    assert (error.index, "Jane" in str(error)) == (2, False)


def test_a_ledger_rewritten_by_another_key_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ledger", count=COUNT, key=signer(2))
    with pytest.raises(KeyMismatch, match=r"checkpoint: signed by key [0-9a-f]{8}, not by the given key [0-9a-f]{8}"):
        ledger.verify(path, signer=signer().public)


def test_a_ledger_rewritten_by_the_same_key_is_found_with_a_saved_checkpoint(path: Path, tmp_path: Path) -> None:
    saved = ledger.stored_note(path)
    rewritten = write(tmp_path / "b.ledger", count=COUNT + 50, batch=10, seed=1)
    assert ledger.verify(rewritten, signer=signer().public).caveat == ROLLBACK_CAVEAT
    expected = f"rewritten: the first {COUNT} entries are not those that the saved checkpoint covers"
    assert str(refusal(rewritten, saved=saved)) == expected


def test_a_rollback_is_found_with_a_saved_checkpoint(path: Path, tmp_path: Path) -> None:
    old = Path(shutil.copy(path, tmp_path / "old.ledger"))
    with Log.open(path, signer=signer()) as log:
        log.append(events(1))
        saved = log.note
    shutil.copy(old, path)
    assert ledger.verify(path, signer=signer().public).caveat == ROLLBACK_CAVEAT
    assert str(refusal(path, saved=saved)) == "rolled back: the saved checkpoint covers 101 entries, this ledger 100"


def test_a_ledger_that_grew_continues_its_saved_checkpoint(path: Path) -> None:
    saved = ledger.stored_note(path)
    with Log.open(path, signer=signer()) as log:
        log.append(events(31))
    found = ledger.verify(path, signer=signer().public, saved_checkpoint=saved)
    assert (found.saved, found.caveat) == (checkpoints.verify(saved, signer().public), None)


def test_a_saved_checkpoint_of_another_key_or_ledger_is_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyMismatch, match=r"^saved checkpoint: signed by key"):
        foreign = ledger.stored_note(write(tmp_path / "b.ledger", count=3, key=signer(2)))
        ledger.verify(path, signer=signer().public, saved_checkpoint=foreign)
    other = checkpoints.sign(Checkpoint(origin="mibao.test/other", size=3, root=bytes(32)), signer())
    assert str(refusal(path, saved=other)) == f"saved checkpoint: of the ledger 'mibao.test/other', not '{ORIGIN}'"
    with pytest.raises(InputError, match=r"^saved checkpoint: signed note: expected a text"):
        ledger.verify(path, signer=signer().public, saved_checkpoint="not a note")


def test_a_ledger_under_another_name_is_refused_where_the_name_is_given(path: Path) -> None:
    ledger.verify(path, signer=signer().public, origin=ORIGIN)
    with pytest.raises(IntegrityError, match=f"expected the ledger 'mibao.test/b', got '{ORIGIN}'"):
        ledger.verify(path, signer=signer().public, origin="mibao.test/b")


def test_a_hybrid_key_is_refused(path: Path) -> None:
    with pytest.raises(InputError, match="a ledger is signed by an ed25519 key, got one of type ed25519-mldsa65"):
        ledger.verify(path, signer=hybrid_signer().public)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE head SET frontier = zeroblob(length(frontier))", "frontier: not the one that the entries lead to"),
        ("UPDATE head SET frontier = x''", "frontier: its length does not fit the size of the tree"),
        ("UPDATE head SET note = x'ff'", "checkpoint: not text"),
        ("DELETE FROM head", "checkpoint: expected exactly one in the ledger"),
        ("CREATE TABLE notes (text TEXT)", "as specified, and nothing else"),
        ("CREATE INDEX by_hash ON entries (leaf_hash)", "as specified, and nothing else"),
        ("CREATE VIEW shown AS SELECT * FROM entries", "as specified, and nothing else"),
        (
            "CREATE TRIGGER quiet AFTER INSERT ON entries BEGIN DELETE FROM entries WHERE position = 0; END",
            "as specified, and nothing else",
        ),
        ("PRAGMA user_version = 2", "expected format version 1"),
    ],
)
def test_a_file_altered_in_one_other_part_is_refused(path: Path, statement: str, message: str) -> None:
    alter(path, statement)
    assert message in str(refusal(path))


def test_a_second_signature_in_the_ledgers_own_note_is_refused(path: Path) -> None:
    note = ledger.stored_note(path)
    doubled = note + note.rpartition("\n\n")[2]
    alter(path, ("UPDATE head SET note = ?", (doubled.encode(),)))
    assert str(refusal(path)) == "checkpoint: expected one signature in the ledger's own note"


@pytest.mark.parametrize("kept", [100, 4096, 5000, 8192, 12288, -1])
def test_a_file_cut_short_is_refused(path: Path, kept: int) -> None:
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(MibaoError):
        ledger.verify(path, signer=signer().public)


def test_of_single_byte_changes_every_one_is_found_or_leaves_the_export_identical(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.ledger", count=1000)
    # Decoding is a pure function of the entry's bytes, and nearly all entries are the same in every copy. Types are
    # checked at run time in every other test; here that would take ten times as long as the work itself.
    monkeypatch.setattr(entries, "decode", lru_cache(maxsize=4096)(entries.decode))
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    original, exported = path.read_bytes(), ledger.export(path)
    protected = protected_ranges(path, original)
    copy = tmp_path / "copy.ledger"
    draw = random.Random(20261123)  # noqa: S311 - the same bytes in every run
    seen: Counter[str] = Counter()
    for _ in range(counts(short=150, long=10_000)):
        at, change = draw.randrange(len(original)), draw.randrange(1, 256)
        altered = bytearray(original)
        altered[at] ^= change
        copy.write_bytes(altered)
        try:
            ledger.verify(copy, signer=signer().public)
        except MibaoError:
            seen["found"] += 1
            continue
        assert not any(at in part for part in protected), f"byte {at} holds an entry, a hash or the checkpoint"
        assert ledger.export(copy) == exported, f"byte {at}"
        seen["export identical"] += 1
    assert seen["found"] > seen["export identical"] > 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.ledger", "copy.ledger"]


def test_every_single_byte_of_the_first_page_is_found_or_leaves_the_export_identical(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ledger", count=3)
    original, exported = path.read_bytes(), ledger.export(path)
    copy = tmp_path / "copy.ledger"
    written = [at for at in range(4096) if at < 108 or original[at]]
    for at in written[:: counts(short=8, long=1)]:
        for change in (0x01, 0x80, 0xFF):
            altered = bytearray(original)
            altered[at] ^= change
            copy.write_bytes(altered)
            try:
                ledger.verify(copy, signer=signer().public)
            except MibaoError:
                continue
            assert ledger.export(copy) == exported, f"byte {at}"


def protected_ranges(path: Path, data: bytes) -> list[range]:
    """Where in the file the entries, their hashes and the checkpoint lie."""
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)
    values = [value for row in connection.execute("SELECT entry, leaf_hash FROM entries") for value in row]
    values += [note for (note,) in connection.execute("SELECT note FROM head")]
    connection.close()
    # Where a page was rewritten a dead copy may lie in free space: only values without one are surely live.
    found = [
        range(match.start(), match.end())
        for value, times in Counter(values).items()
        if data.count(value) == times
        for match in re.finditer(re.escape(value), data)
    ]
    assert len(found) > 0.9 * len(values)
    return found


def raw_entries(path: Path) -> list[bytes]:
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)
    raw = [data for (data,) in connection.execute("SELECT entry FROM entries ORDER BY position")]
    connection.close()
    return raw
