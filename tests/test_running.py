"""The rules of a run hold: a skip can be made to fail, and a long run goes on where it stopped."""

import subprocess
import sys
from pathlib import Path

import pytest

from strict_skips import program

_TESTS = Path(__file__).resolve().parent
_CONFTEST = """
from long_run import pytest_collection_modifyitems, pytest_configure
from strict_skips import pytest_make_collect_report, pytest_runtest_makereport
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with one module that passes, skips, fails and has a long test."""
    (tmp_path / "conftest.py").write_text(_CONFTEST)
    (tmp_path / "pytest.ini").write_text(
        f"[pytest]\npythonpath = {_TESTS}\nmarkers = long\naddopts = -p no:cacheprovider\n"
    )
    (tmp_path / ".gitignore").write_text(".test-long/\n__pycache__/\n")
    (tmp_path / "test_mixed.py").write_text(
        "import pytest\n"
        "def test_passes(): pass\n"
        "def test_skips(): pytest.skip('needs a daemon: apt install daemon')\n"
        "@pytest.mark.xfail(strict=True)\n"
        "def test_fails_as_known(): assert False\n"
        "@pytest.mark.long\n"
        "def test_takes_long(): pass\n"
    )
    git = program("git", apt="git")
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "t"]):
        subprocess.run([git, *command], cwd=tmp_path, check=True)
    return tmp_path


def _pytest(project: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-ra", *arguments],
        cwd=project, env={"PATH": "/usr/bin:/bin", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **environment},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return done.returncode, done.stdout


def test_a_skip_is_reported_with_its_apt_line_and_does_not_fail_by_default(project: Path) -> None:
    code, output = _pytest(project)
    assert code == 0
    assert "apt install daemon" in output
    assert "1 passed, 1 skipped, 1 deselected, 1 xfailed" in output


def test_a_skip_fails_where_nothing_may_be_skipped_and_a_known_failure_does_not(project: Path) -> None:
    code, output = _pytest(project, MIBAO_NO_SKIP="1")
    assert code == 1
    assert "MIBAO_NO_SKIP=1 forbids: Skipped: needs a daemon" in output
    assert "1 failed, 1 passed, 1 deselected, 1 xfailed" in output


def test_a_module_skipped_as_a_whole_fails_where_nothing_may_be_skipped(project: Path) -> None:
    (project / "test_module.py").write_text("import pytest\npytest.importorskip('no_such_module_anywhere')\n")
    assert _pytest(project, "test_module.py")[0] in (0, 5)
    code, output = _pytest(project, "test_module.py", MIBAO_NO_SKIP="1")
    assert code not in (0, 5)
    assert "no_such_module_anywhere" in output


def test_a_long_run_keeps_what_passed_at_its_commit_and_runs_the_rest_again(project: Path) -> None:
    _, first = _pytest(project, MIBAO_LONG="1")
    assert "0 passed before, 2 passed now" in first
    code, second = _pytest(project, MIBAO_LONG="1")
    assert code == 0
    assert "2 passed before, 0 passed now" in second
    assert "1 skipped, 2 deselected, 1 xfailed" in second


def test_a_long_run_with_nothing_left_to_do_succeeds(project: Path) -> None:
    _pytest(project, "-k", "passes", MIBAO_LONG="1")
    code, output = _pytest(project, "-k", "passes", MIBAO_LONG="1")
    assert code == 0
    assert "1 passed before, 0 passed now" in output


def test_a_long_run_with_uncommitted_changes_keeps_nothing(project: Path) -> None:
    (project / "test_new.py").write_text("def test_new(): pass\n")
    for _ in range(2):
        _, output = _pytest(project, MIBAO_LONG="1")
        assert "uncommitted changes" in output
        assert "0 passed before, 3 passed now" in output


def test_another_commit_starts_afresh(project: Path) -> None:
    _pytest(project, MIBAO_LONG="1")
    identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run(
        [program("git", apt="git"), *identity, "commit", "-q", "--allow-empty", "-m", "n"], cwd=project, check=True
    )
    assert "0 passed before, 2 passed now" in _pytest(project, MIBAO_LONG="1")[1]
