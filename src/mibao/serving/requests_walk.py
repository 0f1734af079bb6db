"""Every text of a request, wherever it stands: each is looked at, and what is found in it is replaced.

The walk knows no API by heart. It visits all strings, keys and numbers; the few that are no text are named here with
the grammar that they must have, and what does not have it is text.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Callable
from enum import Enum, auto
from typing import Any
from urllib.parse import unquote

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
        "audio_url",
        "video",
        "video_url",
        "input_video",
        "file",
        "input_file",
        "document",
        "container_upload",
        "computer_screenshot",
        "base64",
    }
)
_ATTACHED = re.compile(r"(?!server_)[a-z_]+_url|file_id|file_data|file_uri|input_audio|inline_data")  # by its key
_DATA = re.compile(r"\s*data:[^,]{0,256};\s*base64\s*,", re.IGNORECASE)
_BYTES = frozenset({"url", "data", "file_data", "file_uri", "file_id"})
_READABLE = frozenset({"text", "content"})  # sources of documents that are no files
_FREE = frozenset({"arguments", "metadata"})
_SCHEMAS = frozenset({"parameters", "schema", "input_schema", "output_schema"})
_IN_SCHEMAS = frozenset({"default", "const", "enum", "example", "examples"})
_QUOTED = frozenset({"annotations", "citations", "results"})
_PLAIN_KEY = re.compile(r"(?=(?:[^0-9]*[0-9]){0,4}[^0-9]*\Z)[A-Za-z_$][A-Za-z0-9_$-]*")  # at most four digits
_PROTOCOL = re.compile(  # words of the APIs themselves, which stay even where somebody's password says the same
    "messages?|role|contents?|system|developer|assistant|user|tools?|functions?|arguments|parameters|properties|required"
    "|description|object|string|number|integer|boolean|array|schema|additionalProperties|input_schema|json_schema"
    "|json_object|response_format|tool_choice|tool_calls|tool_use|tool_result|function_call|function_call_output"
    "|call_id|tool_call_id|tool_use_id|input_text|output_text|output_config|source|stream|stream_options|include_usage"
    "|temperature|max_tokens|max_completion_tokens|max_output_tokens|metadata|instructions|prompt|suffix|reasoning"
    "|reasoning_effort|service_tier|thinking|signature|budget_tokens|cache_control|ephemeral|format|strict|summary"
    "|annotations|citations|refusal|status|completed|parallel_tool_calls|stop_sequences|logprobs|top_logprobs"
    "|logit_bias|presence_penalty|frequency_penalty|safety_identifier|prompt_cache_key|encoding_format|dimensions"
    "|default|examples?|pattern|minimum|maximum|minItems|maxItems|minLength|maxLength"
)
_ESCAPE = re.compile(r"\\u\{([0-9a-fA-F]{1,6})\}|\\u([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})")
_UNESCAPED_TIMES = 3
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
    NAME = "name"  # the API's or a program's: only what was found elsewhere is replaced, without brackets
    IDENTIFIER = "identifier"  # letters, digits, - and _ only: a placeholder loses its brackets here
    PERSON = "person"  # replaced whatever it says


class Place(Enum):
    """Where in a request something stands."""

    API = auto()
    QUOTED = auto()  # what an answer cited: the files that it names are not sent along
    SCHEMA = auto()  # names are the program's, and nothing is an attachment
    FREE = auto()  # JSON of somebody's own: every string and key is text, and nothing is an attachment
    ATTACHMENT = auto()


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
        self._plain: set[str] = set()  # names in which nothing was found
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
            if kind is Kind.NAME:
                return text
            strings[text] = None
            if kind is Kind.TEXT:
                strings[_unescaped(text)] = None
            if len(strings) > MAX_STRINGS:
                raise Withheld(f"expected at most {MAX_STRINGS} texts", status=400, code="too_many_texts")
            return text

        self._walk(body, collect, field="", place=Place.API, depth=0)
        self._found = dict(zip(strings, self._cache.of(list(strings)), strict=True))
        self._learn()
        if self._names.policy.uses(Fake):
            self._taken = "\0".join(strings)
            self._names.surrogates.leave(self._taken)
        masked = self._walk(body, self._replace, field="", place=Place.API, depth=0)
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
        if kind is Kind.NAME:
            return self._renamed(text)
        masked, counts = self._masked(text, kind)
        if kind is Kind.TEXT and (read := _unescaped(text)) != text:
            as_read, counted = self._masked(read, kind)
            if as_read != read and self._shows(_unescaped(masked), as_read):
                masked, counts = as_read, counted
        self.counts += counts
        self.texts.append(masked)
        return masked

    def _shows(self, text: str, masked: str) -> bool:
        """Whether anything is left to be found in ``text``, unless it is what was ``masked``."""
        if text == masked:
            return False
        found = [each for each in self._cache.of([text])[0] if each.type is not EntityType.PLACEHOLDER]
        left = [(each.start, each.end, each.type, each.score) for each in found]
        self._known(text, left)
        return any(score >= self._names.policy.least_score for _, _, _, score in left)

    def _renamed(self, name: str) -> str:
        """A name of the API's or of a program's, without what was found elsewhere."""
        if name in self._plain or _PROTOCOL.fullmatch(name):
            return name
        masked, counts = self._masked(name, Kind.NAME)
        if masked == name:
            self._plain.add(name)
            return name
        self.counts += counts
        self.texts.append(masked)
        return masked

    def _masked(self, text: str, kind: Kind) -> tuple[str, Counter[str]]:
        """``text`` with what was found in it replaced, and how much of what that was."""
        spans = [(found.start, found.end, found.type, found.score) for found in self._found.get(text, ())]
        if kind is Kind.NAME:
            spans = []
        self._known(text, spans)
        counts: Counter[str] = Counter()
        pieces, kept_from = [], 0
        for start, end, entity, score in sorted(spans, key=lambda span: span[0]):
            written = text[start:end]
            if kind is Kind.IDENTIFIER:
                after = self._names.pseudonym(entity, written)
            elif score < self._names.policy.least_score:
                continue
            else:
                after = self._names.changed(entity, written, self._taken)
                if kind is Kind.NAME and after != written:
                    after = self._names.pseudonym(entity, written)
            if after != written and entity is not EntityType.PLACEHOLDER:
                counts[entity.value] += 1
            pieces += [text[kept_from:start], after]
            kept_from = end
        return "".join([*pieces, text[kept_from:]]), counts

    def _walk(self, value: Any, visit: Visit, *, field: str, place: Place, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise Withheld(f"expected at most {MAX_DEPTH} levels", status=400, code="too_deep")
        if isinstance(value, str):
            return self._string(value, visit, field=field, place=place)
        if isinstance(value, dict):
            return self._object(value, visit, place=place, depth=depth)
        if isinstance(value, list):
            if (
                depth == 1
                and field in _TOKENS
                and any(isinstance(each, int | list) and not isinstance(each, bool) for each in value)
            ):
                raise Withheld(
                    "expected text: nobody can look into lists of tokens", status=400, code="tokens_not_supported"
                )
            return [self._walk(each, visit, field=field, place=place, depth=depth + 1) for each in value]
        if isinstance(value, int | float) and not isinstance(value, bool):
            return _number(value, visit, field="" if place is Place.FREE else field)
        return value

    def _object(self, value: dict[str, Any], visit: Visit, *, place: Place, depth: int) -> dict[str, Any]:
        kind = value.get("type") if isinstance(value.get("type"), str) else None
        if place is Place.ATTACHMENT and kind in _READABLE:
            place = Place.API
        if _attached(value, place, depth):
            self._refuse_attachment()
            place = Place.ATTACHMENT
        speaker = "role" in value and value.get("role") not in ("tool", "function")
        walked: dict[str, Any] = {}
        for key, each in value.items():
            structural = place is not Place.FREE and _PLAIN_KEY.fullmatch(key) is not None
            name = visit(key, Kind.NAME if structural else Kind.TEXT)
            if (key == "name" and speaker and isinstance(each, str)) or key in _USERS:
                walked[name] = self._person(each, visit, field=key, place=place, depth=depth + 1)
            elif isinstance(each, str) and _unseen(key, each, kind, place):
                walked[name] = each
            else:
                inner = _inside(key, each, place, depth)
                walked[name] = self._walk(each, visit, field=key, place=inner, depth=depth + 1)
        return walked

    def _person(self, value: Any, visit: Visit, *, field: str, place: Place, depth: int) -> Any:
        """Whoever it is: replaced as a text or number, and each of a list."""
        if isinstance(value, str):
            return visit(value, Kind.PERSON)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return visit(_written(value), Kind.PERSON)
        if isinstance(value, list) and depth <= MAX_DEPTH:
            return [self._person(each, visit, field=field, place=place, depth=depth + 1) for each in value]
        return self._walk(value, visit, field=field, place=place, depth=depth)

    def _string(self, text: str, visit: Visit, *, field: str, place: Place) -> str:
        if _DATA.match(text):
            self._refuse_attachment()
        if place is not Place.FREE:
            plain = _PLAIN_KEY.fullmatch(text) is not None
            if (field in _WORDS and _WORD.fullmatch(text)) or (
                plain and (field == "required" or field in _IDENTIFIERS)
            ):
                return visit(text, Kind.NAME)
            if field in _IDENTIFIERS and _IDENTIFIER.fullmatch(text):
                return visit(text, Kind.IDENTIFIER)
        if field in _JSON_TEXTS or (text.lstrip()[:1] in ("{", "[") and "\\" in text):
            return self._json(text, visit)
        return visit(text, Kind.TEXT)

    def _json(self, text: str, visit: Visit) -> str:
        """JSON in a text: its strings may be escaped, so they are looked at as they read."""
        try:
            value = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            return visit(text, Kind.TEXT)
        if not isinstance(value, dict | list):
            return visit(text, Kind.TEXT)
        walked = self._walk(value, visit, field="", place=Place.FREE, depth=1)
        return visit(text, Kind.TEXT) if walked == value else msgspec.json.encode(walked).decode()

    def _refuse_attachment(self) -> None:
        if not self._attachments:
            raise Withheld(
                'images, audio and files are refused by policy: nobody looks into them (attachments = "pass")',
                status=400,
                code="attachment_refused",
            )


def _inside(key: str, value: Any, place: Place, depth: int) -> Place:
    """Where the value of ``key`` stands."""
    if place is Place.FREE or (place is Place.SCHEMA and key not in _IN_SCHEMAS):
        return place
    if place is Place.SCHEMA or key in _FREE or (key == "input" and depth > 0 and isinstance(value, dict)):
        return Place.FREE
    if key in _SCHEMAS and isinstance(value, dict):
        return Place.SCHEMA
    if place is Place.ATTACHMENT:
        return place if isinstance(value, dict) else Place.API
    return Place.QUOTED if key in _QUOTED else place


def _attached(value: dict[str, Any], place: Place, depth: int) -> bool:
    """Whether an object is an image, audio or a file, by its type or by what it holds."""
    if place in (Place.FREE, Place.SCHEMA):
        return False
    kind, source = value.get("type"), value.get("source")
    if isinstance(kind, str) and kind in _ATTACHMENTS:
        readable = kind == "document" and isinstance(source, dict) and source.get("type") in ("text", "content")
        if not readable:
            return True
    return (
        place is not Place.QUOTED
        and depth > 0
        and any(each and _ATTACHED.fullmatch(key) for key, each in value.items())
    )


def _unseen(key: str, text: str, kind: str | None, place: Place) -> bool:
    """Whether a string is bytes of an attachment, or what the model service wrote for itself."""
    if place is Place.ATTACHMENT:
        return key in _BYTES or _ATTACHED.fullmatch(key) is not None
    opaque = kind in _OPAQUE_IN and key in _OPAQUE and _OPAQUE_TEXT.fullmatch(text)
    return place is not Place.FREE and bool(opaque)


def _unescaped(text: str) -> str:
    """``text`` as it reads where parts of it are written in escapes of JSON, of JavaScript, of HTML or of URLs."""
    for _ in range(_UNESCAPED_TIMES):
        read = html.unescape(text) if "&" in text else text
        if "\\" in read:
            halves = _ESCAPE.sub(_character, read)
            read = halves.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if "%" in read:
            read = unquote(read)
        if read == text:
            break
        text = read
    return text


def _character(escape: re.Match[str]) -> str:
    code = int(escape[1] or escape[2] or escape[3], 16)
    return chr(code) if code <= 0x10FFFF else escape[0]


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Whether no ASCII letter or digit stands on either side."""
    before, after = text[start - 1 : start], text[end : end + 1]
    return not (before.isascii() and before.isalnum()) and not (after.isascii() and after.isalnum())


def _number(value: int | float, visit: Visit, *, field: str) -> Any:
    """A number that may be somebody's: replaced by a text where it is found to be."""
    if field in _NUMBERS and abs(value) < 1 << 31:
        return value
    written = _written(value)
    if sum(map(str.isdigit, written)) < _LEAST_DIGITS:
        return value
    after = visit(written, Kind.TEXT)
    return value if after == written else after


def _written(value: int | float) -> str:
    """A number in digits; a whole one without a point or an exponent."""
    return repr(int(value)) if isinstance(value, float) and value.is_integer() else repr(value)
