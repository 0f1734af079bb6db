"""A gateway and a model service for tests, as processes of their own on 127.0.0.1."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mibao

DUMMY = Path(__file__).with_name("dummy_upstream.py")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Running:
    """Both processes; ``folder`` holds the dummy's script and what it received."""

    port: int
    upstream_port: int
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def received(self) -> list[dict[str, Any]]:
        path = self.folder / "received.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]] if path.exists() else []

    def left(self) -> int:
        """How many requests their client left before they were answered."""
        path = self.folder / "left.jsonl"
        return len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0

    def sent(self) -> str:
        """The last body that went upstream, as text."""
        return json.dumps(self.received()[-1]["body"], ensure_ascii=False)

    def script(self, told: dict[str, Any] | None) -> None:
        path = self.folder / "script.json"
        if told is None:
            path.unlink(missing_ok=True)
        else:
            path.write_text(json.dumps(told), encoding="utf-8")

    def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> tuple[int, str, dict[str, str]]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310 - http on loopback
            self.url + path, data=data, headers={"content-type": "application/json", **(headers or {})}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                return answer.status, answer.read().decode(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode(), dict(error.headers)


def wait_until_up(url: str, process: subprocess.Popen[bytes], *, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if process.poll() is not None:
            raise AssertionError(f"ended with {process.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - http on loopback
                return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"{url} did not come up")


def ended(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


@contextmanager
def dummy_service(folder: Path) -> Iterator[str]:
    """The dummy alone, by its URL up to ``/v1``; ``folder`` holds its script and what it received."""
    port = free_port()
    process = subprocess.Popen([sys.executable, DUMMY, str(port), folder])
    try:
        wait_until_up(f"http://127.0.0.1:{port}/v1/models", process)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        ended(process)


@contextmanager
def running(folder: Path, *options: str, config: str | None = None, cwd: Path | None = None) -> Iterator[Running]:
    """``mibao serve`` with ``options`` in front of the dummy; ``config`` is a file's text, ``{upstream}`` its URL."""
    port, upstream_port = free_port(), free_port()
    environment = {**os.environ, "PYTHONPATH": str(Path(mibao.__file__).parents[1]), "UPSTREAM_KEY": "sk-upstream"}
    dummy = subprocess.Popen([sys.executable, DUMMY, str(upstream_port), folder])
    upstream = f"http://127.0.0.1:{upstream_port}/v1"
    arguments = ["--upstream", upstream]
    if config is not None:
        path = folder / "config.toml"
        path.write_text(config.replace("{upstream}", upstream), encoding="utf-8")
        arguments = [str(path)]
    log = (folder / "serve.log").open("wb")
    server = subprocess.Popen(
        [sys.executable, "-m", "mibao", "serve", *arguments, "--port", str(port), *options],
        env=environment, cwd=cwd or folder, stderr=log, stdout=log,
    )  # fmt: skip
    try:
        wait_until_up(f"http://127.0.0.1:{upstream_port}/v1/models", dummy)
        wait_until_up(f"http://127.0.0.1:{port}/readyz", server)
        yield Running(port, upstream_port, folder, server)
    finally:
        ended(server)
        ended(dummy)
        log.close()
