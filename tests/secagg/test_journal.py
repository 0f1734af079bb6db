import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counts import counts
from mibao.errors import InputError, ProtocolError
from mibao.secagg.journal import FileJournal, Journal, MemoryJournal
from secagg.committee_rounds import FIRST_MEMBER, CommitteeRound


@settings(max_examples=counts(short=25, long=500), deadline=None)
@given(records=st.lists(st.tuples(st.binary(max_size=3), st.binary(max_size=9)), max_size=20))
def test_the_first_record_under_a_name_stays(
    records: list[tuple[bytes, bytes]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    for journal in (MemoryJournal(), FileJournal(folder)):
        assert isinstance(journal, Journal)
        first: dict[bytes, bytes] = {}
        for name, content in records:
            assert journal.find(name) == first.get(name)
            assert journal.record(name, content) == first.setdefault(name, content)
        if isinstance(journal, FileJournal):
            again = FileJournal(folder)
            assert {name: again.find(name) for name in first} == first


def test_a_folder_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="journal: cannot use"):
        FileJournal(tmp_path / "file" / "folder")


def test_records_are_for_their_owner_only_and_no_draft_is_left(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path / "journal")
    journal.record(b"name", b"content")
    journal.record(b"name", b"other")
    (path,) = (tmp_path / "journal").iterdir()
    assert path.stat().st_mode & 0o077 == 0
    assert (tmp_path / "journal").stat().st_mode & 0o077 == 0


_MEMBER = """
import sys
from pathlib import Path
from mibao.secagg.journal import FileJournal
from secagg.committee_rounds import FIRST_MEMBER, CommitteeRound
made = CommitteeRound()
member = made.member(FIRST_MEMBER, journal=FileJournal(Path(sys.argv[1])))
print(member.answer(Path(sys.argv[2]).read_bytes()).hex(), flush=True)
sys.stdin.read()
"""


def test_a_member_killed_after_it_confirmed_refuses_another_set_for_ever(tmp_path: Path) -> None:
    made = CommitteeRound()
    message = made.collect()[FIRST_MEMBER]
    (tmp_path / "message").write_bytes(message)
    tests = Path(__file__).parents[1]
    process = subprocess.Popen(
        [sys.executable, "-c", _MEMBER, str(tmp_path / "journal"), str(tmp_path / "message")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}"},
    )
    assert process.stdout is not None
    said = process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        pipe.close()
    journal = FileJournal(tmp_path / "journal")
    assert made.member(FIRST_MEMBER, journal=journal).answer(message) == bytes.fromhex(said.decode().strip())
    other = made.announcement(message, challenge=b"c" * 32)
    with pytest.raises(ProtocolError, match="this member has answered for other vectors in this round"):
        made.member(FIRST_MEMBER, journal=journal).answer(other)


def test_a_process_killed_while_it_records_leaves_a_whole_record_or_none(tmp_path: Path) -> None:
    """Killed at any moment: what is found is one of the contents, complete."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom mibao.secagg.journal import FileJournal\n"
        "j = FileJournal(Path(sys.argv[1]))\nprint('ready', flush=True)\nn = 0\n"
        "while True:\n    j.record(b'%d' % n, b'%d' % n * 50000)\n    n += 1\n"
    )
    for case in range(3):
        folder = tmp_path / str(case)
        process = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.05 + 0.03 * case)
        process.kill()
        process.wait()
        process.stdout.close()
        journal, n = FileJournal(folder), 0
        while (found := journal.find(b"%d" % n)) is not None:
            assert found == b"%d" % n * 50000
            n += 1
        assert n > 0
        assert journal.record(b"%d" % n, b"new") == b"new"
