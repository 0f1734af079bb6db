"""Run by the tests in a process of its own: LiteLLM asks the dummy service, with our guardrail around it.

python litellm_case.py UPSTREAM_URL
"""

import asyncio
import json
import sys
from typing import Any

import litellm

from mibao.serving.faults import Withheld
from mibao.serving.litellm_guardrail import MibaoGuardrail

MAIL = "jane.roe@example.com"
TOOL = {"type": "function", "function": {"name": "send", "description": f"to {MAIL}", "parameters": {"type": "object"}}}


async def asked(guardrail: MibaoGuardrail, url: str, body: dict[str, Any]) -> Any:
    data = {"model": "openai/m", "litellm_call_id": "call-1", "metadata": {"user_api_key": "kept"}, **body}
    data = await guardrail.async_pre_call_hook(None, None, data, "completion")
    sent = {key: value for key, value in data.items() if key not in ("metadata", "litellm_call_id")}
    answer = await litellm.acompletion(**sent, api_base=url, api_key="sk-x")
    if not body.get("stream"):
        return (await guardrail.async_post_call_success_hook(data, None, answer)).model_dump()
    chunks = guardrail.async_post_call_streaming_iterator_hook(None, answer, data)
    return [chunk.choices[0].delta.content or "" async for chunk in chunks if chunk.choices]


async def main() -> None:
    url = sys.argv[1]
    guardrail = MibaoGuardrail(guardrail_name="mibao", event_hook=["pre_call", "post_call"], default_on=True)
    messages = [{"role": "user", "content": f"Write to {MAIL}", "name": "jane_roe"}]
    whole = await asked(guardrail, url, {"messages": messages, "tools": [TOOL]})
    streamed = await asked(guardrail, url, {"messages": messages, "stream": True})
    nameless = []
    try:
        await guardrail.async_pre_call_hook(None, None, {"model": "openai/m", "messages": messages}, "completion")
    except Withheld as refused:
        nameless = [refused.status, refused.code]
    told = {"whole": whole, "streamed": "".join(streamed), "chunks": len(streamed), "nameless": nameless}
    print(json.dumps(told))  # noqa: T201


asyncio.run(main())
