"""Answers with the user's own words back in place of their names, whole or as they arrive."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from mibao.serving.links import LOOK_BACK, has_whole_host, link_before
from mibao.serving.placeholders import Names


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
    """

    __slots__ = ("_allowed", "_before", "_escaped", "_held", "_names", "_sent", "_shifts", "_taken")

    def __init__(self, names: Names, sent: Sent, *, escaped: bool = False, allowed: bool = True) -> None:
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
            self._taken += len(ready)
            self._before = (self._before + ready)[-LOOK_BACK:]
            return ready
        whole = self._before + ready + after
        begin, limit = len(self._before), len(self._before) + len(ready)
        pieces, kept_from = [], begin
        seen = self._names.find(whole)
        spans = [(place.start, place.end) for place in seen]
        for place in seen:
            if place.start < begin or place.end > limit or not self._may(whole, place.start, place.sent, spans):
                continue
            value = json.dumps(place.written, ensure_ascii=False)[1:-1] if self._escaped else place.written
            came_at = self._taken + place.start - begin
            self._shifts.append((came_at, came_at + place.end - place.start, len(value) - (place.end - place.start)))
            pieces += [whole[kept_from : place.start], value]
            kept_from = place.end
        pieces.append(whole[kept_from:limit])
        self._taken += len(ready)
        self._before = whole[max(0, limit - LOOK_BACK) : limit]
        return "".join(pieces)

    def _may(self, whole: str, start: int, sent: str, spans: list[tuple[int, int]]) -> bool:
        """Whether a value may stand there: not inside of a link that the upstream made up."""
        first = max(0, start - LOOK_BACK)
        inside = [(begin - first, end - first) for begin, end in spans if begin >= first and end <= start]
        link = link_before(whole[first:start], inside, escaped=self._escaped)
        return link is None or (has_whole_host(link) and self._sent.has(link + sent))


def restored(text: str, names: Names, sent: Sent, *, escaped: bool = False) -> str:
    """``text`` with every placeholder restored that may be."""
    if not names.may_be_in(text):
        return text
    restorer = Restorer(names, sent, escaped=escaped)
    return restorer.feed(text) + restorer.close()
