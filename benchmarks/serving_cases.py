"""The gateway's table of cases, held against ours and against LiteLLM with its Presidio guardrail.

LiteLLM's guardrail asks a Presidio service; it is given ours (``mibao deid serve``), so both have the same detector and
what differs is the gateway. ``python -m benchmarks.serving_cases`` prints each case and what became of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.harness import Bench, Measurement
from benchmarks.peers.venvs import interpreter
from benchmarks.serving_processes import dummy, free_port, process

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from serving_conformance import CASES, Case, streamed

_GUARDRAIL = """
model_list:
  - model_name: m
    litellm_params: {{model: openai/m, api_base: "http://127.0.0.1:{upstream}/v1", api_key: sk-x}}
general_settings: {{master_key: sk-bench}}
litellm_settings: {{telemetry: false, num_retries: 0}}
guardrails:
  - guardrail_name: pii
    litellm_params:
      {{guardrail: presidio, mode: pre_call, output_parse_pii: true, presidio_filter_scope: input, default_on: true}}
"""


@contextmanager
def _ours(upstream: int, folder: str) -> Iterator[tuple[str, str]]:
    port = free_port()
    command = [sys.executable, "-m", "mibao", "serve", "--upstream", f"http://127.0.0.1:{upstream}/v1"]
    with process([*command, "--port", str(port), "--no-auth"], f"http://127.0.0.1:{port}/readyz", cwd=folder):
        yield f"http://127.0.0.1:{port}", "sk-any"


@contextmanager
def _litellm(upstream: int, folder: str) -> Iterator[tuple[str, str]]:
    port, presidio = free_port(), free_port()
    (Path(folder) / "litellm.yaml").write_text(_GUARDRAIL.format(upstream=upstream), encoding="utf-8")
    (Path(folder) / "presidio.key").write_bytes(bytes(range(32)))
    (Path(folder) / "presidio.key").chmod(0o600)
    service = f"http://127.0.0.1:{presidio}"
    environment = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "PRESIDIO_ANALYZER_API_BASE": service,
        "PRESIDIO_ANONYMIZER_API_BASE": service,
    }
    program = str(interpreter("litellm").with_name("litellm"))
    with ExitStack() as stack:
        serve = [sys.executable, "-m", "mibao", "deid", "serve", "--port", str(presidio)]
        stack.enter_context(process(serve, f"{service}/health", cwd=folder))
        command = [program, "--config", "litellm.yaml", "--port", str(port), "--host", "127.0.0.1"]
        stack.enter_context(process(command, f"http://127.0.0.1:{port}/health/liveliness", env=environment, cwd=folder))
        yield f"http://127.0.0.1:{port}", "sk-bench"


def passes(case: Case, url: str, key: str, folder: Path) -> bool:
    """Whether a gateway does with ``case`` what it must."""
    script = folder / "script.json"
    script.write_text(json.dumps(case.script or {}), encoding="utf-8")
    received = folder / "received.jsonl"
    before = received.stat().st_size if received.exists() else 0
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}", **case.headers}
    request = urllib.request.Request(url + case.path, data=json.dumps(case.body).encode(), headers=headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - loopback
            status, text = answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            status, text = error.code, error.read().decode()
    except OSError:
        return False
    sent = received.read_bytes()[before:].decode() if received.exists() else ""
    bodies = [json.dumps(json.loads(line)["body"], ensure_ascii=False) for line in sent.splitlines() if line]
    if any(planted in body for planted in case.planted for body in bodies):
        return False
    try:
        told = streamed(text)[0] if case.stream and status == 200 else json.loads(text)
        return bool(case.answer(status, told))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return False


def outcomes(name: str) -> dict[str, bool]:
    """Every case by name, for ``"ours"`` or ``"litellm"``.

    Raises:
        subprocess.SubprocessError, OSError: it does not install or start.
    """
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as place, dummy(folder) as upstream:
        start = {"ours": _ours, "litellm": _litellm}[name]
        with start(upstream, place) as (url, key):
            return {case.name: passes(case, url, key, Path(folder)) for case in CASES}


def measure() -> Iterator[Measurement]:
    """The share of cases that each passes."""
    ours = outcomes("ours")
    share, why = None, None
    try:
        theirs = outcomes("litellm")
        share = 100 * sum(theirs.values()) / len(theirs)
    except (subprocess.SubprocessError, OSError) as error:
        why = f"LiteLLM: {type(error).__name__}"
    failed = [name for name, good in ours.items() if not good]
    yield Measurement(
        id="serving_cases.passed",
        ours=100 * sum(ours.values()) / len(ours),
        peer=share,
        why=why,
        note=f"{len(ours)} cases" + (f"; ours failed: {', '.join(failed)}" if failed else ""),
    )


BENCHES = (Bench(rows=("serving_cases.passed",), measure=measure),)


def _print() -> None:
    sides: dict[str, dict[str, Any]] = {name: outcomes(name) for name in ("ours", "litellm")}
    for case in CASES:
        print("  ".join("yes" if sides[name][case.name] else "NO " for name in sides), case.name)
    print({name: f"{sum(side.values())} of {len(side)}" for name, side in sides.items()})


if __name__ == "__main__":
    _print()
