"""One request while it runs: what is known of it, and its end, which is told once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mibao.deid.policies import PSEUDONYMS
from mibao.serving.admission import MODELS_ROUTE, Admission, Caller, Outcome
from mibao.serving.faults import Dialect
from mibao.serving.placeholders import Names
from mibao.serving.restoring import Sent
from mibao.serving.streams import ChatStream, MessagesStream, ResponsesStream, StreamRestorer

NOBODY = Names(scope_key=bytes(32), policy=PSEUDONYMS)


@dataclass(frozen=True, slots=True)
class Api:
    """One path of an API, the dialect of its errors, and what restores its streams, where it has any."""

    path: str
    dialect: Dialect
    stream: type[StreamRestorer] | None


APIS = {
    api.path: api
    for api in (
        Api("/v1/chat/completions", Dialect.OPENAI, ChatStream),
        Api("/v1/completions", Dialect.OPENAI, ChatStream),
        Api("/v1/responses", Dialect.OPENAI, ResponsesStream),
        Api("/v1/embeddings", Dialect.OPENAI, None),
        Api("/v1/messages", Dialect.ANTHROPIC, MessagesStream),
        Api("/v1/messages/count_tokens", Dialect.ANTHROPIC, None),
    )
}
MODELS = Api(MODELS_ROUTE, Dialect.OPENAI, None)


@dataclass(slots=True, kw_only=True)
class Exchange:
    """What is known of one request that was admitted.

    Attributes:
        names: What stands for what; nothing until its conversation is known.
        history: The turns so far, where the next turn is to find them.
        kept: Whether somebody else keeps the conversation, so that it has an identifier.
        sent: What went upstream.
        counts: What was replaced, by type.
        model: Its name in the configuration, empty where it is none of it.
        upstream: The last that was asked.
        usage: What the upstream says it took.
        json_mode: Whether the answer's text is JSON.
        tools: What the client offers.
    """

    api: Api
    caller: Caller
    admission: Admission
    began_s: float
    names: Names = NOBODY
    history: list[bytes] = field(default_factory=list)
    kept: bool = False
    sent: Sent = field(default_factory=lambda: Sent(()))
    counts: Counter[str] = field(default_factory=Counter)
    model: str = ""
    upstream: str = ""
    usage: Mapping[str, Any] = field(default_factory=dict)
    json_mode: bool = False
    tools: frozenset[str] = frozenset()
    settled: bool = False

    async def settle(self, *, status: int, withheld: str | None) -> None:
        """Write down what became of it, the first time this is called. Raises as :meth:`Admission.settle`."""
        if self.settled:
            return
        self.settled = True
        await self.admission.settle(
            self.caller,
            Outcome(
                route=self.api.path,
                model=self.model,
                upstream=self.upstream,
                status=status,
                findings=dict(self.counts),
                prompt_tokens=_count(self.usage, "prompt_tokens", "input_tokens"),
                completion_tokens=_count(self.usage, "completion_tokens", "output_tokens"),
                seconds=time.monotonic() - self.began_s,
                withheld=withheld,
            ),
        )


def _count(usage: Mapping[str, Any], *names: str) -> int:
    """Tokens, as either dialect names them."""
    counts = [usage.get(name) for name in names]
    return next((value for value in counts if isinstance(value, int) and 0 <= value < 1 << 40), 0)
