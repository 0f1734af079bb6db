"""Real processes that mask into one vault: killed in the middle, and several at once."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

from counts import counts
from mibao.deid import Pseudonymiser
from vault_notes import KEY, SCOPE, note

TESTS = Path(__file__).parents[1]
WRITER = TESTS / "integration" / "vault_writer.py"


def _start(vault: Path, output: Path, first: int, notes: int) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, str(WRITER), str(vault), str(first), str(notes)], stdout=file, env=environment
        )
    while not output.read_text().startswith("ready\n"):
        assert process.poll() is None
        time.sleep(0.005)
    return process


def _acknowledged(output: Path) -> list[tuple[int, str]]:
    text = output.read_text()
    lines = text[: text.rfind("\n") + 1].splitlines()[1:]
    return [(int(number), masked) for number, _, masked in (line.partition("\t") for line in lines)]


def _all_restored(vault: Path, done: list[tuple[int, str]]) -> None:
    session = Pseudonymiser.open(vault, key=KEY, scope=SCOPE)
    assert [session.restore(masked) for _, masked in done] == [note(number) for number, _ in done]
    session.close()


def test_kill_minus_9_in_the_middle_loses_nothing_acknowledged(tmp_path: Path) -> None:
    draw = random.Random(4)  # noqa: S311 - the same moments in every run, as far as a clock allows
    vault, done = tmp_path / "v", []
    for trial in range(counts(short=2, long=20)):
        process = _start(vault, tmp_path / "output", 1_000_000 * trial, 0)
        while not _acknowledged(tmp_path / "output"):
            time.sleep(0.005)
        time.sleep(draw.uniform(0.0, 0.3))
        process.kill()
        process.wait(timeout=30)
        done += _acknowledged(tmp_path / "output")
        _all_restored(vault, done)
    assert done
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("v")] == ["v"]


def test_several_processes_mask_into_one_vault_and_agree(tmp_path: Path) -> None:
    vault = tmp_path / "v"
    started = [
        _start(vault, tmp_path / f"output{index}", 1000 * (index // 2), counts(short=25, long=300))
        for index in range(4)
    ]
    assert [process.wait(timeout=120) for process in started] == [0] * 4
    answers = [_acknowledged(tmp_path / f"output{index}") for index in range(4)]
    assert answers[0] == answers[1]  # two each masked the same notes, at the same time
    assert answers[2] == answers[3]
    _all_restored(vault, [each for answer in answers for each in answer])
