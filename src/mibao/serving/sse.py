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

    __slots__ = ("_bytes", "_data", "_name", "_size")

    def __init__(self) -> None:
        self._bytes = b""
        self._name = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that ``chunk`` ends.

        Raises:
            Withheld: an event longer than :data:`MAX_EVENT_BYTES`, or no UTF-8.
        """
        self._bytes += chunk
        if len(self._bytes) + self._size > MAX_EVENT_BYTES:
            raise Withheld("the upstream sent an event that is too long", status=502, code="upstream_unreadable")
        *lines, self._bytes = self._bytes.replace(b"\r\n", b"\n").split(b"\n")
        events = []
        for line in lines:
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                raise Withheld("the upstream sent no UTF-8", status=502, code="upstream_unreadable") from error
            if (event := self._line(text)) is not None:
                events.append(event)
        return events

    def close(self) -> list[Event]:
        """What a stream that ends without its last empty line still held."""
        return [event for line in (b"\n", b"\n") for event in self.feed(line)] if self._bytes or self._data else []

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
