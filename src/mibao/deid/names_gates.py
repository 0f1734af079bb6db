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
    EntityType.PERSON: 0.6, EntityType.LOCATION: 0.3, EntityType.ORGANIZATION: 0.5, EntityType.ADDRESS: 0.3,
    EntityType.TITLE: 0.5,
}  # fmt: skip
LEAST_SCORE_OF_A_LONE_SURNAME = 0.8
LEAST_SCORE_OF_SMALL_LETTERS, LEAST_SCORE_OF_NUMBERS = 0.7, 0.6

_CODE_BEFORE, _CODE_AFTER = tuple("./\\=`$#@*&|~^%+-[{<"), tuple("/\\=`[{<@*|~^")
_NO_CHINESE_NAME = re.compile("|".join(lexicon.NOT_CHINESE_NAMES))


def may_be_chinese(text: str, piece: Piece) -> bool:
    """Whether ``piece`` is sure enough, and no common word that begins like a surname."""
    if piece.score < CHINESE_LEAST_SCORES[piece.entity]:
        return False
    if piece.entity is not EntityType.PERSON:
        return True
    if piece.end == piece.start + 1 and piece.score < LEAST_SCORE_OF_A_LONE_SURNAME:
        return False
    return _NO_CHINESE_NAME.match(text, piece.start) is None


def may_be_english(text: str, piece: Piece) -> bool:
    """Whether ``piece`` is sure enough for what it looks like and what stands around it."""
    name = text[piece.start : piece.end]
    if not LETTER.search(name):  # a bare number is at most a postcode, and one beside words
        postcode = piece.entity is EntityType.ADDRESS and len(name) >= 4 and piece.score >= LEAST_SCORE_OF_NUMBERS
        return postcode and LETTER.search(text, max(0, piece.start - LEFT), piece.start + RIGHT) is not None
    if piece.score < ENGLISH_LEAST_SCORES[piece.entity]:
        return False
    before, after = text[max(0, piece.start - 1) : piece.start], text[piece.end : piece.end + 2]
    if before == "_" or after[:1] in ("_", "("):
        return False
    if not name.islower():
        return True
    goes_on = after[:1] == "." and after[1:].isalnum()
    code = before in _CODE_BEFORE or after[:1] in _CODE_AFTER or goes_on
    return piece.score >= LEAST_SCORE_OF_SMALL_LETTERS and not code
