"""The command line, run within the tests' own process."""

import contextlib
import io
import subprocess
import sys
from unittest import mock

import pytest

from mibao.cli.main import main


def mibao(*arguments: object, folder) -> subprocess.CompletedProcess[str]:
    """One run of the command line within this process: a process each would take most of the time."""
    words, out, error = list(map(str, arguments)), io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(error),
        mock.patch.object(sys, "argv", ["mibao", *words]),
        pytest.raises(SystemExit) as exit_,
    ):
        main()
    return subprocess.CompletedProcess(words, exit_.value.code or 0, out.getvalue(), error.getvalue())
