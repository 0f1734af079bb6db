"""Patterns that users write: bounded, cheap on every text, and written out so that both engines can take them.

The language is a part of Python's: characters, classes, groups, alternatives, ``?``, ``{n}`` and ``{m,n}``. What a text
could make slow is refused: repetition without an end, and patterns that can read one text in more than
:data:`MOST_WAYS` ways, which bounds how often ``re`` goes back. So is what Hyperscan's gates cannot follow: the dot,
negated classes, references.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import NoReturn, TypeAlias

from mibao.deid.kinds import REACH
from mibao.deid.normalisation import fold

LONGEST = REACH - 4
MOST_WAYS = 1024
MOST_SYMBOLS = 600

_DIGITS, _LETTERS = "0123456789", "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ASCII = frozenset(map(chr, range(128)))
_WIDE = "beyond ASCII"  # stands for every character there
_ANY = _ASCII | {_WIDE}
_AFTER_A_WORD = _ANY - set(_DIGITS + _LETTERS)
_CLASSES = {"d": "0-9", "w": "0-9A-Za-z_", "s": r" \t\n"}
_CONTROLS = {"t": "\t", "n": "\n"}
_QUANTIFIER = re.compile(r"\?|\{([0-9]{1,3})(?:(,)([0-9]{0,3}))?\}|[*+]")
_ALIKE = dict.fromkeys(["(?<", "(?=", "(?!"], "a look-around: its ends are bounded already, and `context` looks beside")


@dataclass(frozen=True, slots=True)
class _Symbol:
    """One character of a class."""

    text: str
    members: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Sequence:
    parts: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Choice:
    options: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Repeat:
    part: _Node
    least: int
    most: int


_Node: TypeAlias = "_Symbol | _Sequence | _Choice | _Repeat"


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomPattern:
    """A pattern that was accepted: what ``re`` and the gates are given, its group 1 around the whole."""

    text: str
    longest: int


def parse_pattern(pattern: str, *, ignore_case: bool = False, inside_words: bool = False) -> CustomPattern:
    """``pattern``, checked and written out.

    Args:
        ignore_case: Whether capitals do not matter, in ASCII letters.
        inside_words: Whether it may stand inside a longer run of ASCII letters and digits.

    Raises:
        ValueError: the engines cannot take it; the message says which part, and why.
    """
    tree = _Parser(fold(pattern), ignore_case=ignore_case).whole()
    least, longest = _width(tree)
    if least < 2:
        raise ValueError("it may match less than two characters")
    if longest > LONGEST:
        raise ValueError(f"it may match {longest} characters, expected at most {LONGEST}")
    ways = _ways(tree, _ANY if inside_words else _AFTER_A_WORD)
    if ways > MOST_WAYS:
        raise ValueError(
            f"it can read one text in more than {MOST_WAYS} ways, which takes too long on some texts: "
            "let repetitions that follow one another take different characters"
        )
    body = f"(?i:{_text(tree)})" if ignore_case else _text(tree)
    before, after = ("", "") if inside_words else ("(?<![0-9A-Za-z])", "(?![0-9A-Za-z])")
    return CustomPattern(text=f"{before}({body}){after}", longest=longest)


class _Parser:
    __slots__ = ("_ignore_case", "_place", "_text")

    def __init__(self, text: str, *, ignore_case: bool) -> None:
        if len(text) > MOST_SYMBOLS:
            raise ValueError(f"expected at most {MOST_SYMBOLS} symbols, got {len(text)}")
        self._text, self._place, self._ignore_case = text, 0, ignore_case

    def whole(self) -> _Node:
        tree = self._choice()
        if self._place < len(self._text):
            self._refuse("a bracket that was not opened")
        return tree

    def _refuse(self, why: str) -> NoReturn:
        raise ValueError(f"at symbol {self._place + 1}: {why}")

    def _choice(self) -> _Node:
        options = [self._sequence()]
        while self._text.startswith("|", self._place):
            self._place += 1
            options.append(self._sequence())
        return options[0] if len(options) == 1 else _Choice(tuple(options))

    def _sequence(self) -> _Node:
        parts: list[_Node] = []
        while self._place < len(self._text) and self._text[self._place] not in "|)":
            parts.append(self._quantified(self._atom()))
        return parts[0] if len(parts) == 1 else _Sequence(tuple(parts))

    def _atom(self) -> _Node:
        symbol = self._text[self._place]
        if read := {"(": self._group, "[": self._class, "\\": self._escape}.get(symbol):
            return read()
        match symbol:
            case ".":
                self._refuse("a dot: name the characters, as in [0-9A-Z]")
            case "^" | "$":
                self._refuse(f"{symbol}: a finding may stand anywhere; leave it out, or write \\{symbol}")
            case "*" | "+" | "?" | "{" | "}" | "]":
                self._refuse(f"{symbol} without a meaning: write \\{symbol}")
        self._place += 1
        return self._symbol(symbol)

    def _symbol(self, symbol: str) -> _Symbol:
        return _Symbol(_literal(symbol), self._members([symbol]))

    def _members(self, symbols: Iterable[str]) -> frozenset[str]:
        found = {symbol if symbol.isascii() else _WIDE for symbol in symbols}
        return frozenset(found | {each.swapcase() for each in found & set(_LETTERS)} if self._ignore_case else found)

    def _group(self) -> _Node:
        for opening, why in _ALIKE.items():
            if self._text.startswith(opening, self._place):
                self._refuse(why)
        self._place += 3 if self._text.startswith("(?:", self._place) else 1
        if self._text.startswith("?", self._place):
            self._refuse("a group with a setting: write (...) or (?:...)")
        tree = self._choice()
        if not self._text.startswith(")", self._place):
            self._refuse("expected )")
        self._place += 1
        return tree

    def _escape(self) -> _Node:
        symbol = self._text[self._place + 1 : self._place + 2]
        if symbol in ("b", "B", "A", "Z"):
            self._refuse(f"\\{symbol}: its ends are bounded already; `inside_words` lifts that")
        if symbol.isdigit():
            self._refuse("a reference to a group")
        if symbol.isalnum() and symbol not in _CLASSES and symbol not in _CONTROLS:
            self._refuse(f"\\{symbol}: expected one of \\d \\w \\s \\t \\n or an escaped sign")
        if not symbol:
            self._refuse("a backslash at the end")
        self._place += 2
        if symbol in _CLASSES:
            inner = _CLASSES[symbol]
            return _Symbol(f"[{inner}]", frozenset(char for char in _ASCII if re.match(f"[{inner}]", char)))
        return self._symbol(_CONTROLS.get(symbol, symbol))

    def _class(self) -> _Symbol:
        self._place += 1
        if self._text.startswith("^", self._place):
            self._refuse("a negated class: name the characters that may stand there")
        pieces: list[str] = []
        members: set[str] = set()
        while not self._text.startswith("]", self._place):
            first = self._member(pieces, members)
            if first and self._text.startswith("-", self._place) and not self._text.startswith("-]", self._place):
                self._place += 1
                last = self._member([], set())
                if not last or ord(first) > ord(last) or first.isascii() != last.isascii():
                    self._refuse("a range that does not rise, or that leaves ASCII")
                pieces.append(f"{_in_class(first)}-{_in_class(last)}")
                members |= self._members(map(chr, range(ord(first), ord(last) + 1)) if last.isascii() else [last])
            elif first:
                pieces.append(_in_class(first))
                members |= self._members([first])
        self._place += 1
        if not pieces:
            self._refuse("an empty class")
        return _Symbol(f"[{''.join(pieces)}]", frozenset(members))

    def _member(self, pieces: list[str], members: set[str]) -> str:
        """One character of a class; nothing where it was a class of its own such as ``\\d``."""
        symbol = self._text[self._place : self._place + 1]
        if not symbol or symbol == "[":
            self._refuse("expected ]" if not symbol else "[ in a class: write \\[")
        self._place += 1
        if symbol != "\\":
            return symbol
        self._place -= 1
        found = self._escape()
        escaped = self._text[self._place - 1]
        if escaped in _CLASSES and isinstance(found, _Symbol):
            pieces.append(_CLASSES[escaped])
            members |= found.members
            return ""
        return _CONTROLS.get(escaped, escaped)

    def _quantified(self, part: _Node) -> _Node:
        match = _QUANTIFIER.match(self._text, self._place)
        if match is None:
            return part
        if match[0] in "*+" or (match[2] and not match[3]):
            self._refuse(f"{match[0]} has no end: write {{m,n}}")
        least = 0 if match[0] == "?" else int(match[1])
        most = 1 if match[0] == "?" else int(match[3] or match[1])
        if most < least or most == 0:
            self._refuse(f"{match[0]}: expected a number of times that rises")
        self._place = match.end()
        if self._text[self._place : self._place + 1] in ("?", "+", "*", "{"):
            self._refuse("a second quantifier")
        if most > 1 and _width(part)[0] == 0:
            self._refuse("a repetition of what may be empty")
        return _Repeat(part, least, most)


def _literal(symbol: str) -> str:
    return {char: f"\\{name}" for name, char in _CONTROLS.items()}.get(symbol) or re.escape(symbol)


def _in_class(symbol: str) -> str:
    return _literal(symbol) if symbol in _CONTROLS.values() else f"\\{symbol}" if symbol in "\\]^-[" else symbol


def _text(node: _Node) -> str:
    match node:
        case _Symbol(text=text):
            return text
        case _Sequence(parts=parts):
            return "".join(f"(?:{_text(part)})" if isinstance(part, _Choice) else _text(part) for part in parts)
        case _Choice(options=options):
            return "|".join(map(_text, options))
        case _Repeat(part=part, least=least, most=most):
            times = "?" if (least, most) == (0, 1) else f"{{{least}}}" if least == most else f"{{{least},{most}}}"
            return f"{_text(part)}{times}" if isinstance(part, _Symbol) else f"(?:{_text(part)}){times}"


def _width(node: _Node) -> tuple[int, int]:
    """The fewest and the most characters of a match."""
    match node:
        case _Symbol():
            return 1, 1
        case _Sequence(parts=parts):
            widths = [_width(part) for part in parts]
            return sum(least for least, _ in widths), sum(most for _, most in widths)
        case _Choice(options=options):
            widths = [_width(option) for option in options]
            return min(least for least, _ in widths), max(most for _, most in widths)
        case _Repeat(part=part, least=least, most=most):
            fewest, longest = _width(part)
            return fewest * least, longest * most


def _first(node: _Node, follow: frozenset[str]) -> frozenset[str]:
    """What a match, or what follows where it is empty, may begin with."""
    match node:
        case _Symbol(members=members):
            return members
        case _Sequence(parts=parts):
            for part in reversed(parts):
                follow = _first(part, follow)
            return follow
        case _Choice(options=options):
            return frozenset().union(*(_first(option, follow) for option in options))
        case _Repeat(part=part, least=least):
            return _first(part, follow) | (follow if least == 0 else frozenset())


def _ways(node: _Node, follow: frozenset[str]) -> int:
    """In how many ways at most one text can be read, where the next character alone does not decide."""
    match node:
        case _Symbol():
            return 1
        case _Sequence(parts=parts):
            ways = 1
            for part in reversed(parts):
                ways *= _ways(part, follow)
                follow = _first(part, follow)
            return ways
        case _Choice(options=options):
            counts = [_ways(option, follow) for option in options]
            begin = [_first(option, follow) for option in options]
            return sum(counts) if any(one & other for one, other in combinations(begin, 2)) else max(counts)
        case _Repeat(part=part, least=least, most=most):
            begin_again = _first(part, frozenset())
            again, last = _ways(part, begin_again), _ways(part, begin_again | follow)
            if least == most or not begin_again & follow:
                return int(again ** (most - 1) * last)
            return int(sum(again ** (times - 1) * last if times else 1 for times in range(least, most + 1)))
