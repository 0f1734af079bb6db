"""What a request says of the answer that it wants."""

from __future__ import annotations

from typing import Any


def json_mode(body: dict[str, Any]) -> bool:
    """Whether the answer's text is to be JSON."""
    text = body.get("text")
    asked = (
        body.get("response_format"),
        text.get("format") if isinstance(text, dict) else None,
        body.get("output_format"),
    )
    return any(isinstance(each, dict) and str(each.get("type", "")).startswith("json") for each in asked)


def tools_of(body: dict[str, Any]) -> list[str]:
    """The tools that the client offers."""
    offered = [tool for field in ("tools", "functions") if isinstance(body.get(field), list) for tool in body[field]]
    holders = [
        holder
        for tool in offered
        if isinstance(tool, dict)
        for holder in (tool, tool.get("function"), tool.get("custom"))
    ]
    return [holder["name"] for holder in holders if isinstance(holder, dict) and isinstance(holder.get("name"), str)]
