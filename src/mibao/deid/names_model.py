"""Names, places, organisations, addresses and job titles, found by two small models that ship with the package.

One model reads English, words at a time; one reads Chinese, characters at a time. Both are a pure function of the text:
what they say of a place depends on at most :data:`~mibao.deid.matching.CONTEXT` characters before it and
:data:`~mibao.deid.kinds.REACH` after it. ``docs/deid-names.md`` and the cards beside the model files say what they were
trained on and how much they find. They need the extra ``deid``; without it :func:`names_model` is ``None``, and the
rules for names after cue words remain.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache, cached_property
from importlib import resources
from importlib.util import find_spec
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, Int64
from numpy import ndarray

from mibao.deid.findings import Finding
from mibao.deid.names_features import LETTER, NEIGHBOURS, REACH, Words, codes_of, near_han, pairs_and_triples, words_of
from mibao.deid.names_gates import may_be_chinese, may_be_english
from mibao.deid.names_pieces import CHINESE_KINDS, Piece, Tags, chinese_pieces, english_pieces

_CHUNK = 2048  # characters or words a run: what fits in the second-level cache

_HAN = re.compile("[㐀-䶿一-鿿豈-﫿]")


@runtime_checkable
class Session(Protocol):
    """The part of an ONNX Runtime session that is used here."""

    def run(self, outputs: None, inputs: dict[str, Any]) -> list[Any]:
        """Scores for the inputs."""
        ...

    def get_modelmeta(self) -> Any:
        """What the file says of itself."""
        ...


class EnglishNames:
    """The English model. What stands near a Han character it leaves to the Chinese one."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def pieces(self, text: str) -> Iterator[Piece]:
        """The pieces of names in ``text``, those of one name in a row, the names in order."""
        if LETTER.search(text) and (words := words_of(text)):
            for piece in english_pieces(text, self._tags(words)):
                if piece.rest or may_be_english(text, piece):
                    yield piece

    def _tags(self, words: Words) -> Tags:
        count = len(words.spans)
        scores = np.concatenate([self._scores(words, at) for at in range(0, count, _CHUNK)])
        return _tags(scores, words.spans[:, 0].tolist(), words.spans[:, 1].tolist())

    def _scores(self, words: Words, at: int) -> Float32[ndarray, "c tags"]:
        first = max(0, at - NEIGHBOURS)
        some = words.windows[at : at + _CHUNK]
        near = {
            "features": words.features[first : at + _CHUNK + NEIGHBOURS],
            "windows": np.where(some > 0, some - first, 0),
        }
        scores: Float32[ndarray, "c tags"] = self._session.run(None, near)[0]
        return scores


class ChineseNames:
    """The Chinese model. It looks at Han characters and what stands within :data:`REACH` characters of one."""

    def __init__(self, session: Session) -> None:
        self._session = session
        about = session.get_modelmeta().custom_metadata_map
        self._numbers = np.ones(0x10000, np.int64)
        self._numbers[[ord(char) for char in about["characters"]]] = np.arange(2, 2 + len(about["characters"]))
        self._numbers[0] = 1
        aliases = about["aliases"]
        self._numbers[[ord(char) for char in aliases[::2]]] = self._numbers[[ord(char) for char in aliases[1::2]]]
        self._apart = int(self._numbers[ord("\n")])

    def pieces(self, text: str) -> Iterator[Piece]:
        """The pieces of names in ``text``, those of one name in a row, the names in order."""
        if not text.isascii() and _HAN.search(text):
            for piece in chinese_pieces(text, self._tags(text)):
                if piece.rest or may_be_chinese(text, piece):
                    yield piece

    def _tags(self, text: str) -> Tags:
        codes = codes_of(text)
        numbers = self._numbers[np.where(codes < 0x10000, codes, 0)]
        near = near_han(codes)
        scores = np.zeros((len(codes), 1 + 2 * len(CHINESE_KINDS)), np.float32)
        scores[:, 0] = 1.0
        if near.any():
            scores[near] = self._scores_of(numbers, near)
        return _tags(scores, range(len(codes)), range(1, len(codes) + 1))

    def _scores_of(self, numbers: Int64[ndarray, "n"], near: Bool[ndarray, "n"]) -> Float32[ndarray, "m tags"]:
        """Of the characters that are ``near``: their regions one after the other, line ends between them."""
        places = np.flatnonzero(near)
        breaks = np.concatenate([[0], np.diff(places) > 1]).astype(np.int64)
        moved = REACH + np.arange(len(places)) + REACH * np.cumsum(breaks)
        packed = np.full(int(moved[-1]) + 1 + REACH, self._apart, np.int64)
        packed[moved] = numbers[places]
        scores = np.concatenate([self._scores(packed, at) for at in range(REACH, len(packed) - REACH, _CHUNK)])
        chosen: Float32[ndarray, "m tags"] = scores[moved - REACH]
        return chosen

    def _scores(self, packed: Int64[ndarray, "n"], at: int) -> Float32[ndarray, "c tags"]:
        numbers = packed[None, at - REACH : min(at + _CHUNK, len(packed) - REACH) + REACH]
        before, after, both = pairs_and_triples(numbers)
        inputs = {"characters": numbers, "before": before, "after": after, "both": both}
        scores: Float32[ndarray, "c tags"] = self._session.run(None, inputs)[0][0][REACH:-REACH]
        return scores


class NamesModel:
    """Both models as one detector; each is loaded when a text first needs it."""

    @cached_property
    def _english(self) -> EnglishNames:
        return EnglishNames(load_session("en-names-1"))

    @cached_property
    def _chinese(self) -> ChineseNames:
        return ChineseNames(load_session("zh-names-1"))

    def pieces(self, text: str) -> Iterator[tuple[Piece, str]]:
        """The pieces of names in ``text`` with what found them: the English ones in order, then the Chinese ones."""
        if LETTER.search(text):
            for piece in self._english.pieces(text):
                yield piece, "model:en-names-1"
        if not text.isascii() and _HAN.search(text):
            for piece in self._chinese.pieces(text):
                yield piece, "model:zh-names-1"

    def find(self, text: str) -> tuple[Finding, ...]:
        """The findings in ``text``: the English ones in order, then the Chinese ones in order."""
        return tuple(_whole(self.pieces(text)))


@cache
def names_model() -> NamesModel | None:
    """The models that ship with the package, one for all; ``None`` where the extra ``deid`` is not installed."""
    return None if find_spec("onnxruntime") is None else NamesModel()


def load_session(name: str) -> Session:
    """A session of one thread over a model file of the package, such as ``en-names-1``."""
    import onnxruntime  # noqa: PLC0415 - only who asks for a model pays for it

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False  # it never gives back what the longest text took
    content = resources.files("mibao.deid").joinpath("models", f"{name}.onnx").read_bytes()
    session: Session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session


def _tags(scores: Float32[ndarray, "n tags"], starts: Sequence[int], ends: Sequence[int]) -> Tags:
    best = scores.argmax(axis=1)
    named = np.flatnonzero(best)
    kinds = (best + 1) // 2 - 1
    shares = np.zeros(len(best))
    shares[named] = scores[named, 1 + 2 * kinds[named]] + scores[named, 2 + 2 * kinds[named]]
    return Tags(
        starts=starts, ends=ends, kinds=kinds.tolist(),
        inside=((best % 2 == 0) & (best > 0)).tolist(), shares=shares.tolist(), named=named.tolist(),
    )  # fmt: skip


def _whole(pieces: Iterator[tuple[Piece, str]]) -> Iterator[Finding]:
    """Findings from the pieces of both models."""
    held: tuple[Piece, str] | None = None
    for piece, why in pieces:
        if held is not None and piece.rest:
            if held[1] == why and piece.start == held[0].end:
                held = replace(held[0], end=piece.end), why
        elif not piece.rest:
            if held is not None:
                yield _finding(*held)
            held = piece, why
    if held is not None:
        yield _finding(*held)


def _finding(piece: Piece, why: str) -> Finding:
    return Finding(type=piece.entity, start=piece.start, end=piece.end, score=piece.score, why=why)
