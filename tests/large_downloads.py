"""What ``make test`` says before pip downloads more than a gigabyte: PyTorch with CUDA, and how to take it without.

``python tests/large_downloads.py`` asks pip what it would install for PyTorch and prints the notice, or nothing. It
runs before anything is installed, so it needs the standard library only.
"""

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_CUDA = ("nvidia-", "cuda-", "triton")


def pinned() -> str:
    """The line of ``constraints.txt`` that pins PyTorch."""
    lines = (_ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    (line,) = [line for line in lines if line.startswith("torch==")]
    return line


def would_install() -> list[str]:
    """The names of what pip would install for PyTorch, nothing where it is installed already."""
    command = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--dry-run"]
    done = subprocess.run([*command, "--report", "-", pinned()], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return []  # pip says why when it installs
    return [each["metadata"]["name"].lower() for each in json.loads(done.stdout)["install"]]


def notice(names: Iterable[str]) -> str:
    """What to read before these are downloaded; empty if none of them is CUDA."""
    if not any(name.startswith(_CUDA) for name in names):
        return ""
    return f"""\
NOTE: the tests need PyTorch, and what pip takes here is its build with CUDA: more than 2 GB of downloads.
      For the CPU build, about 200 MB, stop this now and install it first:
          .venv/bin/pip install {pinned()} --index-url INDEX
      INDEX is the address that PyTorch's page "Get Started" shows for Linux, Pip, Python, CPU. Then: make test"""


if __name__ == "__main__":
    text = notice(would_install())
    if text:
        sys.stdout.write(f"{text}\n")
