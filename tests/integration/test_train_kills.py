"""Real `mibao train` processes, killed at random moments, and the runs that go on from what they left."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from counts import counts

SITES = """
import time
import numpy as np
from mibao.federated import Records

def load_site(number):
    rng = np.random.default_rng(number)
    features = rng.normal(size=(40, 5))
    time.sleep(0.002)
    return Records(features=features, targets=(features[:, 0] > 0.0).astype(float))

held_out = load_site(1000)
"""
JOB = """
model = "logistic"
features = 5
data = "sites.py:load_site"
evaluate = "sites.py:held_out"

[strategy]
name = "fedavgm"
lr = 0.3
batch = 8

[run]
clients = 200
cohort = 20
rounds = 30
seed = 5
"""
PRIVATE = """
[privacy]
clip = 0.5
noise_multiplier = 1.0
delta = 1e-5
noise = "central"
"""


def train(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "mibao", "train", *arguments, "--json"]
    return subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)


def finished(process: subprocess.Popen[bytes]) -> dict[str, object]:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    summary: dict[str, object] = json.loads(output)
    return summary


def rounds_in(path: Path) -> list[int]:
    """The rounds in the metrics; a last line cut off in the middle is no round."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            found.append(int(json.loads(line)["round"]))
        except ValueError:
            break
    return found


def killed(folder: Path, draw: random.Random, *arguments: str) -> bool:
    """Whether the run was killed before its end: at a random moment after its first round."""
    metrics = folder / "out" / "metrics.jsonl"
    before = len(rounds_in(metrics))
    process = train(folder, "job.toml", "-o", "out", *arguments)
    while process.poll() is None and len(rounds_in(metrics)) <= before:
        time.sleep(0.002)
    time.sleep(draw.uniform(0.0, 0.3))
    process.kill()
    process.communicate(timeout=30)
    return process.returncode != 0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sites.py").write_text(SITES)
    (tmp_path / "job.toml").write_text(JOB)
    return tmp_path


def test_a_killed_run_goes_on_and_ends_as_one_that_was_not(folder: Path) -> None:
    finished(train(folder, "job.toml", "-o", "whole"))
    expected = load_file(folder / "whole" / "model.safetensors")
    draw, kills = random.Random(7), 0  # noqa: S311 - the same moments in every run, as far as a clock allows
    wanted = counts(short=1, long=20)
    while kills < wanted:
        resume: tuple[str, ...] = ()
        while kills < wanted and killed(folder, draw, *resume):
            kills += 1
            done = len(rounds_in(folder / "out" / "metrics.jsonl"))
            resume = ("--resume",)
            assert done >= 1
        summary = finished(train(folder, "job.toml", "-o", "out", *resume)) if resume else {}
        got = load_file(folder / "out" / "model.safetensors")
        assert all(np.array_equal(got[name], expected[name]) for name in expected)
        assert rounds_in(folder / "out" / "metrics.jsonl") == list(range(30))
        # What the last process ran is all that was left, and at most one round more.
        assert int(str(summary.get("rounds", 30))) <= 30
        (folder / "out").rename(folder / f"out-{kills}-{time.monotonic_ns()}")
    assert kills == wanted


def test_at_most_the_round_under_way_is_lost_and_with_privacy_it_is_charged(folder: Path) -> None:
    (folder / "job.toml").write_text(JOB + PRIVATE)
    draw = random.Random(11)  # noqa: S311
    while not killed(folder, draw):
        for path in sorted((folder / "out").rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
    done = len(rounds_in(folder / "out" / "metrics.jsonl"))
    opened = json.loads((folder / "out" / "checkpoint" / "opened.json").read_text())["opened"]
    assert len(opened) <= 1
    summary = finished(train(folder, "job.toml", "-o", "out", "--resume"))
    assert int(str(summary["rounds"])) >= 30 - done - 1
    whole = finished(train(folder, "job.toml", "-o", "whole"))
    # Every round counts, the lost one too: no kill makes the run cheaper.
    assert float(str(summary["epsilon"])) == pytest.approx(float(str(whole["epsilon"])))
    noise = subprocess.run(
        [sys.executable, "-m", "mibao", "ledger", "show", "out/ledger.db", "--jsonl"],
        cwd=folder, capture_output=True, text=True, check=True, timeout=60,
    ).stdout.count('"noise-added"')  # fmt: skip
    assert noise >= 30
    verify = [sys.executable, "-m", "mibao", "ledger", "verify", "out/ledger.db", "--key", "out/ledger.pub"]
    assert subprocess.run(verify, cwd=folder, stdout=subprocess.DEVNULL, check=False, timeout=60).returncode == 0
