"""Under ``MIBAO_NO_SKIP=1`` a skip is a failure, so that nothing stays untested unnoticed."""

import os
import shutil
from collections.abc import Generator
from typing import Any

import pytest


def program(name: str, *, apt: str) -> str:
    """The path of a program that a test starts; without it the test is skipped with the line that installs it."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"needs {name}: apt install {apt}")
    return path


def _refuse_skip(report: Any) -> None:
    if os.environ.get("MIBAO_NO_SKIP") == "1" and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped, which MIBAO_NO_SKIP=1 forbids: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A skipped test."""
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A module skipped as a whole."""
    report = yield
    _refuse_skip(report)
    return report
