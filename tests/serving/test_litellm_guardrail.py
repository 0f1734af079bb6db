"""The engine as a guardrail of the LiteLLM that is installed, around calls to a real server."""

import json
import subprocess
import sys
from pathlib import Path

from serving_process import dummy_service

CASE = Path(__file__).with_name("litellm_case.py")
MAIL = "jane.roe@example.com"


def test_litellm_sends_placeholders_and_answers_with_words(tmp_path):
    with dummy_service(tmp_path) as url:
        done = subprocess.run([sys.executable, CASE, url], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["whole"]["choices"][0]["message"]["content"] == f"Write to {MAIL}"
    assert told["streamed"] == f"Write to {MAIL}"
    assert told["chunks"] > 5
    assert told["nameless"] == [400, "invalid_request"]
    received = (tmp_path / "received.jsonl").read_text(encoding="utf-8")
    assert received.count("EMAIL_ADDRESS_") >= 3
    assert MAIL not in received
    assert "jane_roe" not in received
