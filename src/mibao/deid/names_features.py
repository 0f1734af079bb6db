"""What the models of names look at: numbers for characters, words and their neighbours.

Every feature of a place depends on at most :data:`LEFT` characters before it and :data:`RIGHT` after it, so what a
model says of a place does not depend on how far away the text begins or ends.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Int64, UInt32
from numpy import ndarray

LEFT, RIGHT = 40, 24  # characters
REACH = 12  # Chinese: how far from a Han character the model looks, in characters
APART = 2  # English: how far from one a word stands at least
WORDS, PIECES, SHAPES, GAPS = 1 << 16, 1 << 13, 260, 4  # rows of the tables of English features
NEIGHBOURS = 4  # words on each side
PAIRS, TRIPLES = 1 << 16, 1 << 15  # rows of the tables of Chinese features

# Of a longer run of letters or digits its beginning alone: where a word is cut depends on nothing far before.
# Signs that quote or list a line are no words: the same line without them is read in the same way.
_LINE_SIGNS = r"(?<![^\n])(?:[>|*•?]{1,3}|[-–]) ?"
_TOKEN = re.compile(rf"{_LINE_SIGNS}|((?<![^\W\d_㐀-鿿])[^\W\d_㐀-鿿]{{1,32}}|(?<!\d)\d{{1,32}}|[^\w\s]|_)")
LETTER = re.compile(r"[^\W\d_㐀-鿿豈-\ufaff]")  # of no Han script
_FIRST, _SECOND, _THIRD = 0x9E3779B1, 0x85EBCA6B, 0xC2B2AE35


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a text: ``spans`` (words, 2) in its characters, ``features`` (words, 7), ``windows`` (words, 9)."""

    spans: Int64[ndarray, "n 2"]
    features: Int64[ndarray, "n 7"]
    windows: Int64[ndarray, "n 9"]


def words_of(text: str) -> Words | None:
    """Words, numbers and signs of ``text`` with what the English model looks at; ``None`` if there are none.

    Those within :data:`APART` characters of a Han character are left to the Chinese model. A window holds the rows of a
    word's neighbours, counted from one; zero is no neighbour, or one that is too far.
    """
    spans = np.array([match.span(1) for match in _TOKEN.finditer(text) if match[1]], np.int64).reshape(-1, 2)
    if not text.isascii():
        spans = spans[_apart_from_han(text, spans)]
    if not len(spans):
        return None
    features = np.empty((len(spans), 7), np.int64)
    features[:, :6] = [word_features(text[start:end]) for start, end in spans.tolist()]
    features[:, 6] = _gaps(text, spans)
    return Words(spans, features, _windows(spans))


def codes_of(text: str) -> UInt32[ndarray, "n"]:
    """The code points of ``text``."""
    codes: UInt32[ndarray, "n"] = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    return codes


def near_han(codes: UInt32[ndarray, "n"]) -> Bool[ndarray, "n"]:
    """Which characters are at most :data:`REACH` away from a Han character."""
    before = _han_before(codes)
    count = len(codes)
    first = np.maximum(np.arange(count) - REACH, 0)
    last = np.minimum(np.arange(count) + REACH + 1, count)
    near: Bool[ndarray, "n"] = before[last] > before[first]
    return near


def _apart_from_han(text: str, spans: Int64[ndarray, "n 2"]) -> Bool[ndarray, "n"]:
    before = _han_before(codes_of(text))
    first, last = np.maximum(spans[:, 0] - APART, 0), np.minimum(spans[:, 1] + APART, len(text))
    apart: Bool[ndarray, "n"] = before[last] == before[first]
    return apart


def _han_before(codes: UInt32[ndarray, "n"]) -> Int64[ndarray, "n+1"]:
    han = ((codes >= 0x3400) & (codes <= 0x9FFF)) | ((codes >= 0xF900) & (codes <= 0xFAFF))
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(han)])


@lru_cache(maxsize=1 << 15)
def word_features(word: str) -> tuple[int, int, int, int, int, int]:
    """Rows of one word in the tables: itself, beginning, two ends, shape, beginning with last letter."""
    low = word.lower()
    return (
        1 + _hash(low, WORDS - 1),
        1 + _hash("<" + low[:3], PIECES - 1),
        1 + _hash(low[-3:] + ">", PIECES - 1),
        1 + _hash(low[-2:] + ">>", PIECES - 1),
        1 + _shape(word),
        1 + _hash("4" + low[:4] + low[-1:], PIECES - 1),
    )


def _hash(text: str, rows: int) -> int:
    return zlib.crc32(text.encode("utf-8", "surrogatepass")) % rows


def _shape(word: str) -> int:
    if not word[0].isalnum():
        return 200 + (ord(word[0]) % 50 if ord(word[0]) < 128 else 50)
    if word.isdigit():
        case = 0
    elif word.islower():
        case = 1
    elif word.isupper():
        case = 2 if len(word) > 1 else 3
    elif word[0].isupper():
        case = 4 if word[1:].islower() else 5
    else:
        case = 7 if word.lower() == word.upper() else 6
    return case * 18 + (min(len(word), 8) - 1) * 2 + (not word.isascii())


def _gaps(text: str, spans: Int64[ndarray, "n 2"]) -> Int64[ndarray, "n"]:
    """What stands before each word: nothing, a space, a line break, or no word within :data:`LEFT` characters."""
    gaps = np.zeros(len(spans), np.int64)
    gaps[0] = 3
    distances = spans[1:, 0] - spans[:-1, 1]
    gaps[1:] = np.where(distances > LEFT, 3, distances > 0)
    for index in np.flatnonzero(gaps[1:] == 1):
        if "\n" in text[spans[index, 1] : spans[index + 1, 0]]:
            gaps[index + 1] = 2
    return gaps


def _windows(spans: Int64[ndarray, "n 2"]) -> Int64[ndarray, "n 9"]:
    count = len(spans)
    here = np.arange(count)[:, None]
    there = here + np.arange(-NEIGHBOURS, NEIGHBOURS + 1)[None]
    inside = np.clip(there, 0, count - 1)
    near = (there >= 0) & (there < count)
    near &= (spans[here, 0] - spans[inside, 0] <= LEFT) & (spans[inside, 1] - spans[here, 1] <= RIGHT)
    near[:, NEIGHBOURS] = True
    return np.where(near, inside + 1, 0)


def pairs_and_triples(
    numbers: Int64[ndarray, "w n"],
) -> tuple[Int64[ndarray, "w n"], Int64[ndarray, "w n"], Int64[ndarray, "w n"]]:
    """Rows for each character with the one before, with the one after, and with both, of numbered characters."""
    padded = np.zeros((len(numbers), numbers.shape[1] + 2), np.int64)
    padded[:, 1:-1] = numbers
    pairs = padded[:, :-1] * _FIRST + padded[:, 1:] * _SECOND
    pairs = (pairs ^ (pairs >> 15)) % PAIRS
    triples = padded[:, :-2] * _FIRST + padded[:, 1:-1] * _SECOND + padded[:, 2:] * _THIRD
    return pairs[:, :-1], pairs[:, 1:], (triples ^ (triples >> 15)) % TRIPLES
