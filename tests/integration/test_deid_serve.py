"""The service in a process of its own, asked over a socket."""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("granian")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _ask(port: int, path: str, body: object = None) -> object:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", data, timeout=20) as answer:
        content = answer.read()
    return json.loads(content) if path != "/health" else content.decode()


def _serve(port: int, *more: str, folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "mibao", "deid", "serve", "--port", str(port), *more]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE)


def test_the_service_answers_with_types_of_ones_own_until_it_is_interrupted(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text("[[type]]\nname = 'BADGE'\npattern = 'HB-[0-9]{4}'\n", encoding="utf-8")
    port = _free_port()
    process = _serve(port, "--types", "own.toml", folder=tmp_path)
    try:
        for _ in range(300):
            try:
                assert _ask(port, "/health") == "mibao de-identification service is up"
                break
            except urllib.error.URLError:
                assert process.poll() is None
                time.sleep(0.1)
        found = _ask(port, "/analyze", {"text": "HB-1234 a@b.co", "language": "en"})
        assert [each["entity_type"] for each in found] == ["BADGE", "EMAIL_ADDRESS"]
        hashed = {"DEFAULT": {"type": "hash"}}
        body = {"text": "HB-1234 a@b.co", "analyzer_results": found, "anonymizers": hashed}
        assert "HB" not in _ask(port, "/anonymize", body)["text"]
        second = _serve(port, folder=tmp_path)
        assert second.wait(timeout=60) == 2
        assert f"error: deid serve: cannot listen on 127.0.0.1:{port} (" in second.stderr.read().decode()
        second.stderr.close()
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
        process.stderr.close()
