"""What an installation downloads, beyond the numeric libraries that its users have anyway. Needs the network."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness import Bench, Measurement
from benchmarks.peers.venvs import ROOT

_NUMERIC = ("numpy-", "scipy-", "scikit_learn-")


def download_mb(extra: str) -> float:
    """Megabytes of every archive that ``pip install 'mibao[extra]'`` fetches into an empty environment, less NumPy's,
    SciPy's and scikit-learn's.

    Raises:
        subprocess.CalledProcessError: pip cannot resolve or fetch them.
    """
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "-qq", "-c", "constraints.txt", "-d", folder, f".{extra}"],
            cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900, check=True,
        )  # fmt: skip
        archives = [path for path in Path(folder).iterdir() if not path.name.startswith(_NUMERIC)]
        for path in sorted(archives, key=lambda path: -path.stat().st_size)[:5]:
            print(f"  {path.stat().st_size / 1e6:6.2f} MB  {path.name}", file=sys.stderr)
        return sum(path.stat().st_size for path in archives) / 1e6


def measure_core() -> Iterator[Measurement]:
    """The install without extras."""
    yield Measurement(id="install.core", ours=download_mb(""))


def measure_demo() -> Iterator[Measurement]:
    """Core and extra ``demo``."""
    yield Measurement(id="install.demo", ours=download_mb("[demo]"))


BENCHES = (
    Bench(rows=("install.core",), measure=measure_core),
    Bench(rows=("install.demo",), measure=measure_demo),
)
