"""Real processes that write ledgers: killed in the middle, and two at once."""

import os
import random
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from counts import counts
from ledger_samples import ORIGIN, events, signer
from mibao import ledger
from mibao.ledger import Log

TESTS = Path(__file__).parents[1]
WRITER = TESTS / "integration" / "ledger_writer.py"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "ledger"
    folder.mkdir()
    path = folder / "a.ledger"
    Log.create(path, signer=signer(), origin=ORIGIN).close()
    return path


@dataclass
class Writer:
    """A process that appends without end or so many batches; what it prints goes to a file."""

    process: subprocess.Popen[bytes]
    output: Path

    @classmethod
    def start(cls, path: Path, output: Path, *, batch_size: int, batches: int) -> "Writer":
        command = [sys.executable, str(WRITER), str(path), str(batch_size), str(batches)]
        with output.open("wb") as file:
            process = subprocess.Popen(command, stdout=file, env={**os.environ, "PYTHONPATH": str(TESTS)})
        writer = cls(process, output)
        while not output.read_text().startswith("ready\n"):
            assert process.poll() is None
            time.sleep(0.002)
        return writer

    def acknowledged(self) -> list[range]:
        text = self.output.read_text()
        complete = text[: text.rfind("\n") + 1]
        return [range(*map(int, line.split())) for line in complete.splitlines()[1:]]


def test_kill_minus_9_in_the_middle_of_appends_loses_nothing_acknowledged(path: Path, tmp_path: Path) -> None:
    draw = random.Random(9)  # noqa: S311 - the same moments in every run, as far as a clock allows
    appended = 0
    for trial in range(counts(short=3, long=20)):
        batch_size = draw.choice([1, 7, 100])
        writer = Writer.start(path, tmp_path / "output", batch_size=batch_size, batches=0)
        time.sleep(draw.uniform(0.02, 0.4))
        writer.process.kill()
        writer.process.wait(timeout=30)
        kept = writer.acknowledged()
        appended = max(appended, kept[-1].stop if kept else 0)
        found = ledger.verify(path, signer=signer().public)
        assert appended <= found.checkpoint.size <= appended + batch_size, f"trial {trial}"
        stored = [entry.event for entry in ledger.stored_entries(path)]
        for number, indices in enumerate(kept):
            assert stored[indices.start : indices.stop] == events(batch_size, seed=number)
        appended = found.checkpoint.size
    assert appended > 0
    with Log.open(path, signer=signer()) as log:
        assert log.append(events(5)) == range(appended, appended + 5)
    assert ledger.verify(path, signer=signer().public).checkpoint.size == appended + 5
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_kill_while_a_ledger_is_created_leaves_a_whole_one_or_none(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from ledger_samples import signer; from mibao.ledger import Log\n"
        "print('ready', flush=True)\n"
        "for n in range(10000): Log.create(Path(sys.argv[1]) / str(n), signer=signer(), origin='mibao.test/a').close()"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"ready\n"
    time.sleep(0.7)
    writer.kill()
    writer.communicate(timeout=30)
    whole = [file for file in tmp_path.iterdir() if not file.name.startswith(".") and "-" not in file.name]
    assert whole
    for file in whole:
        assert ledger.verify(file, signer=signer().public).checkpoint.size == 0


def test_two_processes_that_append_at_once_lose_and_double_nothing(path: Path, tmp_path: Path) -> None:
    batches = counts(short=40, long=400)
    writers = [Writer.start(path, tmp_path / f"output{n}", batch_size=3, batches=batches) for n in range(2)]
    watched = [ledger.verify(path, signer=signer().public).checkpoint.size for _ in range(3)]
    assert [writer.process.wait(timeout=120) for writer in writers] == [0, 0]
    taken = [index for writer in writers for indices in writer.acknowledged() for index in indices]
    assert sorted(taken) == list(range(2 * batches * 3))
    assert watched == sorted(watched)
    alone = shutil.copy(path, path.parent / "copy.ledger")  # without any file beside it
    assert ledger.verify(Path(alone), signer=signer().public).checkpoint.size == 2 * batches * 3


def test_a_writer_held_up_by_another_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlite3

    from mibao.errors import InputError
    from mibao.ledger import log_sqlite

    monkeypatch.setattr(log_sqlite, "BUSY_TIMEOUT_S", 0.1)
    with Log.open(path, signer=signer()) as log:
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(InputError, match="another process has held its lock"):
            log.append(events(1))
        holder.execute("ROLLBACK")
        holder.close()
        assert log.append(events(1)) == range(1)
