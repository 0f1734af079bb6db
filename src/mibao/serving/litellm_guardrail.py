"""The gateway's engine as a guardrail of LiteLLM, for those who stay with it.

A file ``mibao_guardrail.py`` beside LiteLLM's configuration holds one line,
``from mibao.serving.litellm_guardrail import MibaoGuardrail``, and the configuration names it::

    guardrails:
      - guardrail_name: mibao
        litellm_params:
          guardrail: mibao_guardrail.MibaoGuardrail
          mode: [pre_call, post_call]
          default_on: true

Every text of a request is masked before it is sent; chat answers, whole and streamed, are restored. LiteLLM's own
fields, its logs and what other callbacks do to a request are not looked at.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import msgspec
from litellm import ModelResponse
from litellm.integrations.custom_guardrail import CustomGuardrail
from litellm.types.utils import ModelResponseStream

from mibao.crypto.rng import random_bytes
from mibao.deid.policies import PSEUDONYMS, READY, ready_policy
from mibao.errors import InputError
from mibao.serving.answers import AnswerRestorer
from mibao.serving.bodies import json_mode, tools_of
from mibao.serving.faults import Withheld
from mibao.serving.findings_cache import FindingsCache
from mibao.serving.placeholders import Names
from mibao.serving.requests_walk import RequestMasker
from mibao.serving.restoring import Sent
from mibao.serving.sse import Event
from mibao.serving.streams import DONE, ChatStream

MAX_REQUESTS = 10_000
_LITELLMS = frozenset({
    "model", "metadata", "litellm_metadata", "proxy_server_request", "secret_fields", "guardrails", "guardrail_config",
    "api_key", "api_base", "api_version", "stream", "user_api_key_dict", "model_info", "custom_llm_provider", "timeout",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is remembered of a request until it is answered."""

    names: Names
    sent: Sent
    tools: frozenset[str]
    json_mode: bool


class MibaoGuardrail(CustomGuardrail):
    """Masks what LiteLLM sends and restores what it answers. Names are new for each request.

    Args:
        policy: ``pseudonyms``, or a ready policy by name.
        attachments: Whether images, audio and files may pass, which nobody looks into.
        tools: Whose arguments are restored, of the tools that a request offers.
        settings: LiteLLM's.

    Raises:
        InputError: there is no such policy.
    """

    def __init__(
        self,
        policy: str = PSEUDONYMS.name,
        *,
        attachments: bool = False,
        tools: tuple[str, ...] = ("*",),
        **settings: Any,
    ) -> None:
        if policy != PSEUDONYMS.name and policy not in READY:
            raise InputError(f"guardrail: expected the policy {PSEUDONYMS.name} or one of {', '.join(READY)}")
        self._policy = PSEUDONYMS if policy == PSEUDONYMS.name else ready_policy(policy)
        self._attachments, self._tools = attachments, tools
        self._cache = FindingsCache(salt=random_bytes(32))
        self._asked: OrderedDict[str, _Asked] = OrderedDict()
        super().__init__(**settings)

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> dict[str, Any]:
        """The request as it may leave.

        Raises:
            Withheld: something that cannot be looked into, or a request that its answer could not be told to belong to.
        """
        if (call := _call(data)) is None:
            raise Withheld("expected a litellm_call_id", status=400, code="invalid_request")
        own = {key: value for key, value in data.items() if key in _LITELLMS or key.startswith("litellm_")}
        names = Names(scope_key=random_bytes(32), policy=self._policy)
        masker = RequestMasker(names, self._cache, attachments=self._attachments)
        body = {key: value for key, value in data.items() if key not in own}
        masked = masker.mask(body)
        self._asked[call] = _Asked(
            names=names, sent=Sent(tuple(masker.texts)), tools=frozenset(tools_of(body)), json_mode=json_mode(body)
        )
        while len(self._asked) > MAX_REQUESTS:
            self._asked.popitem(last=False)
        for key in body:
            del data[key]
        data.update(masked)
        return data

    async def async_post_call_success_hook(self, data: dict[str, Any], user_api_key_dict: Any, response: Any) -> Any:
        """A whole answer, restored."""
        asked = self._asked.pop(_call(data) or "", None)
        if asked is None or not isinstance(response, ModelResponse):
            return response
        restored = self._restorer(asked).whole(response.model_dump(mode="json"))
        return ModelResponse(**restored)

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: Any, response: Any, request_data: dict[str, Any]
    ) -> AsyncIterator[Any]:
        """A streamed answer, restored as it comes."""
        asked = self._asked.pop(_call(request_data) or "", None)
        if asked is None:
            async for chunk in response:
                yield chunk
            return
        stream = ChatStream(self._restorer(asked))
        async for chunk in response:
            if not isinstance(chunk, ModelResponseStream):
                yield chunk
                continue
            for event in stream.feed(Event("", chunk.model_dump_json(exclude_none=True))):
                yield _chunk(event)
        for event in stream.close():
            yield _chunk(event)

    def _restorer(self, asked: _Asked) -> AnswerRestorer:
        def allowed(tool: str) -> bool:
            return tool in asked.tools and ("*" in self._tools or tool in self._tools)

        return AnswerRestorer(asked.names, asked.sent, json_mode=asked.json_mode, tool_allowed=allowed)


def _call(data: dict[str, Any]) -> str | None:
    """Which of LiteLLM's calls it is."""
    call = data.get("litellm_call_id")
    return call if isinstance(call, str) and call else None


def _chunk(event: Event) -> ModelResponseStream:
    if event.data == DONE:
        raise InputError("guardrail: expected chunks, got the end of a stream")
    return ModelResponseStream(**msgspec.json.decode(event.data))
