"""The command `mibao`: one file a noun; parse, call, print."""

from mibao.cli.main import main

__all__ = ["main"]
