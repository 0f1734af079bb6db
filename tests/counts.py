"""How many cases a test runs: few by default, the full count under ``make test-long``."""

import os


def counts(*, short: int, long: int) -> int:
    """``long`` when the environment says ``MIBAO_LONG=1``, else ``short``."""
    return long if os.environ.get("MIBAO_LONG") == "1" else short
