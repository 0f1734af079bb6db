"""Every text of a request, wherever it stands: each is looked at, and what is found in it is replaced.

The walk knows no API by heart. It visits all strings, keys and numbers; the few that are no text are named here with
the grammar that they must have, and what does not have it is text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from enum import Enum
from typing import Any

import msgspec

from mibao.deid import Finding
from mibao.deid.policies import Fake
from mibao.serving.faults import Withheld
from mibao.serving.findings_cache import FindingsCache
from mibao.serving.placeholders import Names
from mibao.types import AnyType, EntityType

MAX_DEPTH = 64
MAX_STRINGS = 100_000
_WORDS = frozenset(
    {
        "type",
        "role",
        "object",
        "detail",
        "service_tier",
        "reasoning_effort",
        "effort",
        "verbosity",
        "truncation",
        "status",
        "encoding_format",
        "modalities",
        "voice",
        "include",
        "tool_choice",
        "function_call",
        "mode",
        "format",
        "phase",
        "media_type",
        "prompt_cache_retention",
        "ttl",
        "stop_reason",
        "finish_reason",
    }
)
_WORD = re.compile(r"[a-z][a-z_./+-]{0,63}")
_IDENTIFIERS = frozenset(
    {"id", "call_id", "tool_call_id", "tool_use_id", "item_id", "name", "function", "server_label"}
)
_IDENTIFIER = re.compile(r"[A-Za-z0-9_.:-]{1,256}")
_USERS = frozenset({"user", "safety_identifier", "prompt_cache_key", "user_id"})  # people, whatever they look like
_OPAQUE = frozenset({"signature", "encrypted_content", "encrypted_index", "data"})  # by the model service, for itself
_OPAQUE_IN = frozenset(
    {
        "thinking",
        "redacted_thinking",
        "reasoning",
        "compaction",
        "web_search_result",
        "web_search_result_location",
    }
)
_OPAQUE_TEXT = re.compile(r"[A-Za-z0-9+/=_-]{64,}")
_JSON_TEXTS = frozenset({"arguments"})
_ATTACHMENTS = frozenset(
    {
        "image_url",
        "input_image",
        "image",
        "input_audio",
        "audio",
        "file",
        "input_file",
        "document",
        "computer_screenshot",
    }
)
_BYTES = frozenset({"url", "image_url", "data", "file_data", "file_url", "file_id"})
_PLAIN_KEY = re.compile(r"(?=(?:[^0-9]*[0-9]){0,4}[^0-9]*\Z)[A-Za-z_$][A-Za-z0-9_$-]*")  # at most four digits
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_TOKENS = frozenset({"input", "prompt"})
_NUMBERS = frozenset(
    {
        "seed",
        "max_tokens",
        "max_completion_tokens",
        "max_output_tokens",
        "budget_tokens",
        "created",
        "created_at",
        "n",
    }
)
_LEAST_DIGITS = 7


class Kind(Enum):
    """What a string is."""

    TEXT = "text"
    IDENTIFIER = "identifier"  # letters, digits, - and _ only: a placeholder loses its brackets here
    PERSON = "person"  # replaced whatever it says


Visit = Callable[[str, Kind], str]


class RequestMasker:
    """Replaces what is found in a request, under one conversation's names.

    Args:
        names: Of the conversation.
        cache: What finds.
        attachments: Whether images, audio and files may pass; nobody looks into them.
    """

    def __init__(self, names: Names, cache: FindingsCache, *, attachments: bool = False) -> None:
        self._names, self._cache, self._attachments = names, cache, attachments
        self._found: dict[str, tuple[Finding, ...]] = {}
        self._values: list[str] = []
        self._types: dict[str, AnyType] = {}
        self._taken = ""  # all texts of the request, where surrogates may stand in none
        self.counts: Counter[str] = Counter()
        self.texts: list[str] = []  # as they are sent

    def mask(self, body: dict[str, Any]) -> dict[str, Any]:
        """``body`` with every finding replaced.

        Raises:
            Withheld: something that cannot be looked into, or lies too deep.
        """
        strings: dict[str, None] = {}

        def collect(text: str, kind: Kind) -> str:
            strings[text] = None
            if len(strings) > MAX_STRINGS:
                raise Withheld(f"expected at most {MAX_STRINGS} texts", status=400, code="too_many_texts")
            return text

        self._walk(body, collect, field="", inside="", depth=0)
        self._found = dict(zip(strings, self._cache.of(list(strings)), strict=True))
        self._learn()
        if self._names.policy.uses(Fake):
            self._taken = "\0".join(strings)
            self._names.surrogates.leave(self._taken)
        masked = self._walk(body, self._replace, field="", inside="", depth=0)
        assert isinstance(masked, dict)  # noqa: S101 - a walk keeps the shape
        return masked

    def _learn(self) -> None:
        """Values that were found anywhere are replaced everywhere, also where nothing around gives them away."""
        for text, findings in self._found.items():
            for found in findings:
                value = text[found.start : found.end]
                if found.type is not EntityType.PLACEHOLDER and (
                    len(value) >= 6 or (not value.isascii() and len(value) >= 3)
                ):
                    self._types.setdefault(value, found.type)
        self._values = sorted(self._types, key=len, reverse=True)

    def _known(self, text: str, spans: list[tuple[int, int, AnyType, float]]) -> None:
        """Add to ``spans`` where values stand that were found elsewhere, the longest first."""
        taken = [(start, end) for start, end, _, _ in spans]
        for value in self._values:
            start = text.find(value)
            while start >= 0:
                end = start + len(value)
                if _stands_alone(text, start, end) and all(end <= first or start >= last for first, last in taken):
                    taken.append((start, end))
                    spans.append((start, end, self._types[value], 1.0))
                start = text.find(value, end)

    def _replace(self, text: str, kind: Kind) -> str:
        if not text:
            return text
        if kind is Kind.PERSON:
            self.counts[EntityType.USERNAME.value] += 1
            return self._names.pseudonym(EntityType.USERNAME, text)
        spans = [(found.start, found.end, found.type, found.score) for found in self._found.get(text, ())]
        self._known(text, spans)
        pieces, kept_from = [], 0
        for start, end, entity, score in sorted(spans, key=lambda span: span[0]):
            written = text[start:end]
            if kind is Kind.IDENTIFIER:
                after = self._names.pseudonym(entity, written)
            elif score < self._names.policy.least_score:
                continue
            else:
                after = self._names.changed(entity, written, self._taken)
            if after != written and entity is not EntityType.PLACEHOLDER:
                self.counts[entity.value] += 1
            pieces += [text[kept_from:start], after]
            kept_from = end
        masked = "".join([*pieces, text[kept_from:]])
        self.texts.append(masked)
        return masked

    def _walk(self, value: Any, visit: Visit, *, field: str, inside: str, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise Withheld(f"expected at most {MAX_DEPTH} levels", status=400, code="too_deep")
        if isinstance(value, str):
            return self._string(value, visit, field=field)
        if isinstance(value, dict):
            return self._object(value, visit, inside=field, depth=depth)
        if isinstance(value, list):
            if (
                depth == 1
                and field in _TOKENS
                and any(isinstance(each, int | list) and not isinstance(each, bool) for each in value)
            ):
                raise Withheld(
                    "expected text: nobody can look into lists of tokens", status=400, code="tokens_not_supported"
                )
            return [self._walk(each, visit, field=field, inside=inside, depth=depth + 1) for each in value]
        if isinstance(value, int | float) and not isinstance(value, bool):
            return _number(value, visit, field=field)
        return value

    def _object(self, value: dict[str, Any], visit: Visit, *, inside: str, depth: int) -> dict[str, Any]:
        kind = value.get("type")
        if isinstance(kind, str) and kind in _ATTACHMENTS:
            if not self._attachments:
                raise Withheld(
                    'images, audio and files are refused by policy: nobody looks into them (attachments = "pass")',
                    status=400,
                    code="attachment_refused",
                )
            inside = "attachment"
        speaker = "role" in value and value.get("role") not in ("tool", "function")
        walked: dict[str, Any] = {}
        for key, each in value.items():
            if isinstance(each, str) and ((key == "name" and speaker) or key in _USERS):
                walked[key] = visit(each, Kind.PERSON)
                continue
            if isinstance(each, str) and (
                (inside == "attachment" and key in _BYTES)
                or (kind in _OPAQUE_IN and key in _OPAQUE and _OPAQUE_TEXT.fullmatch(each))
            ):
                walked[key] = each
                continue
            name = key if _PLAIN_KEY.fullmatch(key) else visit(key, Kind.TEXT)
            field = inside if inside == "attachment" and isinstance(each, dict) else key
            walked[name] = self._walk(each, visit, field=field, inside=inside, depth=depth + 1)
        return walked

    def _string(self, text: str, visit: Visit, *, field: str) -> str:
        plain = _PLAIN_KEY.fullmatch(text) is not None
        if (field in _WORDS and _WORD.fullmatch(text)) or (plain and (field == "required" or field in _IDENTIFIERS)):
            return text
        if field in _IDENTIFIERS and _IDENTIFIER.fullmatch(text):
            return visit(text, Kind.IDENTIFIER)
        if field in _JSON_TEXTS or (text.lstrip()[:1] in ("{", "[") and "\\" in text):
            return self._json(text, visit)
        return self._text(text, visit)

    def _json(self, text: str, visit: Visit) -> str:
        """JSON in a text: its strings may be escaped, so they are looked at as they read."""
        try:
            value = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            return self._text(text, visit)
        if not isinstance(value, dict | list):
            return self._text(text, visit)
        walked = self._walk(value, visit, field="", inside="json", depth=1)
        return visit(text, Kind.TEXT) if walked == value else msgspec.json.encode(walked).decode()

    @staticmethod
    def _text(text: str, visit: Visit) -> str:
        """A text; where something in it is written in escapes, also as it reads, and sent so if that shows anything."""
        if "\\u" in text:
            halves = _ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), text)
            read = halves.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            if (masked := visit(read, Kind.TEXT)) != read:
                return masked
        return visit(text, Kind.TEXT)


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Whether no ASCII letter or digit stands on either side."""
    before, after = text[start - 1 : start], text[end : end + 1]
    return not (before.isascii() and before.isalnum()) and not (after.isascii() and after.isalnum())


def _number(value: int | float, visit: Visit, *, field: str) -> Any:
    """A number that may be somebody's: replaced by a text where it is found to be."""
    if field in _NUMBERS and abs(value) < 1 << 31:
        return value
    written = repr(value)
    if sum(map(str.isdigit, written)) < _LEAST_DIGITS:
        return value
    after = visit(written, Kind.TEXT)
    return value if after == written else after
