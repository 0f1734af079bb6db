"""What Hyperscan is given in place of a rule's pattern: literals or simple byte patterns that say where to look.

A gate accepts a part of every match, read as UTF-8 between two line ends. Where the alternatives of a pattern begin
with fixed words, the words are the gate; else it is the pattern in bytes: look-arounds become the character that they
leave, or nothing; possessive repetition gives back; classes grow to all digits, all capitals or all letters. Such
gates compile a hundred times faster than the patterns, all together, and miss nothing that ``re`` would find.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

_ANY_WIDE = r"(?:[\xc2-\xf4][\x80-\xbf]{1,3})"
_BOUNDARY = "[^0-9A-Za-z]"
_BOUNDARIES = ("(?<![0-9A-Za-z])", "(?![0-9A-Za-z])")
_LOOK_AROUNDS = ("(?<!", "(?!", "(?=", "(?<=")
_FEW = 12
_SHORTEST_BYTES = 3
_DIGITS, _UPPER, _LOWER = "0123456789", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Gate:
    """One expression for Hyperscan."""

    expression: bytes
    caseless: bool = False
    head: int | None = None  # how many characters a match is before the end of its gate, where that is known
    is_word: bool = False


def word_gates(words: Iterable[str]) -> tuple[Gate, ...]:
    """One gate for each word, in capitals or not."""
    return tuple(
        Gate(b"[^A-Za-z]%b[^A-Za-z]" % _escaped(word) if word.isascii() else _escaped(word), True, None, True)
        for word in words
    )


def inner_gates(pattern: str, reach: int | None) -> tuple[Gate, ...]:
    """As :func:`gates`, of a simpler pattern that stands anywhere in each match of a rule.

    Args:
        pattern: What every match holds, or what stands beside it.
        reach: How many characters from the start of the match to the end of this at most, where they are few.
    """
    return tuple(replace(gate, head=reach) for gate in gates(pattern))


def gates(pattern: str) -> tuple[Gate, ...]:
    """The gates of one pattern: every match of it holds a match of one of them.

    Raises:
        ValueError: the pattern holds a negated class or a dot, which a gate cannot follow.
    """
    words, _ = _Literals(pattern).alternatives(caseless=False)
    if words and all(len(word.encode()) >= _SHORTEST_BYTES for word, _ in words):
        return tuple(Gate(_escaped(word), caseless, len(word), True) for word, caseless in sorted(words))
    return (Gate("".join(_atoms(pattern)).encode("latin-1")),)


class _Literals:
    """Reads the fixed words with which the alternatives of a pattern begin."""

    __slots__ = ("_place", "_text")

    def __init__(self, pattern: str) -> None:
        self._text, self._place = pattern, 0

    def alternatives(self, *, caseless: bool) -> tuple[set[tuple[str, bool]], bool]:
        """The words up to the end of this group, and whether each stands for its whole alternative."""
        found: set[tuple[str, bool]] = set()
        whole = True
        while True:
            heads, goes_on = self._sequence(caseless=caseless)
            found |= heads
            whole &= goes_on
            if self._place >= len(self._text) or self._text[self._place] == ")":
                return found, whole
            self._place += 1  # the bar

    def _sequence(self, *, caseless: bool) -> tuple[set[tuple[str, bool]], bool]:
        heads, open_ended = {("", caseless)}, True
        while self._place < len(self._text) and self._text[self._place] not in "|)":
            atoms, whole = self._atom(caseless=caseless)
            optional = self._skip_quantifier()
            if not open_ended:
                continue
            if atoms is None or optional or len(heads) * len(atoms) > 600:
                open_ended = False
                continue
            heads = {(head + word, insensitive or mine) for head, insensitive in heads for word, mine in atoms}
            open_ended = whole
        return heads, open_ended

    def _atom(self, *, caseless: bool) -> tuple[set[tuple[str, bool]] | None, bool]:
        text, place = self._text, self._place
        if text.startswith(_LOOK_AROUNDS, place):
            self._place = _after_group(text, place)
            return {("", False)}, True
        if text[place] == "(":
            opening = next(each for each in ("(?:", "(?i:", "(") if text.startswith(each, place))
            self._place = place + len(opening)
            found, whole = self.alternatives(caseless=caseless or opening == "(?i:")
            self._place += 1
            return found, whole
        if text[place] == "[":
            self._place = _after_class(text, place)
            return None, False
        self._place += 2 if text[place] == "\\" else 1
        if text[place] == "\\":
            return (None, False) if text[place + 1].isalnum() else ({(text[place + 1], caseless)}, True)
        return {(text[place], caseless)}, True

    def _skip_quantifier(self) -> bool:
        """Steps over a quantifier; whether what it is about may be left out or repeated."""
        text, start = self._text, self._place
        if text.startswith("{", start):
            self._place = text.index("}", start) + 1
        elif text[start : start + 1] in ("?", "*", "+"):
            self._place += 1
        else:
            return False
        if text[self._place : self._place + 1] in ("?", "+"):
            self._place += 1
        return True


def _atoms(pattern: str) -> Iterator[str]:
    place = 0
    while place < len(pattern):
        if bound := next((each for each in _BOUNDARIES if pattern.startswith(each, place)), None):
            yield _BOUNDARY
            place += len(bound)
        elif pattern.startswith(_LOOK_AROUNDS, place):
            place = _after_group(pattern, place)
        elif pattern[place] == "[":
            end = _after_class(pattern, place)
            yield _class(pattern[place + 1 : end - 1])
            place = end
        elif pattern[place] == "\\":
            yield _escape(pattern[place + 1])
            place += 2
        elif pattern[place] == "+" and place > 1 and pattern[place - 1] in "}*+?" and pattern[place - 2] != "\\":
            place += 1  # possessive
        elif pattern[place] == ".":
            raise ValueError("a gate cannot follow a dot")
        else:
            yield _literal(pattern[place])
            place += 1


def _escaped(word: str) -> bytes:
    return "".join(f"\\x{byte:02x}" for byte in word.encode()).encode()


def _literal(symbol: str) -> str:
    return symbol if symbol.isascii() else f"(?:{_escaped(symbol).decode()})"


def _escape(symbol: str) -> str:
    return f"(?:{_ANY_WIDE}|[ -~])" if symbol.isdigit() else "\\" + symbol  # a back reference to one separator


def _class(inner: str) -> str:
    if inner.startswith("^"):
        raise ValueError("a gate cannot follow a negated class")
    plain, wide, has_wide_range = _members(inner)
    options = []
    if plain:
        options.append(f"[{_grown(plain)}]")
    if has_wide_range or len(wide) > _FEW:
        options.append(_ANY_WIDE)
    else:
        options += [_literal(symbol) for symbol in wide]
    return options[0] if len(options) == 1 else f"(?:{'|'.join(options)})"


def _members(inner: str) -> tuple[set[str], list[str], bool]:
    """The ASCII members of a class, its other members, and whether it has a range of others."""
    plain: set[str] = set()
    wide: list[str] = []
    has_wide_range, index = False, 0
    while index < len(inner):
        if inner[index] == "\\":
            escaped = {"s": " \t\n\r\f\v", "t": "\t", "n": "\n", "d": _DIGITS}.get(inner[index + 1], inner[index + 1])
            plain |= set(escaped)
            index += 2
        elif index + 2 < len(inner) and inner[index + 1] == "-":
            first, last = inner[index], inner[index + 2]
            if last.isascii():
                plain |= {chr(code) for code in range(ord(first), ord(last) + 1)}
            else:
                has_wide_range = True
            index += 3
        else:
            if inner[index].isascii():
                plain.add(inner[index])
            else:
                wide.append(inner[index])
            index += 1
    return plain, wide, has_wide_range


def _grown(plain: set[str]) -> str:
    for block in (_DIGITS, _UPPER, _LOWER):
        if plain & set(block):
            plain |= set(block)
    return "".join(f"\\x{ord(symbol):02x}" for symbol in sorted(plain))


def _after_class(pattern: str, place: int) -> int:
    place += 1
    place += 1 if pattern[place] == "^" else 0
    place += 1 if pattern[place] == "]" else 0
    while pattern[place] != "]":
        place += 2 if pattern[place] == "\\" else 1
    return place + 1


def _after_group(pattern: str, place: int) -> int:
    depth = 0
    while True:
        symbol = pattern[place]
        if symbol == "\\":
            place += 2
        elif symbol == "[":
            place = _after_class(pattern, place)
        else:
            depth += (symbol == "(") - (symbol == ")")
            place += 1
            if depth == 0:
                return place
