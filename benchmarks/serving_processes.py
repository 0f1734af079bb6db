"""Servers for benchmarks of the gateway: processes on 127.0.0.1, ended by process id."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DUMMY = Path(__file__).parents[1] / "tests" / "dummy_upstream.py"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(
    command: list[str], url: str, *, env: dict[str, str] | None = None, cwd: str
) -> Iterator[tuple[int, float]]:
    """A server, by its process id, and how long it took to answer ``url``."""
    began_s = time.monotonic()
    with (Path(cwd) / "log").open("ab") as log:
        process = subprocess.Popen(command, env=os.environ | (env or {}), cwd=cwd, stdout=log, stderr=log)
    try:
        while True:
            try:
                with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - loopback
                    break
            except OSError:
                if process.poll() is not None or time.monotonic() - began_s > 180:
                    raise
                time.sleep(0.02)
        yield process.pid, time.monotonic() - began_s
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def dummy(folder: str, *, forgets: bool = False) -> Iterator[int]:
    """The model service of the tests, by its port; what it receives lies in ``folder``, unless it forgets."""
    port = free_port()
    command = [sys.executable, str(DUMMY), str(port), folder, *(["forget"] if forgets else [])]
    with process(command, f"http://127.0.0.1:{port}/v1/models", cwd=folder):
        yield port
