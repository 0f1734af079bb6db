"""Presidio's Python calls over our engine, for code that was written against it; Presidio need not be installed.

    >>> results = AnalyzerEngine().analyze(text="write to a@example.com", language="en")
    >>> AnonymizerEngine().anonymize("write to a@example.com", results).text
    'write to <EMAIL_ADDRESS>'

Names, arguments and results are Presidio's. Different on purpose: findings never overlap; where results of others do,
all of them is changed, never a part left; ``hash`` is keyed and gives equal values equal hashes; ``encrypt`` is
authenticated (AES-256-GCM), so Presidio's own ciphertexts are not opened; regular expressions of a caller are those
that :mod:`mibao.deid.custom_patterns` takes, so none of them can be slow.

Source: https://microsoft.github.io/presidio/api/
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mibao.crypto.aead import NONCE_BYTES, TAG_BYTES, AesGcm
from mibao.crypto.kdf import derive, domain_tag, keyed_hash
from mibao.deid.custom import CustomTypes, parse_rows
from mibao.deid.detection import detect
from mibao.deid.findings import Detector
from mibao.deid.pseudonyms import utf8
from mibao.errors import InputError, IntegrityError, KeyMismatch
from mibao.types import EntityType

LANGUAGES = ("en", "zh")
_NOT_ASKED_FOR = (EntityType.PLACEHOLDER, EntityType.CUSTOM)
_DEFAULT = "DEFAULT"


@dataclass(slots=True)
class RecognizerResult:
    """One finding, in Presidio's words."""

    entity_type: str
    start: int
    end: int
    score: float
    analysis_explanation: dict[str, object] | None = None
    recognition_metadata: dict[str, object] | None = None

    def to_dict(self) -> dict[str, object]:
        """As Presidio's server writes it."""
        return {name: value for name, value in asdict(self).items() if name != "recognition_metadata"}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RecognizerResult:
        """The result that ``data`` describes.

        Raises:
            InputError: a field is missing or of another type.
        """
        match data:
            case {"entity_type": str(kind), "start": int(start), "end": int(end)}:
                score = data.get("score", 1.0)
                if isinstance(score, int | float):
                    return cls(kind, start, end, float(score))
        raise InputError("result: expected entity_type, start, end and score")


@dataclass(slots=True)
class OperatorConfig:
    """What is done to a type: an operator's name and its parameters."""

    operator_name: str
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class OperatorResult:
    """What was done to one finding; offsets are those of the new text."""

    start: int
    end: int
    entity_type: str
    text: str | None = field(default=None, repr=False)
    operator: str | None = None


@dataclass(slots=True)
class EngineResult:
    """A changed text and what was done to it, from its end to its beginning."""

    text: str = field(repr=False)
    items: list[OperatorResult]

    def to_json(self) -> str:
        """As Presidio's server writes it."""
        return json.dumps(asdict(self), ensure_ascii=False)


class AnalyzerEngine:
    """Finds personal data. English and Chinese are always both looked for, whichever is named.

    Args:
        default_score_threshold: Findings below it are not returned.
        types: Types of the user's own; ``detectors``: others to ask as well.
    """

    def __init__(
        self,
        *,
        default_score_threshold: float = 0.0,
        supported_languages: Sequence[str] = LANGUAGES,
        types: CustomTypes | None = None,
        detectors: Sequence[Detector] = (),
    ) -> None:
        self.default_score_threshold = default_score_threshold
        self.supported_languages = tuple(supported_languages)
        self._types, self._detectors = types, detectors

    def get_supported_entities(self, language: str | None = None) -> list[str]:
        """The types that can be asked for. Raises ``InputError`` for another language."""
        self._check_language(language)
        own = self._types.names if self._types else frozenset[str]()
        return sorted({entity.value for entity in EntityType if entity not in _NOT_ASKED_FOR} | own)

    def analyze(  # noqa: PLR0917 - Presidio's order
        self,
        text: str,
        language: str = "en",
        entities: Sequence[str] | None = None,
        correlation_id: str | None = None,
        score_threshold: float | None = None,
        return_decision_process: bool = False,
        ad_hoc_recognizers: Sequence[Mapping[str, Any]] | None = None,
        allow_list: Sequence[str] | None = None,
    ) -> list[RecognizerResult]:
        """The personal data in ``text``: results in order, not overlapping.

        Args:
            entities: Only these types; all by default.
            correlation_id: Not used.
            return_decision_process: Whether each result says why it was found.
            ad_hoc_recognizers: Further types for this call, as Presidio writes them: ``supported_entity``, ``patterns``
                with ``regex`` and ``score``, ``deny_list``, ``context``.
            allow_list: Values that are not returned, exactly as they stand.

        Raises:
            InputError: the language or a type is none that is looked for, or a pattern cannot be taken.
        """
        del correlation_id
        self._check_language(language)
        ad_hoc = _types_of(ad_hoc_recognizers) if ad_hoc_recognizers else None
        types = _both(self._types, ad_hoc)
        known = {*self.get_supported_entities(), *(ad_hoc.names if ad_hoc else ())}
        if entities and (unknown := sorted({*entities} - known)):
            raise InputError(
                f"analyze: no such entities: {', '.join(unknown)[:200]} (get_supported_entities lists them)"
            )
        least = self.default_score_threshold if score_threshold is None else score_threshold
        allowed, wanted = frozenset(allow_list or ()), frozenset(entities or known)
        return [
            RecognizerResult(
                found.type.value, found.start, found.end, found.score,
                {"recognizer": "mibao", "original_score": found.score, "score": found.score,
                 "textual_explanation": found.why} if return_decision_process else None,
                {"recognizer_name": "mibao"},
            )
            for found in detect(text, detectors=self._detectors, types=types)
            if found.type.value in wanted and found.score >= least and text[found.start : found.end] not in allowed
        ]  # fmt: skip

    def _check_language(self, language: str | None) -> None:
        if language is not None and language not in self.supported_languages:
            raise InputError(f"analyze: expected a language out of {', '.join(self.supported_languages)}")


class AnonymizerEngine:
    """Changes what was found.

    Args:
        key: At least 16 bytes, for ``hash`` without a salt of its own.
    """

    def __init__(self, *, key: bytes | None = None) -> None:
        self._key = key

    def anonymize(
        self,
        text: str,
        analyzer_results: Sequence[RecognizerResult],
        operators: Mapping[str, OperatorConfig] | None = None,
    ) -> EngineResult:
        """``text`` with every result changed: by the operator of its type, else by that of ``DEFAULT``, else replaced.

        Operators: ``replace`` (``new_value``), ``redact``, ``mask`` (``masking_char``, ``chars_to_mask``,
        ``from_end``), ``hash`` (``salt``), ``encrypt`` (``key``), ``keep``, ``custom`` (``lambda``).

        Raises:
            InputError: a result does not lie within the text, or an operator or a parameter of it is none.
        """
        operators = operators or {}
        spans = _merged(analyzer_results, text, across_spaces=True)
        return _changed_text(text, spans, lambda kind, written: self._changed(kind, written, operators))

    def _changed(  # noqa: PLR0911
        self, kind: str, written: str, operators: Mapping[str, OperatorConfig]
    ) -> tuple[str, str]:
        config = operators.get(kind) or operators.get(_DEFAULT) or OperatorConfig("replace")
        name, given = config.operator_name, _Params(config)
        match name:
            case "replace":
                return name, given.text("new_value", f"<{kind}>")
            case "redact":
                return name, ""
            case "keep":
                return name, written
            case "mask":
                return name, _masked(written, given)
            case "hash":
                return name, self._hashed(kind, written, given)
            case "encrypt":
                return name, _encrypted(written, _secret(given.text("key", ""), "encrypt: key"))
            case "custom" if callable(given.raw.get("lambda")):
                return name, str(given.raw["lambda"](written))
        raise InputError(f"anonymize: no such operator: {name[:40]!r}")

    def _hashed(self, kind: str, written: str, given: _Params) -> str:
        if (named := given.text("hash_type", "sha256")) != "sha256":
            raise InputError(f"hash: expected hash_type sha256, got {named[:20]!r}")
        salt = given.text("salt", "")
        if not salt and self._key is None:
            raise InputError("hash: expected a salt, or AnonymizerEngine(key=...)")
        key = _secret(salt, "hash: salt") if salt else derive(self._key or b"", purpose="deid/presidio-hash")
        message = domain_tag("deid/presidio-hash", utf8(kind), utf8(written))
        return str(keyed_hash(key, purpose="deid/presidio-hash", message=message))


class DeanonymizeEngine:
    """Undoes ``encrypt``."""

    def deanonymize(
        self,
        text: str,
        entities: Sequence[OperatorResult | RecognizerResult],
        operators: Mapping[str, OperatorConfig],
    ) -> EngineResult:
        """``text`` with each of ``entities`` decrypted by the key of its type's operator, else of ``DEFAULT``.

        Raises:
            InputError: an entity does not lie within the text, or there is no operator ``decrypt`` for it.
            KeyMismatch: what stands there was not encrypted under this key, or was altered.
        """

        def opened(kind: str, written: str) -> tuple[str, str]:
            config = operators.get(kind) or operators.get(_DEFAULT)
            if config is None or config.operator_name != "decrypt":
                raise InputError("deanonymize: expected the operator decrypt, with a key")
            return "decrypt", _decrypted(written, _secret(_Params(config).text("key", ""), "decrypt: key"))

        results = [RecognizerResult(each.entity_type, each.start, each.end, 1.0) for each in entities]
        return _changed_text(text, _merged(results, text, across_spaces=False), opened)


@dataclass(frozen=True, slots=True)
class _Params:
    """An operator's parameters, each of the type that it must have."""

    config: OperatorConfig

    @property
    def raw(self) -> Mapping[str, Any]:
        return self.config.params or {}

    def text(self, name: str, otherwise: str) -> str:
        value = self.raw.get(name)
        if value is None:
            return otherwise
        if not isinstance(value, str):
            raise InputError(f"{self.config.operator_name}: expected text for {name}, got {type(value).__name__}")
        return value

    def number(self, name: str, otherwise: int) -> int:
        value = self.raw.get(name, otherwise)
        if not isinstance(value, int) or value < 0:
            raise InputError(f"{self.config.operator_name}: expected a number from 0 on for {name}")
        return value


def _types_of(recognizers: Sequence[Mapping[str, Any]]) -> CustomTypes:
    """Presidio's description of recognisers by pattern, as types of ours."""
    rows: list[dict[str, Any]] = []
    for number, each in enumerate(recognizers, 1):
        if not isinstance(each, Mapping) or not isinstance(each.get("supported_entity"), str):
            raise InputError(f"ad hoc recognizer {number}: expected supported_entity, and patterns or deny_list")
        common = {"name": each["supported_entity"], "context": each.get("context") or [], "ignore_case": True}
        for pattern in each.get("patterns") or []:
            if not isinstance(pattern, Mapping) or not isinstance(pattern.get("regex"), str):
                raise InputError(f"ad hoc recognizer {number}: expected patterns with regex and score")
            regex = pattern["regex"].removeprefix("\\b").removesuffix("\\b")
            rows.append({**common, "pattern": regex, "score": pattern.get("score", 0.5)})
        if each.get("deny_list"):
            rows.append({**common, "deny": each["deny_list"]})
    return parse_rows(rows, "ad hoc recognizers")


def _both(one: CustomTypes | None, other: CustomTypes | None) -> CustomTypes | None:
    if one is None or other is None:
        return one or other
    return one | other


def _merged(results: Sequence[RecognizerResult], text: str, *, across_spaces: bool) -> list[tuple[str, int, int]]:
    """Type, start and end of what is to be changed: results that overlap become one, of the surer's type.

    So do, ``across_spaces``, two of one type with nothing but spaces between them, as Presidio has it.
    """
    spans: list[RecognizerResult] = []
    for each in sorted(results, key=lambda each: (each.start, -each.end)):
        if not 0 <= each.start <= each.end <= len(text):
            raise InputError(f"result: expected a place within the text, got {each.start} to {each.end} of {len(text)}")
        last = spans[-1] if spans else None
        if last and (each.start < last.end or (across_spaces and _is_continued(last, each, text))):
            surer = max(last, each, key=lambda one: one.score)
            spans[-1] = RecognizerResult(surer.entity_type, last.start, max(last.end, each.end), surer.score)
        else:
            spans.append(each)
    return [(each.entity_type, each.start, each.end) for each in spans]


def _is_continued(last: RecognizerResult, each: RecognizerResult, text: str) -> bool:
    between = text[last.end : each.start]
    return last.entity_type == each.entity_type and bool(between) and not between.strip(" ")


def _changed_text(
    text: str, spans: Sequence[tuple[str, int, int]], change: Callable[[str, str], tuple[str, str]]
) -> EngineResult:
    pieces: list[str] = []
    items: list[OperatorResult] = []
    kept_from = length = 0
    for kind, start, end in spans:
        operator, after = change(kind, text[start:end])
        pieces += [text[kept_from:start], after]
        length += start - kept_from
        items.append(OperatorResult(length, length + len(after), kind, after, operator))
        length, kept_from = length + len(after), end
    return EngineResult("".join([*pieces, text[kept_from:]]), items[::-1])


def _masked(written: str, given: _Params) -> str:
    sign = given.text("masking_char", "*")
    if len(sign) != 1:
        raise InputError("mask: expected one character for masking_char")
    count = min(given.number("chars_to_mask", len(written)), len(written))
    if given.raw.get("from_end", False):
        return written[: len(written) - count] + sign * count
    return sign * count + written[count:]


def _secret(text: str, what: str) -> bytes:
    if len(text.encode("utf-8", "surrogatepass")) < 16:
        raise InputError(f"{what}: expected at least 16 bytes")
    return derive(text.encode("utf-8", "surrogatepass"), purpose="deid/presidio-secret")


def _encrypted(written: str, key: bytes) -> str:
    plain = utf8(written)
    nonce = keyed_hash(key, purpose="deid/presidio-nonce", message=plain).value[:NONCE_BYTES]
    sealed = nonce + AesGcm(key).seal(nonce, plain, domain_tag("deid/presidio-encrypt"))
    return base64.urlsafe_b64encode(sealed).decode()


def _decrypted(written: str, key: bytes) -> str:
    try:
        data = base64.b64decode(written.encode(), altchars=b"-_", validate=True)
        if len(data) < NONCE_BYTES + TAG_BYTES:
            raise KeyMismatch("decrypt: what stands there is no ciphertext of this form")
        plain = AesGcm(key).open(data[:NONCE_BYTES], data[NONCE_BYTES:], domain_tag("deid/presidio-encrypt"))
    except (IntegrityError, binascii.Error, UnicodeEncodeError) as error:
        raise KeyMismatch("decrypt: what stands there was not encrypted under this key, or was altered") from error
    return plain.decode("utf-8", "surrogatepass")
