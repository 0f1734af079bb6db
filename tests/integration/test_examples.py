"""Every example runs as its page says; where the records are a download, on made-up ones in the same format."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from command_line import mibao

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def heart(rng: np.random.Generator) -> str:
    lines = []
    for _ in range(120):
        age, pulse = rng.normal(55, 9), rng.normal(150, 20)
        sick = int(age - 0.4 * (pulse - 150) > 55) * int(rng.integers(1, 5))
        values = [age, rng.integers(0, 2), rng.integers(1, 5), 130, 240, 0, 0, pulse, 0, 1.0, 2, "?", 3, sick]
        lines.append(",".join(map(str, values)))
    return "\n".join(lines) + "\n"


def credit(rng: np.random.Generator) -> str:
    lines = []
    for _ in range(160):
        amount = int(rng.integers(300, 9000))
        lines.append(
            f"A11 {rng.integers(6, 48)} A3{rng.integers(0, 5)} A43 {amount} A65 A75 4 A92 A101 4 A121 "
            f"{rng.integers(20, 70)} A143 A152 2 A173 1 A192 A201 {1 + (amount > 5000)}"
        )
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("name", "data", "make", "least"),
    [
        ("breast-cancer", None, None, 0.95),
        ("heart-disease", "processed.cleveland.data", heart, 0.75),
        ("credit", "german.data", credit, 0.75),
    ],
)
def test_an_example_trains_a_model_that_is_right_far_more_often_than_chance(name, data, make, least, tmp_path):
    folder = tmp_path / name
    shutil.copytree(EXAMPLES / name, folder, ignore=shutil.ignore_patterns("*.result", "*.data", "__pycache__"))
    if data is not None:
        (folder / data).write_text(make(np.random.default_rng(1)), encoding="ascii")
    done = mibao("train", "job.toml", "--json", folder=folder)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["metrics"]["accuracy"] >= least
    assert (summary["refused"], summary["abandoned"]) == (0, 0)
    if name == "breast-cancer":
        assert 0 < summary["epsilon"] <= 4.0


def test_every_example_is_on_the_page() -> None:
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert all(f"]({job.relative_to(EXAMPLES)})" in page for job in EXAMPLES.glob("*/job.toml"))
