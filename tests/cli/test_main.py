"""Every way in which the command can end."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from mibao import errors
from mibao.cli import main as cli


def ends(error: BaseException, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(sys.modules["mibao.cli.main"], "app", fail)
    with pytest.raises(SystemExit) as ended:
        cli()
    return ended.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (errors.IntegrityError("entry 3: altered"), 1, "error: entry 3: altered\n"),
        (errors.InputError("expected a file"), 2, "error: expected a file\n"),
        (errors.MissingExtra("the demo", extra="demo"), 2, "error: the demo needs the extra 'demo': "),
        (errors.KeyMismatch("not for this key"), 4, "error: not for this key\n"),
        (errors.ProtocolError("client 3, step mask"), 5, "error: client 3, step mask\n"),
        (errors.BudgetExhausted("3.9 spent of 4"), 6, "error: 3.9 spent of 4\n"),
        (OSError(errno.ENOSPC, "No space left on device", "x.key"), 2, "error: No space left on device: x.key\n"),
        (RuntimeError("a secret in the text"), 70, "error: a fault in mibao itself (RuntimeError)"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
    ],
)
def test_an_error_is_one_line_and_its_own_exit_code(
    error: BaseException,
    code: int,
    line: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended, printed = ends(error, capsys, monkeypatch)
    assert ended == code
    assert printed.startswith(line)
    assert printed.count("\n") == 1
    assert "a secret" not in printed


USAGE = {
    "an unknown command": (["nope"], "No such command 'nope'"),
    "an unknown option": (["keygen", "--foo"], "No such option"),
    "a missing option": (["keygen"], "Missing option '-o' / '--output'"),
    "a missing argument": (["ledger", "verify", "--key", "x"], "Missing argument"),
    "a value out of range": (
        ["seal", "a", "-o", "b", "--to", "c", "--sign", "d", "--model-id", "e", "--version", "0"],
        "Invalid value for '--version'",
    ),
}


@pytest.mark.parametrize("case", USAGE)
def test_wrong_usage_is_one_line_that_says_where_to_read(case: str, tmp_path: Path) -> None:
    arguments, expected = USAGE[case]
    done = subprocess.run(
        [sys.executable, "-m", "mibao", *arguments],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert expected in done.stderr
    assert "--help" in done.stderr
    assert list(tmp_path.iterdir()) == []
