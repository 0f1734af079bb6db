"""What `make soak` asks: the state of a gateway's worker behind HTTP, with an answer that costs nothing.

Each request is let in by an API key within limits, answered, and recorded. ``MIBAO_SOAK`` names the folder.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from mibao.crypto.keys import SignerSuite, generate_signer
from mibao.serving.admission import Outcome
from mibao.serving.worker_state import StateSettings, WorkerState

ROUTE = "/v1/chat/completions"
OUTCOME = Outcome(
    route=ROUTE, model="small", upstream="none", status=200, findings={"PERSON": 2}, prompt_tokens=100,
    completion_tokens=50, seconds=0.001, withheld=None,
)  # fmt: skip
_state: list[WorkerState] = []


def settings(folder: Path) -> StateSettings:
    """What the worker keeps, all of it in ``folder``."""
    return StateSettings(store=str(folder / "gateway.db"), ledger=str(folder / "ledger.db"), origin="mibao.test/soak")


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The ASGI application."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    headers = dict(scope["headers"])
    admission = _state[0].admission
    caller = await admission.admit(
        authorization=headers.get(b"authorization", b"").decode(), client_certificate=None, route=ROUTE, model=None
    )
    await admission.settle(caller, OUTCOME)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def _lifespan(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            signer = generate_signer(SignerSuite.ED25519, bytes(32))
            folder = Path(os.environ["MIBAO_SOAK"])
            _state.append(WorkerState.open(settings(folder), gateway_key=bytes(32), signer=signer))
        else:
            await asyncio.to_thread(_state.pop().close)
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
