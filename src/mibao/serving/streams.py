"""Streams of answers, restored as they arrive: every event goes on at once, and only what may still become a
placeholder waits for the next."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator
from typing import Any

import msgspec

from mibao.serving import conversations
from mibao.serving.answers import AnswerRestorer, moved, tool_of
from mibao.serving.faults import Withheld
from mibao.serving.links import Links
from mibao.serving.restoring import Restorer
from mibao.serving.sse import Event

DONE = "[DONE]"
_DELTAS = {"text_delta": "text", "input_json_delta": "partial_json", "thinking_delta": "thinking"}


class _Open:
    """One text that arrives in pieces, and how to send what was held of it."""

    __slots__ = ("path", "restorer", "template", "tool")

    def __init__(
        self, restorer: Restorer, template: dict[str, Any], path: tuple[str | int, ...], tool: str | None
    ) -> None:
        self.restorer, self.template, self.path, self.tool = restorer, template, path, tool

    def event(self, held: str) -> dict[str, Any]:
        """The last event of this text again, with ``held`` alone in it."""
        again = copy.deepcopy(self.template)
        place = again
        for step in self.path[:-1]:
            place = place[step]  # type: ignore[index]
        place[self.path[-1]] = held  # type: ignore[index]
        return again


class StreamRestorer(ABC):
    """What all streams share; each API says where its texts stand."""

    def __init__(self, answer: AnswerRestorer) -> None:
        self.answer = answer
        self.usage: dict[str, Any] = {}
        self._said: list[str] = []  # by the first answer, restored
        self._calls: list[dict[str, Any]] = []  # that the first answer makes
        self.response_id: str | None = None
        self.ended = False
        self._open: dict[Hashable, _Open] = {}
        self._links = Links()  # of all texts, as they come

    def feed(self, event: Event) -> Iterator[Event]:
        """What is sent on for one event of the upstream.

        Raises:
            Withheld: its data is no JSON object.
        """
        if event.data.strip() == DONE:
            yield from self._flush(event.name, lambda _: True)
            self.ended = True
            yield Event(event.name, DONE)
            return
        try:
            data = msgspec.json.decode(event.data)
        except (msgspec.DecodeError, RecursionError) as error:
            raise Withheld(
                "the upstream sent an event that is no JSON", status=502, code="upstream_unreadable"
            ) from error
        if not isinstance(data, dict):
            raise Withheld("the upstream sent an event that is no object", status=502, code="upstream_unreadable")
        yield from self._restored(event.name, data)

    def close(self) -> Iterator[Event]:
        """What is still held when the upstream's stream ends."""
        yield from self._flush("", lambda _: True)

    def turns(self) -> list[bytes]:
        """The turns that a client will send back of what has come: see :func:`conversations.answer_turns`."""
        return [conversations.turn("assistant", {"content": self._said, "tool_calls": self._calls})]

    @abstractmethod
    def _restored(self, name: str, data: dict[str, Any]) -> Iterator[Event]:
        """What is sent on for one object of the upstream's."""

    @abstractmethod
    def _spoken(self, key: Hashable) -> bool:
        """Whether the text ``key`` is what the first answer says, and no argument, reason or refusal."""

    def _piece(
        self,
        key: Hashable,
        text: str,
        *,
        field: str,
        tool: str | None,
        template: dict[str, Any],
        path: tuple[str | int, ...],
    ) -> str:
        """A piece of the text ``key``, restored."""
        opened = self._open.get(key)
        if opened is None:
            allowed = tool is None or self.answer.tool_allowed(tool)
            restorer = Restorer(
                self.answer.names,
                self.answer.sent,
                escaped=self.answer.escaped(field),
                allowed=allowed,
                links=self._links,
            )
            opened = self._open[key] = _Open(restorer, template, path, tool)
        if opened.tool != tool:
            raise Withheld("the upstream changed the tool of a call", status=502, code="upstream_unreadable")
        opened.template, opened.path = template, path
        return opened.restorer.feed(text)

    def _flush(self, name: str, chosen: Any) -> Iterator[Event]:
        for key in [key for key in self._open if chosen(key)]:
            opened = self._open.pop(key)
            held = opened.restorer.close()
            if held:
                self._kept(key, held)
                yield _event(name or str(opened.template.get("type", "")), opened.event(held))

    def _kept(self, key: Hashable, text: str) -> None:
        """Remember ``text`` where the first answer says it."""
        if self._spoken(key):
            self._said.append(text)


class ChatStream(StreamRestorer):
    """``chat.completion.chunk`` and ``text_completion``."""

    def __init__(self, answer: AnswerRestorer) -> None:
        super().__init__(answer)
        self._tools: dict[tuple[int, int], str] = {}
        self._base: tuple[dict[str, Any], dict[str, Any]] = ({}, {})  # what every chunk repeats, and it restored

    def _spoken(self, key: Hashable) -> bool:
        return key == (0, "content")

    def _restored_base(self, base: dict[str, Any]) -> dict[str, Any]:
        if base != self._base[0]:
            self._base = (base, self.answer.whole(base))
        return self._base[1]

    def _restored(self, name: str, data: dict[str, Any]) -> Iterator[Event]:
        if isinstance(data.get("usage"), dict):
            self.usage = data["usage"]
        choices = data.get("choices")
        if not isinstance(choices, list) or not choices:
            yield _event(name, self.answer.whole(data))
            return
        base = {key: value for key, value in data.items() if key not in ("choices", "usage")}
        done: list[Any] = []
        for choice in choices:
            if not isinstance(choice, dict) or not isinstance(choice.get("index", 0), int):
                raise Withheld("the upstream sent a choice that cannot be read", status=502, code="upstream_unreadable")
            index = choice.get("index", 0)
            done.append(self._choice(base, choice, index))
            if choice.get("finish_reason") is not None:
                ended = done.pop()
                texts = {key: value for key, value in ended.items() if key in ("delta", "text") and _says(value)}
                if texts:
                    empty = {**ended, "finish_reason": None, **texts}
                    yield _event(name, {**base, "choices": [empty]})
                    ended = {**ended, **{key: {} if key == "delta" else "" for key in texts}}
                yield from self._flush(name, lambda key, index=index: key[0] == index)
                done.append(ended)
        yield _event(
            name,
            {**self._restored_base(base), **({"usage": data["usage"]} if "usage" in data else {}), "choices": done},
        )

    def _choice(self, base: dict[str, Any], choice: dict[str, Any], index: int) -> dict[str, Any]:
        restored = {key: value for key, value in choice.items() if key not in ("delta", "text", "logprobs")}
        if "logprobs" in choice:
            restored["logprobs"] = None if len(self.answer.names) else choice["logprobs"]
        if isinstance(choice.get("text"), str):
            template = {**base, "choices": [{"index": index, "text": "", "finish_reason": None, "logprobs": None}]}
            restored["text"] = self._text(
                (index, "text"), choice["text"], field="text", template=template, path=("choices", 0, "text")
            )
        if isinstance(delta := choice.get("delta"), dict):
            restored["delta"] = self._delta(base, delta, index)
        return restored

    def _delta(self, base: dict[str, Any], delta: dict[str, Any], index: int) -> dict[str, Any]:
        restored: dict[str, Any] = {}
        for key, value in delta.items():
            if key == "tool_calls" and isinstance(value, list):
                restored[key] = [self._call(base, call, index) for call in value]
            elif key == "function_call" and isinstance(value, dict):
                restored[key] = self._function(base, value, index, -1, {})
            elif isinstance(value, str) and key not in ("role", "id"):
                template = {**base, "choices": [{"index": index, "delta": {key: ""}, "finish_reason": None}]}
                restored[key] = self._text(
                    (index, key), value, field=key, template=template, path=("choices", 0, "delta", key)
                )
            else:
                restored[key] = self.answer.whole(value, links=self._links)
        return restored

    def _call(self, base: dict[str, Any], call: Any, index: int) -> Any:
        if not isinstance(call, dict) or not isinstance(call.get("index", 0), int):
            raise Withheld("the upstream sent a tool call that cannot be read", status=502, code="upstream_unreadable")
        number = call.get("index", 0)
        if index == 0 and call.get("id"):
            self._calls.append(call)
        restored = {key: self.answer.whole(value) for key, value in call.items() if key not in ("function", "custom")}
        for kind in ("function", "custom"):
            if isinstance(called := call.get(kind), dict):
                restored[kind] = self._function(base, called, index, number, {"index": number}, kind=kind)
        return restored

    def _function(
        self,
        base: dict[str, Any],
        called: dict[str, Any],
        index: int,
        number: int,
        head: dict[str, Any],
        *,
        kind: str = "function",
    ) -> dict[str, Any]:
        restored: dict[str, Any] = {}
        if isinstance(tool := called.get("name"), str) and tool:
            self._tools[index, number] = restored["name"] = self.answer.text(tool, field="name")
        for key in ("arguments", "input"):
            if not isinstance(text := called.get(key), str):
                continue
            if head:
                delta: dict[str, Any] = {"tool_calls": [{**head, kind: {key: ""}}]}
                path: tuple[str | int, ...] = ("choices", 0, "delta", "tool_calls", 0, kind, key)
            else:
                delta, path = {"function_call": {key: ""}}, ("choices", 0, "delta", "function_call", key)
            template = {**base, "choices": [{"index": index, "delta": delta, "finish_reason": None}]}
            tool_name = self._tools.get((index, number), "")
            restored[key] = self._text(
                (index, "call", number), text, field=key, tool=tool_name, template=template, path=path
            )
        return {
            **self.answer.whole({k: v for k, v in called.items() if k not in ("name", "arguments", "input")}),
            **restored,
        }

    def _text(
        self,
        key: tuple[Any, ...],
        text: str,
        *,
        field: str,
        template: dict[str, Any],
        path: tuple[str | int, ...],
        tool: str | None = None,
    ) -> str:
        ready = self._piece(key, text, field=field, tool=tool, template=template, path=path)
        self._kept(key, ready)
        return ready


class MessagesStream(StreamRestorer):
    """Anthropic's events."""

    def __init__(self, answer: AnswerRestorer) -> None:
        super().__init__(answer)
        self._tools: dict[int, str | None] = {}

    def _spoken(self, key: Hashable) -> bool:
        return isinstance(key, tuple) and key[2] == "text"

    def _restored(self, name: str, data: dict[str, Any]) -> Iterator[Event]:
        kind, index = data.get("type"), data.get("index")
        for holder in (data, data.get("message") or {}):
            if isinstance(usage := holder.get("usage"), dict):
                self.usage = {**self.usage, **usage}
        if (
            kind == "content_block_start"
            and isinstance(index, int)
            and isinstance(block := data.get("content_block"), dict)
        ):
            self._tools[index] = tool_of(block)
            if self._tools[index] is not None:
                self._calls.append(block)
            yield _event(name, self.answer.whole(data, links=self._links))
        elif kind == "content_block_delta" and isinstance(index, int) and isinstance(delta := data.get("delta"), dict):
            field = _DELTAS.get(str(delta.get("type")))
            if field is None or not isinstance(text := delta.get(field), str):
                yield _event(name, self.answer.whole(data))
                return
            template = {**data, "delta": {**delta, field: ""}}
            tool = (self._tools.get(index) or "") if field == "partial_json" else None
            ready = self._piece(
                (0, index, field), text, field=field, tool=tool, template=template, path=("delta", field)
            )
            self._kept((0, index, field), ready)
            yield _event(name, {**data, "delta": {**delta, field: ready}})
        else:
            if kind == "content_block_stop":
                yield from self._flush("content_block_delta", lambda key: key[1] == index)
            elif kind in ("message_delta", "message_stop"):
                yield from self._flush("content_block_delta", lambda _: True)
                self.ended = self.ended or kind == "message_stop"
            yield _event(name, self.answer.whole(data))


class ResponsesStream(StreamRestorer):
    """Events of ``/v1/responses``."""

    def __init__(self, answer: AnswerRestorer) -> None:
        super().__init__(answer)
        self._tools: dict[Hashable, str] = {}
        self._added = 0
        self._restorers: dict[Hashable, Restorer] = {}
        self._items: list[Any] = []

    def turns(self) -> list[bytes]:
        """The items that came whole."""
        return conversations.answer_turns({"output": self._items})

    def _spoken(self, key: Hashable) -> bool:
        return False

    def _restored(self, name: str, data: dict[str, Any]) -> Iterator[Event]:
        kind = str(data.get("type", name))
        response = data.get("response")
        if isinstance(response, dict):
            if isinstance(response.get("usage"), dict):
                self.usage = response["usage"]
            if isinstance(response.get("id"), str):
                self.response_id = response["id"]
            self.ended = self.ended or kind in ("response.completed", "response.incomplete", "response.failed")
        if isinstance(item := data.get("item"), dict) and (tool := tool_of(item)) is not None:
            self._tools[data.get("output_index")] = tool
        key = (
            0,
            kind.rsplit(".", 1)[0],
            data.get("item_id"),
            data.get("output_index"),
            data.get("content_index"),
            data.get("summary_index"),
        )
        if kind.endswith(".delta") and isinstance(text := data.get("delta"), str):
            arguments = "arguments" in kind or "_call" in kind
            tool = self._tools.get(data.get("output_index"), "") if arguments else None
            field = "arguments" if "arguments" in kind else "delta" if "output_text" in kind else "reasoning"
            ready = self._piece(key, text, field=field, tool=tool, template=data, path=("delta",))
            self._restorers[key[2:5]] = self._open[key].restorer
            yield self._numbered(name, {**data, "delta": ready})
            return
        if kind.endswith(".done") or isinstance(response, dict):
            for held in self._flush("", lambda each: each[1] == key[1] or self.ended):
                self._added += 1
                numbered = msgspec.json.decode(held.data)
                yield self._numbered(str(numbered.get("type", "")), numbered)
        whole = self._whole(data, kind)
        if kind == "response.output_item.done":
            self._items.append(whole.get("item"))
        yield self._numbered(name, whole)

    def _whole(self, data: dict[str, Any], kind: str) -> dict[str, Any]:
        tool = self._tools.get(data.get("output_index"), "") if "_call" in kind or "arguments" in kind else None
        restored: dict[str, Any] = {}
        for field, value in data.items():
            if isinstance(value, str) and field in ("arguments", "input", "code") and tool is not None:
                restored[field] = self.answer.text(value, field=field, tool=tool)
            else:
                restored[field] = self.answer.whole({field: value})[field]
        if isinstance(mark := data.get("annotation"), dict):
            restorer = self._restorers.get((data.get("item_id"), data.get("output_index"), data.get("content_index")))
            if restorer is not None:
                restored["annotation"] = moved(mark, restored["annotation"], restorer)
        return restored

    def _numbered(self, name: str, data: dict[str, Any]) -> Event:
        if self._added and isinstance(number := data.get("sequence_number"), int):
            data = {**data, "sequence_number": number + self._added}
        return _event(name, data)


def _says(value: Any) -> bool:
    """Whether a delta holds anything to say."""
    return bool(value) and (isinstance(value, str) or any(each not in (None, "", []) for each in value.values()))


def _event(name: str, data: dict[str, Any]) -> Event:
    return Event(name, msgspec.json.encode(data).decode())
