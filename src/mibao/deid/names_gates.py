"""Which of the stretches that the models name are none: parts of identifiers, of paths, of code; common words."""

from __future__ import annotations

import re

from mibao.deid import lexicon
from mibao.deid.names_features import LEFT, LETTER, RIGHT
from mibao.deid.names_pieces import Piece
from mibao.types import EntityType

ENGLISH_LEAST_SCORES = {
    EntityType.PERSON: 0.4, EntityType.LOCATION: 0.4, EntityType.ORGANIZATION: 0.4, EntityType.ADDRESS: 0.4,
    EntityType.TITLE: 0.4,
}  # fmt: skip
CHINESE_LEAST_SCORES = {
    EntityType.PERSON: 0.6, EntityType.LOCATION: 0.4, EntityType.ORGANIZATION: 0.5, EntityType.ADDRESS: 0.3,
    EntityType.TITLE: 0.5,
}  # fmt: skip
LEAST_SCORE_OF_A_LONE_CHARACTER = 0.8
LEAST_SCORE_IN_CODE, LEAST_SCORE_OF_CAPITALS = 0.85, 0.6
LEAST_SCORE_OF_SMALL_LETTERS, LEAST_SCORE_OF_NUMBERS = 0.7, 0.6

_CODE_BEFORE, _CODE_AFTER = frozenset("/\\`$#@*&|~^%<{"), frozenset("/\\=`[{<@*|~^")
_ONE_WORD = re.compile(r"[^\W_]+")
_NO_WORD = re.compile(  # one letter, numbers behind it or none; hexadecimal numbers
    r"[^\W\d_](?:[ ,.;:]+[0-9.]*)*|(?=[0-9 -]*[a-f])(?=[a-f -]*[0-9])[0-9a-f]{4,8}(?:[ -][0-9a-f]{4,8})*[ .]*"
)
_MONTH = re.compile(r"(?:Jan|Feb|Mar|April?|May|June?|July?|Aug|August|Sept?|Oct|Nov|Dec) {1,2}[0-3]?[0-9](?![0-9])")
_SERIAL = re.compile(r"[A-Z]{1,3}-?[0-9]{4,}(?:-[0-9]+)*|[A-Z]{2,3}-[0-9]{3,}")  # PO-389642 is no place
_INNER_CAPITAL = re.compile("(?<!Mc)(?<!Mac)(?<=[A-Za-z])[A-Z]")
_NO_CHINESE_NAME = re.compile("|".join(lexicon.NOT_CHINESE_NAMES))


def may_be_chinese(text: str, piece: Piece) -> bool:
    """Whether ``piece`` is sure enough, and no common word that begins like a surname."""
    if piece.score < CHINESE_LEAST_SCORES[piece.entity]:
        return False
    if piece.end == piece.start + 1 and piece.score < LEAST_SCORE_OF_A_LONE_CHARACTER:
        return piece.entity is EntityType.LOCATION and text[piece.start] in lexicon.COUNTRIES_IN_A_CHARACTER
    name = text[piece.start : piece.end]
    if name.isascii():  # a Latin word in Chinese: names of people and firms have capitals
        return (
            not name.islower() and name.lower() not in lexicon.NO_ENGLISH_NAMES and not _MONTH.match(text, piece.start)
        )
    return piece.entity is not EntityType.PERSON or not _begins_or_ends_a_word(text, piece)


def _begins_or_ends_a_word(text: str, piece: Piece) -> bool:
    """Whether a common word stands there, or all of ``piece`` is the end of one, as 谢 is in 谢谢."""
    if _NO_CHINESE_NAME.match(text, piece.start):
        return True
    word = _NO_CHINESE_NAME.match(text, piece.start - 1) if piece.start else None
    return word is not None and word.end() >= piece.end


def may_be_english(text: str, piece: Piece) -> bool:
    """Whether ``piece`` is sure enough for what it looks like and what stands around it."""
    name = text[piece.start : piece.end]
    before, after = text[max(0, piece.start - 2) : piece.start], text[piece.end : piece.end + 2]
    part_of_more = before[-1:].isalnum() or after[:1].isalnum()
    if part_of_more or _NO_WORD.fullmatch(name) or _SERIAL.fullmatch(name.strip()) or _MONTH.match(text, piece.start):
        return False
    if not LETTER.search(name):  # a bare number is at most a postcode, and one beside words
        postcode = piece.entity is EntityType.ADDRESS and len(name) >= 4 and piece.score >= LEAST_SCORE_OF_NUMBERS
        return postcode and LETTER.search(text, max(0, piece.start - LEFT), piece.start + RIGHT) is not None
    if piece.score < ENGLISH_LEAST_SCORES[piece.entity] or before[-1:] == "_" or after[:1] in ("_", "("):
        return False
    if not _ONE_WORD.fullmatch(name):
        return not name.islower() or piece.score >= LEAST_SCORE_OF_SMALL_LETTERS
    if name.lower() in lexicon.NO_ENGLISH_NAMES:
        return False
    return piece.score >= _least_of_a_word(name, before, after)


def _least_of_a_word(name: str, before: str, after: str) -> float:
    """How sure a single word must be, by its letters and by the signs of code around it."""
    goes_on = (after[:1] == "." and after[1:].isalnum()) or (before[-1:] == "." and before[:-1].isalnum())
    code = goes_on or before[-1:] in _CODE_BEFORE or after[:1] in _CODE_AFTER or after == "::"
    if name.islower():
        return 1.0 if code else LEAST_SCORE_OF_SMALL_LETTERS
    if code:
        return LEAST_SCORE_IN_CODE
    return LEAST_SCORE_OF_CAPITALS if _INNER_CAPITAL.search(name) else 0.0
