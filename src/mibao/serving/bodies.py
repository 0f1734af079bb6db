"""The body of a request: read within every limit, and what it says of the answer that it wants."""

from __future__ import annotations

import asyncio
import re
import zlib
from typing import Any

import msgspec
from starlette.requests import Request

from mibao.serving.configuration import LimitSettings
from mibao.serving.faults import Withheld

_ENCODINGS = ("identity", "gzip", "deflate")
_KIND = re.compile(r"(?:_use)?(?:_preview)?(?:_[0-9_]+)?\Z")  # computer_use_preview makes a computer_call
_EITHER_HEADER = 47  # zlib's word for: gzip or zlib, whichever comes


async def read(request: Request, limits: LimitSettings) -> dict[str, Any]:
    """The request's JSON object.

    Raises:
        Withheld: it is none, of another type, packed in an unknown way, too long, or too slow to come.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Withheld("expected content-type application/json", status=415, code="unsupported_media_type")
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in _ENCODINGS:
        raise Withheld("expected no content-encoding, gzip or deflate", status=415, code="unsupported_encoding")
    raw = bytearray()
    try:
        async with asyncio.timeout(limits.read_s):
            async for piece in request.stream():
                raw += piece
                if len(raw) > limits.body_bytes:
                    raise _too_large(limits.body_bytes)
    except TimeoutError:
        raise Withheld("the request did not arrive in time", status=408, code="request_timeout") from None
    data = bytes(raw) if encoding == "identity" else _unpacked(bytes(raw), limits.body_bytes)
    try:
        body = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Withheld("expected a JSON object", status=400, code="invalid_json") from None
    if not isinstance(body, dict):
        raise Withheld("expected a JSON object", status=400, code="invalid_json")
    return body


def json_mode(body: dict[str, Any]) -> bool:
    """Whether the answer's text is to be JSON."""
    holders = (body, body.get("text"), body.get("output_config"))
    wanted = [
        holder.get(name)
        for holder in holders
        if isinstance(holder, dict)
        for name in ("response_format", "output_format", "format")
    ]
    return any(isinstance(each, dict) and str(each.get("type", "")).startswith("json") for each in wanted)


def tools_of(body: dict[str, Any]) -> list[str]:
    """The tools that the client offers; those of the model service's own by their type, as its calls name them."""
    offered = [tool for field in ("tools", "functions") if isinstance(body.get(field), list) for tool in body[field]]
    described = [tool for tool in offered if isinstance(tool, dict)]
    holders = [holder for tool in described for holder in (tool, tool.get("function"), tool.get("custom"))]
    named = [holder["name"] for holder in holders if isinstance(holder, dict) and isinstance(holder.get("name"), str)]
    return [*named, *(_KIND.sub("", tool["type"]) for tool in described if isinstance(tool.get("type"), str))]


def _too_large(limit: int) -> Withheld:
    return Withheld(f"expected at most {limit} bytes", status=413, code="too_large")


def _unpacked(data: bytes, limit: int) -> bytes:
    """What gzip or deflate packed, never more than ``limit`` bytes of it."""
    unpacker = zlib.decompressobj(wbits=_EITHER_HEADER)
    try:
        unpacked = unpacker.decompress(data, limit + 1)
    except zlib.error:
        raise Withheld("the body cannot be unpacked", status=400, code="invalid_encoding") from None
    if len(unpacked) > limit or unpacker.unconsumed_tail:
        raise _too_large(limit)
    if not unpacker.eof or unpacker.unused_data:
        raise Withheld("the body cannot be unpacked", status=400, code="invalid_encoding")
    return unpacked
