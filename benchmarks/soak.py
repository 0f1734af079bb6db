"""Half an hour at 80 % of the peak: no error, memory flat, the slowest hundredth under five times the median.

    python -m benchmarks.soak --minutes 30

Starts the gateway with keys, limits, detection and a ledger in front of a dummy service, finds its peak, then sends
requests at fixed times, whether or not earlier ones were answered, and counts each from the time it was due. Each holds
personal data of its own, and every fourth is a stream; one whose answer does not hold what it asked is an error. Prints
one JSON line; exit code 1 when a target is missed. Afterwards the ledger is verified: it holds one entry of each
request that was answered.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import sys
import tempfile
import time
from array import array
from pathlib import Path

import aiohttp

from benchmarks.serving import gateway
from benchmarks.serving_processes import dummy
from mibao import ledger
from mibao.crypto.keys import decode_signer
from mibao.events import RequestServed

SHARE, PEAK_S, AT_ONCE, SENDERS, SAMPLE_S = 0.8, 10.0, 16, 128, 2.0
MAX_TAIL, MAX_GROWTH = 5.0, 1.05


class Client:
    """Asks the worker; ``latencies_s`` are those of answered requests, ``errors`` counts the others."""

    def __init__(self, session: aiohttp.ClientSession, url: str, key: str) -> None:
        self._session, self._url, self._headers = session, url, {"Authorization": f"Bearer {key}"}
        self.latencies_s = array("d")
        self.errors = 0
        self._numbers = itertools.count()

    async def ask(self, due_s: float) -> None:
        """One request that was due at ``due_s`` by the monotonic clock."""
        number = next(self._numbers)
        asked = f"I am Jane Doe, jane{number}@example.com. Where is my order 100{number}? 我的电话是138{number:08d}。"
        body = {"model": "m", "messages": [{"role": "user", "content": asked}], "stream": number % 4 == 0}
        try:
            async with self._session.post(self._url, headers=self._headers, json=body) as answer:
                told = await answer.text()
                good = answer.status == 200 and asked == _said(told, stream=number % 4 == 0)
        except (aiohttp.ClientError, TimeoutError):
            good = False
        if good:
            self.latencies_s.append(time.monotonic() - due_s)
        else:
            self.errors += 1

    async def at_once(self, seconds: float) -> float:
        """Requests a second, each sender asking again as soon as it is answered."""
        began, until = len(self.latencies_s), time.monotonic() + seconds

        async def send() -> None:
            while time.monotonic() < until:
                await self.ask(time.monotonic())

        await asyncio.gather(*(send() for _ in range(AT_ONCE)))
        return (len(self.latencies_s) - began) / seconds

    async def at_rate(self, rate: float, seconds: float) -> None:
        """``rate`` requests a second, at fixed times."""
        start, numbers = time.monotonic(), itertools.count()

        async def send() -> None:
            while (due := start + next(numbers) / rate) < start + seconds:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                await self.ask(due)

        await asyncio.gather(*(send() for _ in range(SENDERS)))


def tree_mb(pid: int) -> float:
    """Resident memory of a process and all that it started."""
    total = 0
    for process in [pid, *_children(pid)]:
        try:
            total += int(Path(f"/proc/{process}/statm").read_text().split()[1])
        except (OSError, IndexError):
            continue
    return total * os.sysconf("SC_PAGE_SIZE") / 1e6


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, file.read_text().split()):
            found += [child, *_children(child)]
    return found


def _said(told: str, *, stream: bool) -> str:
    """The text of an answer."""
    if not stream:
        return str(json.loads(told)["choices"][0]["message"]["content"])
    events = [line[6:] for line in told.splitlines() if line.startswith("data: {")]
    deltas = [choice["delta"].get("content", "") for event in events for choice in json.loads(event)["choices"]]
    return "".join(deltas)


async def _run(url: str, pid: int, key: str, *, seconds: float) -> dict[str, float]:
    memory: list[float] = []

    async def watch() -> None:
        while True:
            memory.append(tree_mb(pid))
            await asyncio.sleep(SAMPLE_S)

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=30)) as session:
        client = Client(session, url, key)
        peak = await client.at_once(PEAK_S)
        answered, client.latencies_s = len(client.latencies_s), array("d")
        watching = asyncio.ensure_future(watch())
        await client.at_rate(SHARE * peak, seconds)
        watching.cancel()
    slowest = sorted(client.latencies_s)
    quarter = max(1, len(memory) // 4)
    return {
        "peak_per_s": round(peak),
        "requests": len(slowest),
        "answered": answered + len(slowest),
        "errors": client.errors,
        "p50_ms": round(1e3 * slowest[len(slowest) // 2], 3),
        "p99_ms": round(1e3 * slowest[len(slowest) * 99 // 100], 3),
        "memory_second_quarter_mb": round(max(memory[quarter : 2 * quarter] or memory), 1),
        "memory_last_quarter_mb": round(max(memory[-quarter:]), 1),
    }


def _recorded(folder: Path) -> int:
    path = folder / "gateway.ledger"
    ledger.verify(path, signer=decode_signer((folder / "gateway.ledger.pub").read_text(encoding="utf-8").strip()))
    return sum(isinstance(entry.event, RequestServed) for entry in ledger.stored_entries(path))


def main() -> int:
    """Run it and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    minutes = parser.parse_args().minutes
    with tempfile.TemporaryDirectory(prefix="mibao-soak-") as name:
        with dummy(name, forgets=True) as upstream, gateway(upstream, name, detection=True) as (url, key, pid, _):
            found = asyncio.run(_run(url, pid, key, seconds=60 * minutes))
        found["recorded"] = _recorded(Path(name))
    missed = [
        what
        for what, failed in {
            "errors": found["errors"] > 0,
            "tail": found["p99_ms"] > MAX_TAIL * found["p50_ms"],
            "memory": found["memory_last_quarter_mb"] > MAX_GROWTH * found["memory_second_quarter_mb"],
            "record": found["recorded"] < found["answered"],
        }.items()
        if failed
    ]
    print(json.dumps({"name": "soak", "minutes": minutes, **found, "missed": missed}))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
