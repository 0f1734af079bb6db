"""A model service for tests: a real server that writes down all it receives, and says what it was told to say.

    python dummy_upstream.py PORT FOLDER [forget]

Bodies are appended to FOLDER/received.jsonl, and the path of each whose client left before its answer was over to
FOLDER/left.jsonl. FOLDER/script.json, if there, says what to answer: ``{"json": ...}``, ``{"events": [...]}``,
``{"raw": "...", "type": "...", "status": 200}``, with ``headers`` and after ``wait_s``, if given; ``pause_s`` lies
between events, or characters of ``raw``; ``cut`` breaks the connection off where the answer would end. In it ``{{n}}``
stands for the n-th placeholder of the request; ``{{n|lower}}``, ``{{n|bare}}`` and ``{{n|escaped}}`` for what models
make of one. Else the last text of the request is said again.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import uuid
from pathlib import Path
from typing import Any

from aiohttp import web

ANY_PLACEHOLDER = re.compile(r"<[A-Z][A-Z_]*_?\d*>")  # of other gateways
PLACEHOLDER = re.compile(r"<[A-Z][A-Z0-9_]*_[0-9A-HJKMNP-TV-Z]{10}(?:_[0-9A-HJKMNP-TV-Z]{4})?>")


WRITTEN = {
    None: lambda placeholder: placeholder,
    "lower": str.lower,
    "bare": lambda placeholder: placeholder[1:-1],
    "escaped": lambda placeholder: placeholder.replace("_", "\\\\_"),
}


def texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for each in value for text in texts(each)]
    return [text for each in value.values() for text in texts(each)] if isinstance(value, dict) else []


def placeholders(text: str) -> list[str]:
    """Each once, in order."""
    return list(dict.fromkeys(PLACEHOLDER.findall(text) or ANY_PLACEHOLDER.findall(text)))


def last_text(body: dict[str, Any]) -> str:
    messages = body.get("messages", body.get("input", body.get("prompt", "")))
    if isinstance(messages, list) and messages:
        last = messages[-1]
        content = last.get("content", "") if isinstance(last, dict) else last
        return content if isinstance(content, str) else "".join(texts([each.get("text", "") for each in content]))
    return messages if isinstance(messages, str) else ""


def pieces(text: str) -> list[str]:
    return [text[index : index + 3] for index in range(0, len(text), 3)]


def chat(body: dict[str, Any], said: str) -> Any:
    base = {"id": "chatcmpl-1", "created": 1, "model": body["model"]}
    usage = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
    if not body.get("stream"):
        message = {"role": "assistant", "content": said, "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        return {**base, "object": "chat.completion", "choices": [choice], "usage": usage}
    base["object"] = "chat.completion.chunk"
    deltas: list[dict[str, Any]] = [
        {"role": "assistant", "content": ""},
        *({"content": piece} for piece in pieces(said)),
    ]
    events: list[Any] = [{**base, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    events.append({**base, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    return [*events, {**base, "choices": [], "usage": usage}, "[DONE]"]


def messages(body: dict[str, Any], said: str) -> Any:
    usage = {"input_tokens": 5, "output_tokens": 7}
    base = {"id": "msg_1", "type": "message", "role": "assistant", "model": body["model"], "stop_sequence": None}
    if not body.get("stream"):
        return {**base, "content": [{"type": "text", "text": said}], "stop_reason": "end_turn", "usage": usage}
    return [
        {"type": "message_start", "message": {**base, "content": [], "stop_reason": None, "usage": usage}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}
            for piece in pieces(said)
        ),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": usage},
        {"type": "message_stop"},
    ]


def responses(body: dict[str, Any], said: str) -> Any:
    part = {"type": "output_text", "text": said, "annotations": []}
    item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}
    usage = {"input_tokens": 5, "output_tokens": 7, "total_tokens": 12}
    whole = {
        "id": f"resp_{uuid.uuid4().hex}",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": body["model"],
        "output": [item],
        "usage": usage,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }
    if not body.get("stream"):
        return whole
    at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    started = {**whole, "status": "in_progress", "output": []}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": started},
        {"type": "response.output_item.added", "output_index": 0, "item": {**item, "content": []}},
        {"type": "response.content_part.added", **at, "part": {**part, "text": ""}},
        *({"type": "response.output_text.delta", **at, "delta": piece, "logprobs": []} for piece in pieces(said)),
        {"type": "response.output_text.done", **at, "text": said, "logprobs": []},
        {"type": "response.content_part.done", **at, "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": whole},
    ]
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


def completions(body: dict[str, Any], said: str) -> Any:
    base = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": body["model"]}
    if not body.get("stream"):
        choice = {"index": 0, "text": said, "finish_reason": "stop", "logprobs": None}
        return {**base, "choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}}
    each = [{**base, "choices": [{"index": 0, "text": piece, "finish_reason": None}]} for piece in pieces(said)]
    return [*each, {**base, "choices": [{"index": 0, "text": "", "finish_reason": "stop"}]}, "[DONE]"]


def embeddings(body: dict[str, Any], _said: str) -> Any:
    vectors = [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}]
    return {"object": "list", "data": vectors, "model": body["model"], "usage": {"prompt_tokens": 3, "total_tokens": 3}}


APIS = {
    "/v1/chat/completions": chat,
    "/v1/messages": messages,
    "/v1/responses": responses,
    "/v1/completions": completions,
    "/v1/embeddings": embeddings,
}


class Dummy:
    def __init__(self, folder: Path, *, forgets: bool) -> None:
        self.folder, self.forgets = folder, forgets

    async def answer(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self.answered(request)
        except (asyncio.CancelledError, ConnectionResetError):
            with (self.folder / "left.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(request.path) + "\n")
            raise

    async def answered(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if not self.forgets:
            about = {
                "path": request.path,
                "headers": {name.lower(): value for name, value in request.headers.items()},
                "body": body,
            }
            with (self.folder / "received.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(about, ensure_ascii=False) + "\n")
        script = self.folder / "script.json"
        told = json.loads(script.read_text(encoding="utf-8")) if script.exists() else {}
        found = placeholders(json.dumps(body, ensure_ascii=False))
        filled = json.loads(
            re.sub(
                r"\{\{(\d+)(?:\|(\w+))?\}\}",
                lambda at: WRITTEN[at[2]](found[int(at[1])]),
                json.dumps(told, ensure_ascii=False),
            )
        )
        more = filled.get("headers", {})
        await asyncio.sleep(filled.get("wait_s", 0))
        if "raw" in filled:
            headers = {"content-type": filled.get("type", "application/json"), **more}
            if "pause_s" in filled:
                return await self.dripping(request, filled["raw"], filled["pause_s"], headers)
            return web.Response(body=filled["raw"].encode(), status=filled.get("status", 200), headers=headers)
        if "json" in filled:
            return web.json_response(filled["json"], status=filled.get("status", 200), headers=more)
        said = filled.get("say", last_text(body))
        told = filled.get("events") or APIS[request.path](body, said)
        if not isinstance(told, list):
            return web.json_response(told)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for event in told:
            name = f"event: {event['type']}\n" if isinstance(event, dict) and "type" in event else ""
            data = event if isinstance(event, str) else json.dumps(event)
            await response.write(f"{name}data: {data}\n\n".encode())
            await asyncio.sleep(filled.get("pause_s", 0))
        if filled.get("cut") and request.transport is not None:
            request.transport.close()
        return response

    async def dripping(
        self, request: web.Request, text: str, pause_s: float, headers: dict[str, str]
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        for character in text:
            await response.write(character.encode())
            await asyncio.sleep(pause_s)
        return response

    async def models(self, _: web.Request) -> web.Response:
        return web.json_response(
            {"object": "list", "data": [{"id": "m", "object": "model", "created": 1, "owned_by": "x"}]}
        )


def main() -> None:
    dummy = Dummy(Path(sys.argv[2]), forgets=sys.argv[3:] == ["forget"])
    app = web.Application(client_max_size=1 << 26)
    app.router.add_get("/v1/models", dummy.models)
    app.router.add_post("/{path:.*}", dummy.answer)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None, handler_cancellation=True)


if __name__ == "__main__":
    main()
