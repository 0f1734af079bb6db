"""Names, places, organisations, addresses and job titles, found by two small models that ship with the package.

One model reads English, words at a time; one reads Chinese, characters at a time. Both are a pure function of the text:
what they say of a place depends on at most :data:`~mibao.deid.names_features.LEFT` characters before it and
:data:`~mibao.deid.names_features.RIGHT` after it. ``docs/deid.md`` and the cards beside the model files say what they
were trained on and how much they find. They need the extra ``deid``; without it :func:`names_model` is ``None``, and
the rules for names after cue words remain.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from importlib.util import find_spec
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

from mibao.deid.findings import Finding
from mibao.deid.names_features import NEIGHBOURS, pairs_and_triples, words_of
from mibao.types import EntityType

ENGLISH_KINDS = (
    EntityType.PERSON, EntityType.LOCATION, EntityType.ORGANIZATION, EntityType.ADDRESS, EntityType.TITLE,
)  # fmt: skip
CHINESE_KINDS = (EntityType.PERSON, EntityType.LOCATION, EntityType.ORGANIZATION, EntityType.TITLE)
ENGLISH_LEAST_SCORES = (0.4, 0.4, 0.4, 0.4, 0.4)  # of each kind; a finding below it is none
CHINESE_LEAST_SCORES = (0.6, 0.3, 0.5, 0.5)
LEAST_SCORE_OF_SMALL_LETTERS, LEAST_SCORE_OF_NUMBERS = 0.7, 0.6  # in English
REACH = 12  # Chinese: how far from a Han character the model looks, in characters
_CHUNK = 2048  # characters or words a run: what fits in the second-level cache

_HAN = "㐀-䶿一-鿿豈-﫿"
_NOT_HAN = re.compile(f"[^{_HAN}]+")
_CODE_BEFORE, _CODE_AFTER = tuple("./\\=`$#@*&|~^%+-[{<"), tuple("/\\=`[{<@*|~^")
_LETTER = re.compile(r"[^\W\d_]")
_HOUSE = re.compile("[0-9一二三四五六七八九十百]+(?:号|弄|栋|幢|座|室|单元|楼|层|组|户)|[路街巷道弄][0-9]+")
_LATIN_BEFORE = re.compile(r"[A-Za-z]{1,12}\Z")
_LATIN_AFTER = re.compile(r"[A-Za-z]{1,12}")
_PART = "号楼|号院|号|弄|栋|幢|座|单元|楼|层|室|房|户"
_ADDRESS_GOES_ON = re.compile(
    f"(?:[ ,，]?[0-9A-Za-z一二三四五六七八九十-]{{1,6}}(?:{_PART})"
    "|(?<=[0-9号室楼层元栋座幢])-?[0-9]{1,4}(?![0-9年月日]))+"
)


@runtime_checkable
class Session(Protocol):
    """The part of an ONNX Runtime session that is used here."""

    def run(self, outputs: None, inputs: dict[str, Any]) -> list[Any]:
        """Scores for the inputs."""
        ...

    def get_modelmeta(self) -> Any:
        """What the file says of itself."""
        ...


@dataclass(frozen=True, slots=True)
class _Span:
    start: int
    end: int
    kind: int
    score: float


class EnglishNames:
    """The English model. Its findings lie in stretches without Han characters."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._why = _why(session)

    def find(self, text: str) -> tuple[Finding, ...]:
        """The findings in ``text``, in order, not overlapping."""
        return tuple(
            _finding(span, offset, ENGLISH_KINDS, self._why)
            for offset, stretch in _stretches_without_han(text)
            for span in self._spans(stretch)
        )

    def _spans(self, text: str) -> Iterator[_Span]:
        words = words_of(text)
        if words is None:
            return
        starts, ends = words.spans[:, 0], words.spans[:, 1]
        scores = np.concatenate(
            [self._scores(words.features, words.windows, at) for at in range(0, len(starts), _CHUNK)]
        )
        found = [
            _Span(int(starts[a]), int(ends[b]), kind, score)
            for a, b, kind, score in _runs(scores, ENGLISH_LEAST_SCORES)
        ]
        trimmed = (_trimmed(text, span) for span in _rejoined(text, found))
        yield from (span for span in trimmed if _may_be_a_name(text, span))

    def _scores(
        self, features: Int64[ndarray, "n 7"], windows: Int64[ndarray, "n 9"], at: int
    ) -> Float32[ndarray, "c tags"]:
        first = max(0, at - NEIGHBOURS)
        some = windows[at : at + _CHUNK]
        near = {
            "features": features[first : at + _CHUNK + NEIGHBOURS],
            "windows": np.where(some > 0, some - first, 0),
        }
        scores: Float32[ndarray, "c tags"] = self._session.run(None, near)[0]
        return scores


class ChineseNames:
    """The Chinese model. It looks at Han characters and what stands within :data:`REACH` characters of one."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._why = _why(session)
        about = session.get_modelmeta().custom_metadata_map
        self._numbers = np.ones(0x10000, np.int64)
        self._numbers[[ord(char) for char in about["characters"]]] = np.arange(2, 2 + len(about["characters"]))
        self._numbers[0] = 1
        aliases = about["aliases"]
        self._numbers[[ord(char) for char in aliases[::2]]] = self._numbers[[ord(char) for char in aliases[1::2]]]

    def find(self, text: str) -> tuple[Finding, ...]:
        """The findings in ``text``, in order, not overlapping."""
        if _NOT_HAN.fullmatch(text):
            return ()
        joined = _whole_addresses(text, _joined(_whole_words(text, self._spans(text))))
        return tuple(_finding(span, 0, CHINESE_KINDS, self._why) for span in joined)

    def _spans(self, text: str) -> Iterator[_Span]:
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        numbers = self._numbers[np.where(codes < 0x10000, codes, 0)]
        near = _near_han(codes)
        scores = np.zeros((len(codes), 1 + 2 * len(CHINESE_KINDS)), np.float32)
        scores[:, 0] = 1.0
        for start, end in _regions(near):
            for at in range(start, end, _CHUNK):
                first, last = max(start, at - REACH), min(end, at + _CHUNK + REACH)
                scores[at : min(end, at + _CHUNK)] = self._scores(numbers[None, first:last])[
                    at - first : at - first + _CHUNK
                ]
        for first, last, kind, score in _runs(scores, CHINESE_LEAST_SCORES):
            yield _Span(first, last + 1, kind, score)

    def _scores(self, numbers: Int64[ndarray, "1 n"]) -> Float32[ndarray, "n tags"]:
        before, after, both = pairs_and_triples(numbers)
        inputs = {"characters": numbers, "before": before, "after": after, "both": both}
        scores: Float32[ndarray, "n tags"] = self._session.run(None, inputs)[0][0]
        return scores


class NamesModel:
    """Both models as one detector."""

    def __init__(self, english: EnglishNames, chinese: ChineseNames) -> None:
        self._english, self._chinese = english, chinese

    def find(self, text: str) -> tuple[Finding, ...]:
        """The findings in ``text``: the English ones in order, then the Chinese ones in order."""
        return (*self._english.find(text), *self._chinese.find(text))


@cache
def names_model() -> NamesModel | None:
    """The models that ship with the package, loaded once; ``None`` where the extra ``deid`` is not installed."""
    if find_spec("onnxruntime") is None:
        return None
    return NamesModel(EnglishNames(load_session("en-names-1")), ChineseNames(load_session("zh-names-1")))


def load_session(name: str) -> Session:
    """A session of one thread over a model file of the package, such as ``en-names-1``."""
    import onnxruntime  # noqa: PLC0415 - only who asks for a model pays for it

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    content = resources.files("mibao.deid").joinpath("models", f"{name}.onnx").read_bytes()
    session: Session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session


def _why(session: Session) -> str:
    return f"model:{session.get_modelmeta().custom_metadata_map['name']}"


def _finding(span: _Span, offset: int, kinds: tuple[EntityType, ...], why: str) -> Finding:
    entity = EntityType.ADDRESS if span.kind >= len(kinds) else kinds[span.kind]
    return Finding(type=entity, start=offset + span.start, end=offset + span.end, score=span.score, why=why)


def _runs(scores: Float32[ndarray, "n tags"], least_scores: tuple[float, ...]) -> Iterator[tuple[int, int, int, float]]:
    """First place, last place, kind and score of every run that a beginning tag opens and inside tags continue."""
    tags = scores.argmax(axis=1)
    named = np.flatnonzero(tags)
    if not len(named):
        return
    previous = np.concatenate([[-2], named[:-1]])
    kinds = (tags[named] - 1) // 2
    inside = (tags[named] % 2 == 0) & (named == previous + 1) & (kinds == np.concatenate([[-1], kinds[:-1]]))
    firsts = np.flatnonzero(~inside)
    lengths = np.diff(np.concatenate([firsts, [len(named)]]))
    shares = scores[named, 1 + 2 * kinds] + scores[named, 2 + 2 * kinds]
    means = np.floor(np.add.reduceat(shares, firsts) / lengths * 100) / 100
    for first, length, score in zip(firsts.tolist(), lengths.tolist(), means.tolist(), strict=True):
        if score >= least_scores[kinds[first]]:
            yield int(named[first]), int(named[first + length - 1]), int(kinds[first]), min(score, 0.99)


def _rejoined(text: str, spans: Iterable[_Span]) -> Iterator[_Span]:
    """Names that an apostrophe or a hyphen inside a word cut in two, whole: O'Neill, Smith-Jones."""
    held: _Span | None = None
    for span in spans:
        if held and text[held.end : span.start] in ("", "-", "'", "’") and held.kind == span.kind:
            held = _Span(held.start, span.end, held.kind, max(held.score, span.score))
            continue
        if held:
            yield held
        held = span
    if held:
        yield held


def _trimmed(text: str, span: _Span) -> _Span:
    """Without signs before its first letter or digit, and without a comma or a dash at its end."""
    start, end = span.start, span.end
    while start < end and not text[start].isalnum():
        start += 1
    while end > start and text[end - 1] in ",;:-/\"' \n\t([":
        end -= 1
    return replace(span, start=start, end=end)


def _may_be_a_name(text: str, span: _Span) -> bool:
    """Whether ``span`` is more than a sign, and neither part of an identifier nor a doubtful word in small letters."""
    name = text[span.start : span.end]
    if not _LETTER.search(name):  # a bare number is at most a postcode
        return (
            ENGLISH_KINDS[span.kind] is EntityType.ADDRESS and len(name) >= 4 and span.score >= LEAST_SCORE_OF_NUMBERS
        )
    before, after = text[max(0, span.start - 1) : span.start], text[span.end : span.end + 2]
    if before == "_" or after[:1] in ("_", "("):
        return False
    if not name.islower():
        return True
    goes_on = after[:1] == "." and after[1:].isalnum()
    code = before in _CODE_BEFORE or after[:1] in _CODE_AFTER or goes_on
    return span.score >= LEAST_SCORE_OF_SMALL_LETTERS and not code


def _stretches_without_han(text: str) -> Iterator[tuple[int, str]]:
    if text.isascii():
        yield 0, text
        return
    for match in _NOT_HAN.finditer(text):
        start = match.start() + (REACH if match.start() else 0)
        end = match.end() - (REACH if match.end() < len(text) else 0)
        if start < end and _LETTER.search(text, start, end):
            yield start, text[start:end]


def _near_han(codes: ndarray) -> ndarray:
    han = ((codes >= 0x3400) & (codes <= 0x9FFF)) | ((codes >= 0xF900) & (codes <= 0xFAFF))
    before = np.concatenate([np.zeros(REACH + 1, np.int64), np.cumsum(han), np.full(REACH, np.count_nonzero(han))])
    near: ndarray = before[2 * REACH + 1 :] > before[: len(codes)]
    return near


def _regions(near: ndarray) -> Iterator[tuple[int, int]]:
    if near.all():
        yield 0, len(near)
        return
    changes = np.flatnonzero(np.diff(np.concatenate([[False], near, [False]]).astype(np.int8)))
    for start, end in changes.reshape(-1, 2):
        yield int(start), int(end)


def _whole_words(text: str, spans: Iterable[_Span]) -> Iterator[_Span]:
    """Names in Latin letters up to both ends of their words."""
    reached = 0
    for span in spans:
        before = _LATIN_BEFORE.search(text, max(reached, span.start - REACH), span.start)
        after = _LATIN_AFTER.match(text, span.end)
        start = before.start() if before and _LATIN_AFTER.match(text, span.start) else span.start
        end = after.end() if after and _LATIN_BEFORE.search(text, span.start, span.end) else span.end
        if span.end > reached:
            whole = replace(span, start=max(start, reached), end=end)
            reached = whole.end
            yield whole


def _joined(spans: Iterator[_Span]) -> Iterator[_Span]:
    """Places that follow one another without a gap, as one place."""
    place = CHINESE_KINDS.index(EntityType.LOCATION)
    held: _Span | None = None
    for span in spans:
        if held and held.kind == span.kind == place and held.end == span.start:
            held = _Span(held.start, span.end, place, min(held.score, span.score))
            continue
        if held:
            yield held
        held = span
    if held:
        yield held


def _whole_addresses(text: str, spans: Iterator[_Span]) -> Iterator[_Span]:
    """Places up to the end of their house and room; one that has a house is an address."""
    place, address = CHINESE_KINDS.index(EntityType.LOCATION), len(CHINESE_KINDS)
    reached = 0
    for span in spans:
        if span.end <= reached:
            continue
        whole = span if span.start >= reached else replace(span, start=reached)
        if span.kind == place:
            if more := _ADDRESS_GOES_ON.match(text, span.end):
                whole = replace(whole, end=more.end())
            if _HOUSE.search(text, whole.start, whole.end):
                whole = replace(whole, kind=address)
            reached = whole.end
        yield whole
