"""Which conversation a request belongs to, so that its second turn uses the names of its first.

A conversation is known by an identifier that the client gives, or by its whole history up to the last answer, which
nobody else can have produced: the entry is used once, and where two conversations have come to one history, even one
after the other, by none.
A first turn always gets a random scope: two users who both start with "Hi" never share one.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from mibao.crypto.kdf import derive, domain_tag, hmac_sha256
from mibao.crypto.rng import random_bytes
from mibao.deid import Policy
from mibao.errors import IntegrityError
from mibao.serving.admission import Caller
from mibao.serving.placeholders import Names
from mibao.serving.vault_store import MemoryVault, StoredVault

MAX_CONVERSATIONS = 10_000
TTL_S = 3600.0
_ROLES = ("assistant", "model")
_SCOPE, _AMBIGUOUS = "scope", "ambiguous"  # what is kept of a response, beside no placeholder


class Conversations:
    """The names of conversations that may go on.

    Of those that a client sends whole with every turn only the key is remembered, in this process: whatever stands in
    the next turn gets the names it had, and nothing else is known. What is named in those that somebody else keeps, and
    that have an identifier, lies in ``vault``: any worker that shares it may go on with them.

    Args:
        key: The gateway's key, 32 bytes.
        clock_s: Seconds of a clock that only goes forward.
        ttl_s: How long a conversation that nobody goes on with is remembered here.
        vault: Where identified conversations are kept; by default in memory, for as long.
    """

    def __init__(
        self,
        *,
        key: bytes,
        clock_s: Callable[[], float],
        ttl_s: float = TTL_S,
        vault: StoredVault | MemoryVault | None = None,
    ) -> None:
        self._key = derive(key, purpose="serving/scope")
        self._clock_s, self._ttl_s = clock_s, ttl_s
        self._vault = vault or MemoryVault(clock_s=clock_s, ttl_s=ttl_s)
        self._histories: OrderedDict[bytes, tuple[float, bytes | None]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Conversations, {len(self._histories)} remembered>"

    async def named(self, caller: Caller, conversation: str, policy: Policy) -> Names:
        """The names of the conversation that the client calls so; the same whoever of its tenant's key asks.

        Raises:
            MibaoError: the vault cannot be read.
        """
        place = self._place(caller, b"id", conversation.encode("utf-8", "surrogatepass"))
        return await self._stored(derive(self._key, purpose="serving/scope", context=place), policy)

    def continued(self, caller: Caller, history: list[bytes], policy: Policy) -> Names:
        """The names of the conversation whose turns so far are ``history``; new ones where there is none."""
        scope_key = None
        if history:
            place = self._place(caller, b"history", *history)
            scope_key = self._history(place)
            self._put(place, None)  # once: whoever comes to the same history later may be somebody else
        return Names(scope_key=scope_key or random_bytes(32), policy=policy)

    async def after(self, caller: Caller, response_id: str, policy: Policy) -> Names | None:
        """The names of the conversation in which ``response_id`` was answered, where it was; as often as asked.

        Raises:
            MibaoError: the vault cannot be read.
        """
        place = self._place(caller, b"response", response_id.encode("utf-8", "surrogatepass"))
        found = await asyncio.to_thread(self._vault.get, place, (_SCOPE, _AMBIGUOUS))
        known = _SCOPE in found and _AMBIGUOUS not in found
        return await self._stored(bytes.fromhex(found[_SCOPE]), policy) if known else None

    async def keep(self, names: Names) -> None:
        """Let :meth:`named` and :meth:`after` find what ``names`` stand for now, before anybody is told a name.

        Raises:
            MibaoError: the vault cannot be written.
        """
        if len(names):
            await asyncio.to_thread(self._vault.put, self._scope(names.scope_key), names.values)

    async def answered(self, caller: Caller, response_id: str, names: Names) -> None:
        """Let :meth:`after` find ``names``; nobody's where two conversations were given the same identifier.

        Raises:
            MibaoError: the vault cannot be written.
        """
        place = self._place(caller, b"response", response_id.encode("utf-8", "surrogatepass"))
        try:
            await asyncio.to_thread(self._vault.put, place, {_SCOPE: names.scope_key.hex()})
        except IntegrityError:
            await asyncio.to_thread(self._vault.put, place, {_AMBIGUOUS: ""})

    def remember(self, caller: Caller, history: list[bytes], names: Names) -> None:
        """Let the turn after ``history`` find ``names``."""
        place = self._place(caller, b"history", *history)
        known = self._history(place)
        self._put(place, None if place in self._histories and known != names.scope_key else names.scope_key)

    def _history(self, place: bytes) -> bytes | None:
        known = self._histories.get(place)
        if known is None or known[0] + self._ttl_s < self._clock_s():
            self._histories.pop(place, None)
            return None
        return known[1]

    def _put(self, place: bytes, scope_key: bytes | None) -> None:
        self._histories[place] = (self._clock_s(), scope_key)
        self._histories.move_to_end(place)
        while len(self._histories) > MAX_CONVERSATIONS:
            self._histories.popitem(last=False)

    async def _stored(self, scope_key: bytes, policy: Policy) -> Names:
        names = Names(scope_key=scope_key, policy=policy)
        for core, written in (await asyncio.to_thread(self._vault.every, self._scope(scope_key))).items():
            names.know(core, written)
        return names

    def _scope(self, scope_key: bytes) -> bytes:
        """Where the vault keeps what is named under ``scope_key``."""
        return hmac_sha256(self._key, domain_tag("serving/stored-scope", scope_key))

    def _place(self, caller: Caller, kind: bytes, *parts: bytes) -> bytes:
        about = (caller.tenant.encode(), caller.key_id.encode(), kind, *parts)
        return hmac_sha256(self._key, domain_tag("serving/conversation", *about))


def identifier(body: dict[str, Any]) -> str | None:
    """The identifier of a conversation that the upstream keeps."""
    conversation = body.get("conversation")
    if isinstance(conversation, dict):
        conversation = conversation.get("id")
    return conversation if isinstance(conversation, str) else None


def turns(body: dict[str, Any]) -> tuple[list[bytes], int]:
    """The turns of a request, each as one text, and how many of them stand up to the last that the model made."""
    messages = body.get("messages", body.get("input"))
    if not isinstance(messages, list):
        return ([turn("user", messages)] if isinstance(messages, str) else []), 0
    said = [turn("system", body[field]) for field in ("system", "instructions") if body.get(field)]
    answered = 0
    for message in messages:
        kind = str(message.get("type", "")) if isinstance(message, dict) else ""
        if kind == "reasoning":  # some clients send it back, and some do not
            continue
        role = message.get("role") if isinstance(message, dict) else None
        said.append(turn(role if isinstance(role, str) else "item", message))
        if role in _ROLES or kind.endswith("_call"):
            answered = len(said)
    return said, answered


def answer_turns(answer: dict[str, Any]) -> list[bytes]:
    """The turns that a client will send back of an answer: none where it holds no conversation."""
    if isinstance(choices := answer.get("choices"), list) and choices and isinstance(choices[0], dict):
        message = choices[0].get("message")
        return [turn("assistant", message)] if isinstance(message, dict) else []
    if isinstance(content := answer.get("content"), list):
        return [turn("assistant", {"content": content})]
    if isinstance(output := answer.get("output"), list):
        return turns({"input": output})[0]
    return []


def turn(role: str, message: Any) -> bytes:
    """A turn without what clients add, leave out or write anew: its role, its texts, and the calls it makes by name."""
    texts: list[str] = []
    calls: list[str] = []
    _read(message, texts, calls)
    parts = (role, "".join(texts), *calls)
    return domain_tag("serving/turn", *(part.encode("utf-8", "surrogatepass") for part in parts))


def _read(value: Any, texts: list[str], calls: list[str]) -> None:
    """Gather what is said in a message, or in a part of one, and the identifiers of the calls in it."""
    if isinstance(value, str):
        texts.append(value)
    elif isinstance(value, list):
        for each in value:
            _read(each, texts, calls)
    elif isinstance(value, dict):
        if str(value.get("type", "")).endswith(("tool_use", "_call")):
            calls.append(str(value.get("call_id", value.get("id", ""))))
            return
        for key in ("content", "text", "output"):
            _read(value.get(key), texts, calls)
        called = value.get("tool_calls")
        calls += [str(each.get("id", "")) for each in called or () if isinstance(each, dict)]
