"""Shapes and types in the package's annotations are checked while its tests run."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

import postgres
from long_run import pytest_collection_modifyitems, pytest_configure
from strict_skips import pytest_make_collect_report, pytest_runtest_makereport

__all__ = [
    "pytest_collection_modifyitems",
    "pytest_configure",
    "pytest_make_collect_report",
    "pytest_runtest_makereport",
]


@pytest.fixture(scope="session", autouse=True)
def _state_of_nobody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Commands remember the versions they open: here and not in the home of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[postgres.Cluster]:
    """One PostgreSQL for all tests; each takes databases of its own."""
    with postgres.cluster() as started:
        yield started


@pytest.fixture(params=["sqlite", "postgresql"])
def store_place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a new store of the gateway can be made, of either kind."""
    if request.param == "sqlite":
        return str(tmp_path / "gateway.db")
    return str(request.getfixturevalue("postgres_cluster").database())


# The modules that check the types of what they are given, and say so in their own errors, are left alone.
_CHECKED = (
    "codec.fixed_point",
    "codec.frames",
    "crypto",
    "sealed",
    "he",
    "secagg",
    "dp",
    "deid",
    "ledger",
    "federated",
    "serving",
)
install_import_hook([f"mibao.{name}" for name in _CHECKED], "beartype.beartype")
