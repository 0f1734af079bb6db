"""Shapes and types in the package's annotations are checked while its tests run."""

from jaxtyping import install_import_hook

from long_run import pytest_collection_modifyitems, pytest_configure
from strict_skips import pytest_make_collect_report, pytest_runtest_makereport

__all__ = [
    "pytest_collection_modifyitems",
    "pytest_configure",
    "pytest_make_collect_report",
    "pytest_runtest_makereport",
]

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
)
install_import_hook([f"mibao.{name}" for name in _CHECKED], "beartype.beartype")
