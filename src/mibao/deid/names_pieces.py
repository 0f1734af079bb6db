"""From the tags of words and characters to the pieces of names that a scan chooses from.

A name is taken in pieces of at most :data:`PIECE` characters, so that all of a piece is known from the text up to
:data:`mibao.deid.kinds.REACH` characters behind its start: a stream gives what the whole text does. Besides the piece
that begins a name there is one from every place inside it on, which counts where what stands before was decided.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mibao.deid import lexicon
from mibao.types import EntityType

PIECE = 38  # REACH less what a model looks at behind a word, less one
ENGLISH_KINDS = (
    EntityType.PERSON, EntityType.LOCATION, EntityType.ORGANIZATION, EntityType.ADDRESS, EntityType.TITLE,
)  # fmt: skip
CHINESE_KINDS = (EntityType.PERSON, EntityType.LOCATION, EntityType.ORGANIZATION, EntityType.TITLE)
_PLACE = CHINESE_KINDS.index(EntityType.LOCATION)
_PERSON = ENGLISH_KINDS.index(EntityType.PERSON)

_LINE_END = "\r\n"
_WIDEST_GAP = 3  # between two words of a name
_JOINTS = "-'’"
_NOT_LAST = ",;:-/\"' \n\t(["
_HOUSE_NUMBER = re.compile(r"(?<![^\s])[0-9]{1,4}[A-Za-z]? \Z")
_WIDEST_NUMBER = 7
_LISTED = re.compile(r"(?:[^\W\d_]|[ ,&\n])+")
_BETWEEN_JOINTS = re.compile(r"\b(?!(?:and|or)\b)[^\W\d_]+(?: (?!(?:and|or)\b)[^\W\d_]+)*+")
_LATIN_BEFORE = re.compile(r"[A-Za-z]{1,12}\Z")
_LATIN_AFTER = re.compile(r"[A-Za-z]{1,12}")
_LONGEST_LATIN = 12
_HOUSE = re.compile("[0-9一二三四五六七八九十百]+(?:号|弄|栋|幢|座|室|单元|楼|层|组|户)|[路街巷道弄][0-9]+")
_PART = "号楼|号院|号|弄|栋|幢|座|单元|楼|层|室|房|户"
_ADDRESS_GOES_ON = re.compile(
    f"(?:[ ,，]?[0-9A-Za-z一二三四五六七八九十-]{{1,6}}(?:{_PART})"
    "|(?<=[0-9号室楼层元栋座幢])-?[0-9]{1,4}(?![0-9年月日]))+"
)
_LONGEST_HOUSE = 20


@dataclass(frozen=True, slots=True)
class Piece:
    """A name, or the rest of one from a place inside it on, ``text[start:end]``; ``score``: the mean certainty."""

    start: int
    end: int
    entity: EntityType
    score: float
    rest: bool = False


@dataclass(frozen=True, slots=True)
class Tags:
    """What a model says of words or characters: for each its place, its kind or -1, whether inside, how sure."""

    starts: Sequence[int]
    ends: Sequence[int]
    kinds: Sequence[int]
    inside: Sequence[bool]
    shares: Sequence[float]
    named: Sequence[int]  # those with a kind


def english_pieces(text: str, tags: Tags) -> Iterator[Piece]:
    """The pieces of tagged words."""
    known = 0
    for first in tags.named:
        if first < known:
            continue
        members = _english_members(text, tags, first)
        known = members[-1] + 1
        entity = ENGLISH_KINDS[tags.kinds[first]]
        for place, member in enumerate(members):
            start = tags.ends[members[place - 1]] if place else _number_before(text, tags.starts[member], entity)
            taken, score = _within(tags, members, place, start)
            start, end = _trimmed(text, start, tags.ends[taken], rest=place > 0)
            if start < end:
                yield from _as_people(text, Piece(start, end, entity, score, place > 0))


def _number_before(text: str, start: int, entity: EntityType) -> int:
    """Where a number begins that stands in the same line right before an address, as that of a flat or a house does."""
    if entity is EntityType.ADDRESS and (number := _HOUSE_NUMBER.search(text, max(0, start - _WIDEST_NUMBER), start)):
        return number.start()
    return start


def _as_people(text: str, piece: Piece) -> Iterator[Piece]:
    """``piece``; or, where all its words are common given names, the people: Anna and Robert are no firm, nor a place.

    Of a piece that begins inside a name it is the first alone, since there is a piece from every word on.
    """
    people = list[Piece]()
    if piece.entity in (EntityType.ORGANIZATION, EntityType.LOCATION) and _LISTED.fullmatch(text, *_span(piece)):
        for person in _BETWEEN_JOINTS.finditer(text, *_span(piece)):
            if not all(word.lower() in lexicon.ENGLISH_GIVEN_NAMES for word in person[0].split(" ")):
                people = []
                break
            people.append(Piece(*person.span(), EntityType.PERSON, piece.score))
    yield from (people[:1] if piece.rest else people) or [piece]


def _span(piece: Piece) -> tuple[int, int]:
    return piece.start, piece.end


def _english_members(text: str, tags: Tags, first: int) -> list[int]:
    """The words of one name; an apostrophe or a hyphen inside a word does not cut it: O'Neill, Smith-Jones."""
    members, kind, last = [first], tags.kinds[first], len(tags.kinds) - 1
    while (here := members[-1]) < last:
        if kind == _PERSON and _goes_on_behind_a_hyphen(text, tags, here):
            members.append(here + 2)
            if here + 3 <= last and tags.kinds[here + 3] == kind and tags.starts[here + 3] == tags.ends[here + 2] + 1:
                members.append(here + 3)
            continue
        follower = here + 1
        gap = tags.starts[follower] - tags.ends[here]
        if gap == 0 and follower < last and tags.kinds[follower] < 0 and text[tags.starts[follower]] in _JOINTS:
            follower, gap = follower + 1, tags.starts[follower + 1] - tags.ends[follower]
            if gap:
                break
        if tags.kinds[follower] != kind or gap > (_WIDEST_GAP if tags.inside[follower] else 0):
            break
        members.append(follower)
    return members


def _goes_on_behind_a_hyphen(text: str, tags: Tags, here: int) -> bool:
    """Whether a word in capitals stands behind a hyphen, whatever the model takes it for: Ling of Wei-Ling."""
    if here + 2 >= len(tags.kinds) or text[tags.starts[here + 1]] != "-" or not text[tags.starts[here]].isupper():
        return False
    close = tags.starts[here + 1] == tags.ends[here] and tags.starts[here + 2] == tags.ends[here + 1]
    return close and text[tags.starts[here + 2]].isupper()


def _within(tags: Tags, members: Sequence[int], place: int, start: int) -> tuple[int, float]:
    """The last of ``members`` from ``place`` on that ends within a piece, and the mean certainty of all up to it."""
    total, count, taken = 0.0, 0, members[place]
    for member in members[place:]:
        if tags.ends[member] > start + PIECE:
            break
        total, count, taken = total + tags.shares[member], count + (tags.shares[member] > 0), member
    return taken, _score(total, count)


def _score(total: float, count: int) -> float:
    return min(int(100 * total / (count or 1)) / 100, 0.89)  # below what is strong


def _trimmed(text: str, start: int, end: int, *, rest: bool) -> tuple[int, int]:
    """Without signs before the first letter or digit, and without a comma or a dash at the end."""
    while not rest and start < end and not text[start].isalnum():
        start += 1
    while end > start and text[end - 1] in _NOT_LAST:
        end -= 1
    return start, end


def chinese_pieces(text: str, tags: Tags) -> Iterator[Piece]:
    """The pieces of tagged characters: Latin words whole, places that follow one another as one, up to the room."""
    reached = known = 0
    for first in tags.named:
        if first < known or text[first] in _LINE_END:
            continue
        start, end, last = _chinese_whole(text, tags, first)
        yield from _chinese_pieces(text, tags, (first, last), (max(start, reached), end))
        reached, known = end, last + 1


def _chinese_whole(text: str, tags: Tags, first: int) -> tuple[int, int, int]:
    """Where a name starts and ends, and which is its last tagged character."""
    kind, last, end = tags.kinds[first], first, first
    start, _ = _whole_latin_words(text, first, first + 1)
    while True:
        while _goes_on(text, tags, last + 1, kind):
            last += 1
        _, end = _whole_latin_words(text, first, last + 1)
        if kind != _PLACE:
            return start, end, last
        if more := _ADDRESS_GOES_ON.match(text, end, last + 1 + _LONGEST_HOUSE):
            end = more.end()
        if end == last + 1 or end >= len(text) or tags.kinds[end] != _PLACE:
            return start, end, last
        last = end


def _goes_on(text: str, tags: Tags, place: int, kind: int) -> bool:
    """Whether the character at ``place`` goes on a name of ``kind``; none goes on in the next line."""
    if place >= len(text) or tags.kinds[place] != kind or text[place] in _LINE_END:
        return False
    return tags.inside[place] or kind == _PLACE


def _chinese_pieces(text: str, tags: Tags, tagged: tuple[int, int], whole: tuple[int, int]) -> Iterator[Piece]:
    kind, (first, last) = tags.kinds[tagged[0]], tagged
    for place in range(first, last + 1):
        start = whole[0] if place == first else place
        stop = min(last + 1, start + PIECE)
        end = whole[1] if stop == last + 1 else stop
        if start < end:
            entity = CHINESE_KINDS[kind]
            if kind == _PLACE and _HOUSE.search(text, start, end):
                entity = EntityType.ADDRESS
            counted = [share for share in tags.shares[place:stop] if share]
            yield Piece(start, end, entity, _score(sum(counted), len(counted) or 1), place > first)


def _whole_latin_words(text: str, start: int, end: int) -> tuple[int, int]:
    if text[start].isascii() and (before := _LATIN_BEFORE.search(text, max(0, start - _LONGEST_LATIN), start)):
        start = before.start() if text[start].isalpha() else start
    if text[end - 1].isascii() and text[end - 1].isalpha() and (after := _LATIN_AFTER.match(text, end)):
        end = after.end()
    return start, end
