"""`mibao ledger`, through its own noun; exit codes and error lines come from the root and are tested as processes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from ledger_samples import ORIGIN, alter, events, signer, write
from mibao import ledger
from mibao.cli.ledger import app
from mibao.crypto.keys import encode_public
from mibao.errors import InputError, IntegrityError, KeyMismatch
from mibao.ledger import Log, merkle

COUNT = 30


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "vendor.pub").write_text(encode_public(signer().public) + "\n")
    (tmp_path / "other.pub").write_text(encode_public(signer(2).public) + "\n")
    return write(tmp_path / "a.ledger", count=COUNT)


@pytest.fixture
def key(path: Path) -> str:
    return str(path.with_name("vendor.pub"))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def mibao(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mibao", "ledger", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False)


def test_verify_takes_the_key_as_a_file_or_as_the_string_in_it(path: Path, key: str) -> None:
    for given in (key, encode_public(signer().public)):
        result = run("verify", path, "--key", given)
        assert result.exit_code == 0, result.output
        assert f"VERIFIED  {COUNT} entries, none altered, dropped or reordered" in result.output
        assert ORIGIN in result.output
        assert "a rollback to an earlier state" in result.output


def test_verify_demands_a_key(path: Path) -> None:
    result = run("verify", path)
    assert result.exit_code == 2
    assert "--key" in result.output


def test_verify_with_a_saved_checkpoint_says_that_the_ledger_only_grew(path: Path, key: str) -> None:
    saved = path.with_name("saved")
    assert run("checkpoint", path, "-o", saved).exit_code == 0
    with Log.open(path, signer=signer()) as log:
        log.append(events(4))
    result = run("verify", path, "--key", key, "--checkpoint", saved)
    assert result.exit_code == 0, result.output
    assert f"continues the saved checkpoint of {COUNT} entries" in result.output
    assert "rollback" not in result.output


def test_verify_names_an_altered_entry_and_gives_no_green_word(path: Path, key: str) -> None:
    alter(path, "UPDATE entries SET entry = x'00' WHERE position = 17")
    result = run("verify", path, "--key", key)
    assert isinstance(result.exception, IntegrityError)
    assert str(result.exception) == "entry 17: altered, it does not match its stored hash"
    assert result.output.startswith("NOT VERIFIED")
    assert "VERIFIED  30" not in result.output


def test_verify_refuses_a_ledger_from_another_key(path: Path) -> None:
    result = run("verify", path, "--key", path.with_name("other.pub"))
    assert isinstance(result.exception, KeyMismatch)
    assert result.output.startswith("NOT VERIFIED")


def test_a_checkpoint_on_standard_output_is_the_signed_note(path: Path) -> None:
    assert run("checkpoint", path).output == ledger.stored_note(path)


def test_a_proof_is_made_and_checked_without_the_ledger(path: Path, key: str) -> None:
    proof = path.with_name("entry.tlog-proof")
    assert run("prove", path, 11, "-o", proof).exit_code == 0
    assert run("prove", path, 11).output == proof.read_text()
    path.unlink()
    result = run("check-proof", proof, "--key", key)
    assert result.exit_code == 0, result.output
    assert f"PROVEN  entry 11 is in the ledger {ORIGIN}" in result.output
    assert "privacy-spent" in result.output
    assert "releases = 11" in result.output


def test_a_proof_altered_by_one_character_is_refused(path: Path, key: str) -> None:
    proof = path.with_name("entry.tlog-proof")
    proof.write_text(ledger.prove(path, 11).replace("index 11", "index 12"))
    result = run("check-proof", proof, "--key", key)
    assert isinstance(result.exception, IntegrityError)
    assert result.output.startswith("NOT PROVEN")


def test_show_lists_the_newest_entries_within_100_columns(path: Path) -> None:
    result = run("show", path, "--last", 3)
    assert result.exit_code == 0
    assert "entries 27 to 29 of 30, not verified" in result.output
    assert "circuit-evaluated" in result.output
    assert "round-trained" not in result.output
    assert max(len(line) for line in result.output.splitlines()) <= 100
    assert "entries 0 to 29 of 30" in run("show", path, "--last", 0).output


def test_show_as_json_lines_is_the_export(path: Path) -> None:
    lines = run("show", path, "--jsonl").output.splitlines()
    assert [json.loads(line)["index"] for line in lines[:-1]] == list(range(COUNT))
    assert "\n".join([*lines, ""]).encode() == ledger.export(path)


def test_an_empty_ledger_is_shown_and_verified(tmp_path: Path) -> None:
    path = write(tmp_path / "empty.ledger", count=0)
    assert "no entries" in run("show", path).output
    assert "VERIFIED  0 entries" in run("verify", path, "--key", encode_public(signer().public)).output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "missing"], "missing: no such file"),
        (["verify", "missing", "--key", "vendor.pub"], "missing: no such file"),
        (["verify", "vendor.pub", "--key", "vendor.pub"], "vendor.pub: not a mibao ledger"),
        (["verify", "a.ledger", "--key", "vendor.pub", "--checkpoint", "missing"], "missing: cannot be read"),
        (["verify", "a.ledger", "--key", "vendor.pub", "--checkpoint", "vendor.pub"], "saved checkpoint: signed note"),
        (["verify", "a.ledger", "--key", "vendor.pub", "--checkpoint", "a.ledger"], "a.ledger: expected"),
        (["checkpoint", "vendor.pub"], "vendor.pub: not a mibao ledger"),
        (["checkpoint", "a.ledger", "-o", "vendor.pub"], "vendor.pub exists already and is not overwritten"),
        (["prove", "a.ledger", "30"], "it holds 30 entries, numbered from 0; there is no entry 30"),
        (["prove", "a.ledger", "30", "-o", "proof"], "it holds 30 entries, numbered from 0; there is no entry 30"),
        (["prove", "a.ledger", "3", "-o", "nowhere/proof"], "nowhere/proof: cannot be written"),
        (["check-proof", "missing", "--key", "vendor.pub"], "missing: cannot be read"),
    ],
)
def test_wrong_input_is_one_clear_line_and_nothing_is_written(
    path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(path.parent)
    before = files(path.parent)
    result = run(*arguments)
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)
    assert files(path.parent) == before


def test_the_process_ends_with_the_documented_exit_codes_and_one_line_on_standard_error(path: Path, key: str) -> None:
    done = mibao("verify", path, "--key", key)
    assert (done.returncode, done.stderr) == (0, "")
    values = (entry_bytes := b"\x00", merkle.leaf_hash(entry_bytes))
    alter(path, ("UPDATE entries SET entry = ?, leaf_hash = ? WHERE position = 17", values))
    failed = mibao("verify", path, "--key", key)
    assert (failed.returncode, failed.stderr.count("\n")) == (1, 1)
    assert failed.stderr.startswith("error: entry 17: ")
    missing = mibao("verify", path.with_name("missing"), "--key", key)
    assert (missing.returncode, missing.stderr) == (2, f"error: {path.with_name('missing')}: no such file\n")
    foreign = mibao("verify", path, "--key", path.with_name("other.pub"))
    assert foreign.returncode == 4
    assert foreign.stderr.startswith("error: checkpoint: signed by key")
