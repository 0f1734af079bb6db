"""What the gateway costs: CPU of its whole process tree, in front of a dummy service on loopback, beside LiteLLM.

Both are asked the same requests by the same client, 16 at a time. CPU is what the kernel counted for the server and
all its children between two readings; the client and the dummy are other processes.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.harness import QUICK, Bench, Measurement
from benchmarks.peers.venvs import interpreter
from benchmarks.serving_processes import dummy, free_port, process

_TICKS = os.sysconf("SC_CLK_TCK")
_AT_ONCE = 16
ROWS = ("plain", "detected", "stream", "first_content", "chunks", "memory", "start")
_ENGLISH = (
    "Please summarise the letter below in three sentences and suggest a polite answer that offers a refund or a new "
    "lamp. My name is Jane Doe and I live in Bristol; you can reach me at jane.doe{n}@example.com. I ordered two "
    "reading lamps in your shop last month. One of them came with a broken shade, and the other does not switch on at "
    "all, although I changed the bulb twice and tried every socket in the house. The person who answered the telephone "
    "was friendly, but could not find my order and asked me to write again. I have kept the box and all the papers. "
    "What I would like best is a new pair, sent to the same place, before the month ends; if that cannot be done, "
    "please pay back what I paid, to the card that I used. The order was paid with 4111 1111 1111 1111. "
)
_CHINESE = (
    "另外请把下面这段话翻译成英文，语气要客气一些：您好，我叫张伟明，上个月在贵店订购了两盏台灯。其中一盏的灯罩在运输途中损坏，"
    "另一盏无法点亮，更换灯泡之后仍然如此。客服态度很好，但是没有查到我的订单，让我再写一封信说明情况。我希望能够换货，"
    "如果不能换货，请把货款退回原来的账户。我的电话是138001{n:05d}，白天都可以联系到我，谢谢。"
)


def _text(number: int) -> str:
    """2 KB of ordinary mail in both languages, six personal data in it; another one each time."""
    text = ""
    while len(text.encode()) < 2048:
        text += _ENGLISH.format(n=number % 100_000) + _CHINESE.format(n=number % 100_000)
        number += 7
    return text.encode()[:2048].decode(errors="ignore")


def _cpu_s(pid: int) -> float:
    """CPU seconds of a process and its living children."""
    total = 0.0
    for one in _tree(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except FileNotFoundError:
            continue
        total += (int(fields[11]) + int(fields[12])) / _TICKS
    return total


def _memory_mb(pid: int) -> float:
    """Memory of a process and its children, what they share counted once (PSS)."""
    total = 0
    for one in _tree(pid):
        for line in Path(f"/proc/{one}/smaps_rollup").read_text(encoding="utf-8").splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


def _tree(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    return [pid, *(below for child in children for below in _tree(int(child)))]


@contextmanager
def gateway(upstream: int, folder: str, *, detection: bool) -> Iterator[tuple[str, str, int, float]]:
    """Our gateway with keys, a limit and a ledger: its URL, a key, its process and its start."""
    port = free_port()
    config = Path(folder) / "gateway.toml"
    subprocess.run(
        [sys.executable, "-m", "mibao", "keygen", "--sign", "-o", "gateway.ledger.key"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    config.write_text(
        f'[[upstreams]]\nname = "dummy"\nurl = "http://127.0.0.1:{upstream}/v1"\n'
        f'[privacy]\ndetection = {str(detection).lower()}\n[state]\nledger = "gateway.ledger"\n',
        encoding="utf-8",
    )
    made = subprocess.run(
        [sys.executable, "-m", "mibao", "apikey", "create",
         "--requests-per-minute", "1000000", "--tokens-per-day", "1000000000000"],
        cwd=folder, check=True, capture_output=True, text=True,
    )  # fmt: skip
    key = next(word for word in made.stdout.split() if word.startswith("sk-"))
    command = [sys.executable, "-m", "mibao", "serve", str(config), "--port", str(port)]
    with process(command, f"http://127.0.0.1:{port}/readyz", cwd=folder) as (pid, start_s):
        yield f"http://127.0.0.1:{port}/v1/chat/completions", key, pid, start_s


@contextmanager
def _litellm(upstream: int, folder: str) -> Iterator[tuple[str, str, int, float]]:
    port = free_port()
    config = Path(folder) / "litellm.yaml"
    config.write_text(
        "model_list:\n  - model_name: m\n    litellm_params:\n      model: openai/m\n"
        f"      api_base: http://127.0.0.1:{upstream}/v1\n      api_key: sk-x\n"
        "general_settings:\n  master_key: sk-bench\nlitellm_settings:\n  telemetry: false\n",
        encoding="utf-8",
    )
    program = str(interpreter("litellm").with_name("litellm"))
    command = [program, "--config", str(config), "--port", str(port), "--host", "127.0.0.1"]
    env = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_DOCS": "True"}
    with process(command, f"http://127.0.0.1:{port}/health/liveliness", env=env, cwd=folder) as (pid, start_s):
        yield f"http://127.0.0.1:{port}/v1/chat/completions", "sk-bench", pid, start_s


async def _ask_many(url: str, key: str, bodies: list[dict[str, Any]]) -> list[float]:
    """Seconds to the first content of each answer."""
    gate = asyncio.Semaphore(_AT_ONCE)
    waits = []
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {key}"}) as session:

        async def one(body: dict[str, Any]) -> None:
            async with gate, session.post(url, json=body) as answer:
                began_s = time.perf_counter()
                async for _ in answer.content.iter_any():
                    waits.append(time.perf_counter() - began_s)
                    break
                await answer.read()
                if answer.status != 200:
                    raise RuntimeError(f"answered {answer.status}")

        await asyncio.gather(*(one(body) for body in bodies))
    return waits


def _cost_ms(server: tuple[str, str, int, float], make: Callable[[int], dict[str, Any]], count: int) -> float:
    """CPU milliseconds a request: the median of five rounds, after one that warms up."""
    url, key, pid, _ = server
    rounds = []
    for turn in range(6):
        bodies = [make(turn * count + number) for number in range(count)]
        before_s = _cpu_s(pid)
        asyncio.run(_ask_many(url, key, bodies))
        rounds.append((_cpu_s(pid) - before_s) / count * 1000)
    return statistics.median(rounds[1:])


async def _watch_streams(url: str, key: str | None, count: int) -> tuple[float, int]:
    """Milliseconds to the first content, the median, and how many chunks with a content came; one at a time."""
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    waits, chunks = [], 0
    async with aiohttp.ClientSession(headers=headers) as session:
        for number in range(count):
            began_s, first_s = time.perf_counter(), None
            async with session.post(url, json=_stream(number)) as answer:
                async for line in answer.content:
                    choices = json.loads(line[6:]).get("choices") if line.startswith(b"data: {") else None
                    said = choices[0].get("delta", {}).get("content") if choices else None
                    chunks += said is not None
                    if said:
                        first_s = first_s or time.perf_counter() - began_s
            waits.append(1000 * (first_s or 0.0))
    return statistics.median(waits), chunks


def _streams(server: tuple[str, str, int, float], upstream: int, folder: str, count: int) -> dict[str, float]:
    """How much later than straight from the dummy the first content comes, and the share of its chunks that do."""
    direct = f"http://127.0.0.1:{upstream}/v1/chat/completions"
    asyncio.run(_watch_streams(server[0], server[1], 2))
    first_ms, _ = asyncio.run(_watch_streams(direct, None, count))
    ours_ms, ours = asyncio.run(_watch_streams(server[0], server[1], count))
    received = (Path(folder) / "received.jsonl").read_text(encoding="utf-8").splitlines()[-count:]
    said = [json.loads(line)["body"]["messages"][0]["content"] for line in received]
    return {"first_content": ours_ms - first_ms, "chunks": 100 * ours / sum(1 + -(-len(text) // 3) for text in said)}


def _plain(number: int) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": f"How are you, number {number}?"}]}


def _long(number: int) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": _text(number)}]}


def _stream(number: int) -> dict[str, Any]:
    return {**_stream_body(f"I am Jane Doe, jane{number}@example.com; "), "stream": True}


def _stream_body(text: str) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": (text + "and so on, " * 20)[:147]}]}


@contextmanager
def _pauses(folder: str) -> Iterator[None]:
    """The dummy pauses between the pieces of a stream, so that none of them arrive together."""
    script = Path(folder) / "script.json"
    script.write_text('{"pause_s": 0.004}', encoding="utf-8")
    try:
        yield
    finally:
        script.unlink()


def measure() -> Iterator[Measurement]:
    """All rows, ours and LiteLLM in turn where it installs."""
    count = 60 if os.environ.get(QUICK) else 300
    ours: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, dummy(folder) as upstream:
        for detection in (False, True):
            with tempfile.TemporaryDirectory() as place, gateway(upstream, place, detection=detection) as server:
                if not detection:
                    ours["plain"] = _cost_ms(server, _plain, count)
                    continue
                ours["start"] = server[3]
                ours["detected"] = _cost_ms(server, _long, count)
                ours["stream"] = _cost_ms(server, _stream, count // 3)
                ours["memory"] = _memory_mb(server[2])
                with _pauses(folder):
                    ours |= _streams(server, upstream, folder, count // 10)
        peer: dict[str, float] = {}
        why = None
        try:
            with tempfile.TemporaryDirectory() as place, _litellm(upstream, place) as server:
                peer = {"plain": _cost_ms(server, _plain, count // 3), "stream": _cost_ms(server, _stream, count // 10)}
                peer |= {"start": server[3], "memory": _memory_mb(server[2])}
                with _pauses(folder):
                    peer |= _streams(server, upstream, folder, count // 10)
        except (subprocess.SubprocessError, OSError, RuntimeError) as error:
            why = f"LiteLLM: {type(error).__name__}"
    for name in ROWS:
        yield Measurement(id=f"serving.{name}", ours=ours[name], peer=peer.get(name), why=None if name in peer else why)


BENCHES = (Bench(rows=tuple(f"serving.{name}" for name in ROWS), measure=measure),)

if __name__ == "__main__":
    for measured in measure():
        print(json.dumps({"id": measured.id, "ours": measured.ours, "peer": measured.peer, "why": measured.why}))
