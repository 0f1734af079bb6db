"""Full counts under ``MIBAO_LONG=1``, in as many sittings as it takes.

What passed is written to ``.test-long/<commit>`` at once, and not run again at that commit. With uncommitted
changes nothing is kept, because no commit names what was tested.
"""

import os
import subprocess
from pathlib import Path

import pytest


def full_counts() -> bool:
    """Whether this is a long run."""
    return os.environ.get("MIBAO_LONG") == "1"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave tests marked ``long`` to long runs."""
    if not full_counts():
        _deselect(config, items, [item for item in items if item.get_closest_marker("long")])


def pytest_configure(config: pytest.Config) -> None:
    """Register the memory of a long run."""
    if full_counts():
        config.pluginmanager.register(LongRun(config.rootpath), "long-run")


class LongRun:
    """Remembers which tests passed at the commit that stands in ``root``."""

    def __init__(self, root: Path) -> None:
        self.commit = _git(root, "rev-parse", "HEAD")
        self.clean = bool(self.commit) and not _git(root, "status", "--porcelain")
        self.memory = root / ".test-long" / self.commit
        self.before = set(self.memory.read_text(encoding="utf-8").splitlines()) if self._remembers() else set()
        self.skipped_now = self.passed_now = 0
        self.unbroken: set[str] = set()

    def _remembers(self) -> bool:
        return self.clean and self.memory.exists()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Leave out what passed before."""
        done = [item for item in items if item.nodeid in self.before]
        self.skipped_now = len(done)
        _deselect(config, items, done)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write a test down once its set-up, its call and its tear-down have passed."""
        if report.when == "call" and report.passed:
            self.unbroken.add(report.nodeid)
        if report.when == "teardown" and report.passed and report.nodeid in self.unbroken:
            self.passed_now += 1
            if self.clean:
                self.memory.parent.mkdir(exist_ok=True)
                with self.memory.open("a", encoding="utf-8") as memory:
                    memory.write(f"{report.nodeid}\n")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """A run with nothing left to do has succeeded."""
        if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and self.skipped_now:
            session.exitstatus = pytest.ExitCode.OK

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say at which commit this counts."""
        where = f"commit {self.commit[:12]}" if self.commit else "no commit"
        kept = "" if self.clean else ", with uncommitted changes: nothing is kept for a later run"
        terminalreporter.write_line(
            f"long run at {where}{kept}: {self.skipped_now} passed before, {self.passed_now} passed now"
        )


def _deselect(config: pytest.Config, items: list[pytest.Item], left_out: list[pytest.Item]) -> None:
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        gone = set(left_out)
        items[:] = [item for item in items if item not in gone]


def _git(root: Path, *arguments: str) -> str:
    """What git answers about ``root``, nothing where there is no repository."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False, timeout=60)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
