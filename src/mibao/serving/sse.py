"""Server-sent events, from pieces of bytes and back. Source: WHATWG HTML, section 9.2.6."""

from __future__ import annotations

from dataclasses import dataclass

from mibao.serving.faults import Withheld

MAX_EVENT_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its name, empty where it has none, and its data."""

    name: str
    data: str

    def encode(self) -> bytes:
        """As it is sent."""
        head = f"event: {self.name}\n" if self.name else ""
        return (head + "".join(f"data: {line}\n" for line in self.data.split("\n")) + "\n").encode()


class Decoder:
    """Events from bytes that are fed in any pieces. Comments, ``id`` and ``retry`` are dropped."""

    __slots__ = ("_after_cr", "_data", "_name", "_rest", "_size")

    def __init__(self) -> None:
        self._rest = bytearray()  # of a line whose end has not come
        self._after_cr = False  # a line feed that comes next belongs to the end of a line that was read already
        self._name = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that ``chunk`` ends. Lines end with CR, LF or both.

        Raises:
            Withheld: an event longer than :data:`MAX_EVENT_BYTES`, or no UTF-8.
        """
        if not chunk:
            return []
        new = chunk[1:] if self._after_cr and chunk.startswith(b"\n") else chunk
        self._after_cr = chunk.endswith(b"\r")
        first, *others = new.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._rest += first
        events = []
        for following in others:
            if (event := self._line(self._text())) is not None:
                events.append(event)
            self._rest = bytearray(following)
        self._check_size()
        return events

    def close(self) -> list[Event]:
        """What a stream that ends without its last empty line still held."""
        self._after_cr = False
        return [event for line in (b"\n", b"\n") for event in self.feed(line)] if self._rest or self._data else []

    def _text(self) -> str:
        self._check_size()
        try:
            return self._rest.decode()
        except UnicodeDecodeError as error:
            raise Withheld("the upstream sent no UTF-8", status=502, code="upstream_unreadable") from error

    def _check_size(self) -> None:
        if len(self._rest) + self._size > MAX_EVENT_BYTES:
            raise Withheld("the upstream sent an event that is too long", status=502, code="upstream_unreadable")

    def _line(self, line: str) -> Event | None:
        if not line:
            if not self._data:
                self._name = ""
                return None
            event = Event(self._name, "\n".join(self._data))
            self._name, self._data, self._size = "", [], 0
            return event
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            self._name = value
        elif field == "data":
            self._data.append(value)
            self._size += len(line) + 1
        return None
