"""Answers of a model service, restored wherever a text stands in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mibao.serving.links import Links
from mibao.serving.placeholders import Names
from mibao.serving.restoring import Restorer, Sent, restored

_OFFSETS = ("start_index", "end_index", "start_char_index", "end_char_index")
_UNTOUCHED = frozenset({"usage", "signature", "encrypted_content", "obfuscation"})
_GIVEN = frozenset({"arguments", "input", "action", "operation", "code"})  # to a tool, by the object that calls it
_SPOKEN = frozenset(
    {
        "text",
        "content",
        "refusal",
        "reasoning",
        "reasoning_content",
        "thinking",
        "delta",
        "arguments",
        "partial_json",
        "input",
        "code",
        "output",
    }
)  # one after the other, where a program may join them
MAX_DEPTH = 64


class AnswerRestorer:
    """Restores the JSON of one answer.

    Args:
        names: Of the conversation.
        sent: What went upstream.
        json_mode: Whether the answer's text is JSON itself.
        tool_allowed: Whether the arguments of a tool are restored.
    """

    def __init__(self, names: Names, sent: Sent, *, json_mode: bool, tool_allowed: Callable[[str], bool]) -> None:
        self.names, self.sent, self.json_mode, self.tool_allowed = names, sent, json_mode, tool_allowed
        self._links = Links()

    def whole(self, answer: Any, *, links: Links | None = None) -> Any:
        """``answer`` with every text restored that may be; ``links`` is what was read of it before."""
        self._links = Links() if links is None else links
        return self._walk(answer, depth=0) if len(self.names) else answer

    def text(self, text: str, *, field: str, tool: str | None = None) -> str:
        """One text of an answer; ``field`` says what it is."""
        if tool is not None and not self.tool_allowed(tool):
            return text
        links = self._links if field in _SPOKEN else None
        return restored(text, self.names, self.sent, escaped=self.escaped(field), links=links)

    def escaped(self, field: str) -> bool:
        """Whether a text under ``field`` is JSON."""
        return field in ("arguments", "partial_json") or (self.json_mode and field in ("content", "text", "delta"))

    def _walk(self, value: Any, *, depth: int, field: str = "", tool: str | None = None) -> Any:
        if depth > MAX_DEPTH:
            raise ValueError("too deep")
        if isinstance(value, str):
            return self.text(value, field=field, tool=tool)
        if isinstance(value, list):
            return [self._walk(each, depth=depth + 1, field=field, tool=tool) for each in value]
        if isinstance(value, dict):
            return self._object(value, depth=depth, tool=tool)
        return value

    def _object(self, value: dict[str, Any], *, depth: int, tool: str | None) -> dict[str, Any]:
        called = tool_of(value) if tool is None else tool  # what one tool is given calls no other
        walked: dict[str, Any] = {}
        for key, each in value.items():
            if key in _UNTOUCHED:
                walked[key] = each
            elif key == "logprobs":
                walked[key] = None  # they spell out placeholders, token by token
            else:
                name = self.text(key, field="", tool=tool) if self.names.may_be_in(key) else key
                field = key if tool is None and isinstance(each, str | list) else ""
                given = called if key in _GIVEN else tool
                walked[name] = self._walk(each, depth=depth + 1, field=field, tool=given)
        if isinstance(marks := value.get("annotations"), list):
            text = value.get("text", value.get("content"))
            if isinstance(text, str):
                walked["annotations"] = [
                    self._moved(mark, new, text) for mark, new in zip(marks, walked["annotations"], strict=True)
                ]
        return walked

    def _moved(self, mark: Any, new: Any, text: str) -> Any:
        """An annotation whose offsets follow the text; ``new`` is it with its own texts restored."""
        restorer = Restorer(self.names, self.sent, escaped=self.json_mode)
        restorer.feed(text)
        restorer.close()
        return moved(mark, new, restorer)


def moved(mark: Any, new: Any, restorer: Restorer) -> Any:
    """``new``, an annotation, with the offsets of ``mark`` where they lead in the restored text."""
    if not isinstance(mark, dict) or not isinstance(new, dict):
        return new
    shifted = dict(new)
    for key, each in mark.items():
        if key in _OFFSETS and isinstance(each, int) and not isinstance(each, bool):
            shifted[key] = restorer.moved(each)
        elif isinstance(each, dict):
            shifted[key] = moved(each, new.get(key), restorer)
    return shifted


def tool_of(value: dict[str, Any]) -> str | None:
    """The tool that an object calls: ``{"name", "arguments"}``, ``{"type": "tool_use", "name", "input"}``.

    Where it has no name, its type without ``_call``: ``{"type": "local_shell_call", "action"}``.
    """
    kind = str(value.get("type", ""))
    named = "name" in value and ("arguments" in value or "input" in value)
    if named or "arguments" in value or kind.endswith(("tool_use", "_call")):
        name = value.get("name")
        return name if isinstance(name, str) else kind.removesuffix("_call")
    return None
