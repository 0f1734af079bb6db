"""Answers with the user's own words back in place of their names, whole or as they arrive."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from mibao.serving.links import Links, has_whole_host
from mibao.serving.placeholders import LONGEST, Names


@dataclass(frozen=True, slots=True)
class Sent:
    """The texts that went upstream, placeholders in them: a link that stands here is the user's own."""

    texts: Sequence[str]

    def has(self, link: str) -> bool:
        """Whether one of them holds ``link``."""
        return any(link in text for text in self.texts)


class Restorer:
    """Restores one text that is fed in pieces: the same as the whole would be, however it is cut.

    Args:
        names: What stands for what.
        sent: What went upstream.
        escaped: Whether the text is JSON, in whose strings a value stands escaped.
        allowed: False to restore nothing, for the arguments of a tool that the policy does not trust.
        links: What was read of the answer before, in other texts of it.
    """

    __slots__ = ("_allowed", "_before", "_escaped", "_held", "_links", "_names", "_sent", "_shifts", "_taken")

    def __init__(
        self, names: Names, sent: Sent, *, escaped: bool = False, allowed: bool = True, links: Links | None = None
    ) -> None:
        self._links = Links() if links is None else links
        self._names, self._sent, self._escaped, self._allowed = names, sent, escaped, allowed
        self._before = self._held = ""
        self._taken = 0
        self._shifts: list[tuple[int, int, int]] = []  # start and end as it came, characters gained

    def feed(self, text: str) -> str:
        """What may be written after more text has come."""
        if not self._allowed or not len(self._names):
            return text
        held = self._held + text
        cut = self._names.undecided(held)
        # a placeholder that ended in what is held is decided only with the character after it
        ready, self._held = held[:cut], held[cut:]
        return self._restored(ready, self._held)

    def close(self) -> str:
        """What is left to write at the end of the text."""
        ready, self._held = self._held, ""
        return self._restored(ready, "") if self._allowed else ready

    def moved(self, offset: int) -> int:
        """Where a place of the text as it came stands in the restored one; inside of a value, its start or end."""
        gained = 0
        for start, end, more in self._shifts:
            if offset >= end:
                gained += more
            elif offset > start:
                return start + gained
        return offset + gained

    def _restored(self, ready: str, after: str) -> str:
        if not self._names.may_be_in(ready):
            self._links.feed(ready, escaped=self._escaped)
            self._taken += len(ready)
            self._before = (self._before + ready)[-LONGEST:]
            return ready
        whole = self._before + ready + after
        begin, limit = len(self._before), len(self._before) + len(ready)
        pieces, kept_from = [], begin
        for place in self._names.find(whole):
            if place.start < begin or place.end > limit:
                continue
            self._links.feed(whole[kept_from : place.start], escaped=self._escaped)
            value = self._value(place.sent, place.written)
            came_at = self._taken + place.start - begin
            written = whole[place.start : place.end] if value is None else value
            self._shifts.append((came_at, came_at + place.end - place.start, len(written) - (place.end - place.start)))
            pieces += [whole[kept_from : place.start], written]
            self._links.feed_name(place.sent)
            kept_from = place.end
        pieces.append(whole[kept_from:limit])
        self._links.feed(whole[kept_from:limit], escaped=self._escaped)
        self._taken += len(ready)
        self._before = whole[max(0, limit - LONGEST) : limit]
        return "".join(pieces)

    def _value(self, sent: str, written: str) -> str | None:
        """``written`` where it may stand: not inside of a link that the upstream made up."""
        link = self._links.link()
        if link is not None and not (has_whole_host(link) and self._sent.has(link + sent)):
            return None
        return json.dumps(written, ensure_ascii=False)[1:-1] if self._escaped else written


def restored(text: str, names: Names, sent: Sent, *, escaped: bool = False, links: Links | None = None) -> str:
    """``text`` with every name restored that may be; ``links`` as for :class:`Restorer`."""
    if links is None and not names.may_be_in(text):
        return text
    restorer = Restorer(names, sent, escaped=escaped, links=links)
    return restorer.feed(text) + restorer.close()
