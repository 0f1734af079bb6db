"""The command as a newcomer runs it."""

import json
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest


def demo(*options: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mibao", "demo", *options],
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("demo")
    return folder / "artefacts", demo("--json", "--keep", "artefacts", cwd=folder)


def test_json_is_one_object_and_every_promise_is_kept(kept: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    result = kept[1]
    assert (result.returncode, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert found["ok"] is True
    assert found["deid"] == {"restored": True}
    assert found["federated"]["pooled_accuracy"] - found["federated"]["accuracy"] <= 0.03
    assert 0 < found["federated"]["epsilon"] <= 8
    assert found["federated"]["delta"] == 1e-5
    assert found["federated"]["sum_exact"] is True
    assert found["federated"]["dropouts"] == 1
    assert found["sealed"] == {"byte_identical": True, "refused": ["altered", "wrong-key", "wrong-signer"]}
    assert found["he"]["clear_weights"]["agreement"] == found["he"]["encrypted_weights"]["agreement"] == 1.0
    assert found["ledger"]["found_index"] == found["ledger"]["tampered_index"]


def test_what_it_keeps_can_be_inspected_with_the_other_commands(
    kept: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder = kept[0]
    for file, expected in (("ledger.db", 0), ("ledger.altered.db", 1)):
        verify = subprocess.run(
            [sys.executable, "-m", "mibao", "ledger", "verify", file, "--key", "ledger.pub"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert verify.returncode == expected, verify.stderr
    assert (folder / "model.safetensors").read_bytes() == (folder / "model.opened.safetensors").read_bytes()
    assert (folder / "note.txt").read_text() != (folder / "note.masked.txt").read_text()


def test_no_personal_data_and_no_text_stand_in_the_ledger(
    kept: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    content = (kept[0] / "ledger.db").read_bytes()
    for secret in ("Lin", "林晓雨", "13800138000", "lin.xiaoyu", "990101198707145121", "BC-2026", "Harbour"):
        assert secret.encode() not in content
    with sqlite3.connect(f"file:{kept[0] / 'ledger.db'}?mode=ro", uri=True) as connection:
        assert connection.execute("SELECT count(*) FROM entries").fetchone()[0] > 100
    connection.close()


@pytest.mark.parametrize("columns", ["100", "60"])
def test_the_screen_fits_its_width_and_ends_in_the_table(columns: str, tmp_path: Path) -> None:
    from rich.cells import cell_len

    result = demo(cwd=tmp_path, COLUMNS=columns)
    assert (result.returncode, result.stderr) == (0, "")
    assert max(cell_len(line) for line in result.stdout.splitlines()) <= int(columns)
    for expected in ("De-identify", "Train together", "Seal", "Compute on ciphertexts", "Ledger", "What it cost"):
        assert expected in result.stdout
    assert "every promise kept" in result.stdout
    assert "✗" not in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    result = demo("--keep", "mine", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr == "error: --keep mine: expected a new or empty folder, got one with something in it\n"
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("missing", ["sklearn", "seal"])
@pytest.mark.parametrize("options", [["--json"], ["--keep", "kept"]])
def test_without_its_extra_it_says_in_one_line_what_to_install(
    missing: str, options: list[str], tmp_path: Path
) -> None:
    code = f"import sys; sys.modules['{missing}'] = None; sys.argv[1:] = {['demo', *options]}; import mibao.__main__"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        "error: the demo needs the extra 'demo': in mibao's source folder, pip install '.[demo]'\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_the_readmes_show_the_screen_as_it_is_today(tmp_path: Path) -> None:
    def shape(screen: str) -> list[str]:
        """Headings, verdict lines and the table's first column: what does not change from run to run."""
        kept = []
        for line in screen.splitlines():
            stripped = re.sub(r"[\d.,]+(e-\d+)?", "#", line.strip())
            if stripped.startswith("│"):
                kept.append(stripped.split("│")[1].strip())
            elif re.match(r"# {1,2}\w|✓ every|mibao|What it cost|Keep every|Nothing leaves", stripped):
                kept.append(stripped)
        return kept

    today = shape(demo(cwd=tmp_path, COLUMNS="100").stdout)
    assert len(today) > 15
    for page in ("README.md", "README.zh.md"):
        text = (Path(__file__).parents[2] / page).read_text(encoding="utf-8")
        (shown,) = re.findall(r"```text\n(.*?)\n```", text, re.DOTALL)
        assert shape(shown) == today


def test_what_it_keeps_of_the_model_can_be_verified_and_opened(
    kept: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder = kept[0]
    for command in (
        ["verify", "model.mibao", "--signer", "vendor.pub"],
        ["open", "model.mibao", "--key", "recipient.key", "--signer", "vendor.pub", "-o", "again.safetensors"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "mibao", *command, "--state", "versions"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert (folder / "again.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    for secret in ("recipient.key", "note.key", "encrypted-data/client.key"):
        assert (folder / secret).stat().st_mode & 0o777 == 0o600
