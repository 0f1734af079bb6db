import json

import pytest

from mibao.deid.presidio import AnalyzerEngine, AnonymizerEngine

pytest.importorskip("starlette")
from mibao.deid.presidio_http import application

APP = application(analyzer=AnalyzerEngine(), anonymizer=AnonymizerEngine(key=bytes(32)))


def _call(method: str, path: str, body: object = None, *, raw: bytes | None = None) -> tuple[int, object]:
    """One request straight into the application, as an ASGI server would make it."""
    import asyncio

    data = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
    path, _, query = path.partition("?")
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path,
             "raw_path": path.encode(), "query_string": query.encode(), "headers": [], "scheme": "http",
             "server": ("test", 80), "client": ("test", 1), "root_path": ""}  # fmt: skip
    sent = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": data, "more_body": False}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    asyncio.run(APP(scope, receive, send))
    content = b"".join(message.get("body", b"") for message in sent[1:])
    kind = dict(sent[0]["headers"])[b"content-type"]
    return sent[0]["status"], json.loads(content) if kind.startswith(b"application/json") else content.decode()


def test_analyze_and_anonymize_answer_as_presidio_does() -> None:
    text = "hello, my name is Dr. Chen and my mail is chen@example.com"
    status, found = _call("POST", "/analyze", {"text": text, "language": "en"})
    assert status == 200
    assert [(each["entity_type"], text[each["start"] : each["end"]]) for each in found] == [
        ("PERSON", "Chen"), ("EMAIL_ADDRESS", "chen@example.com"),
    ]  # fmt: skip
    body = {"text": text, "analyzer_results": found, "anonymizers": {"PERSON": {"type": "replace", "new_value": "X"}}}
    status, done = _call("POST", "/anonymize", body)
    assert (status, done["text"]) == (200, "hello, my name is Dr. X and my mail is <EMAIL_ADDRESS>")
    assert done["items"][-1] == {"start": 22, "end": 23, "entity_type": "PERSON", "text": "X", "operator": "replace"}


def test_several_texts_have_an_answer_each_in_order() -> None:
    status, found = _call("POST", "/analyze", {"text": ["a@b.co", "nothing"], "language": "en"})
    assert status == 200
    assert [len(each) for each in found] == [1, 0]


def test_what_was_encrypted_is_deanonymized() -> None:
    key = {"DEFAULT": {"type": "encrypt", "key": "0123456789abcdef"}}
    found = [{"entity_type": "PERSON", "start": 0, "end": 4, "score": 1.0}]
    _, done = _call("POST", "/anonymize", {"text": "Chen came", "analyzer_results": found, "anonymizers": key})
    back = {"DEFAULT": {"type": "decrypt", "key": "0123456789abcdef"}}
    body = {"text": done["text"], "anonymizer_results": done["items"], "deanonymizers": back}
    assert _call("POST", "/deanonymize", body)[1]["text"] == "Chen came"
    back["DEFAULT"]["key"] = "another key, as long"
    status, answer = _call("POST", "/deanonymize", {**body, "deanonymizers": back})
    assert (status, list(answer)) == (422, ["error"])


def test_health_and_entities_are_told() -> None:
    assert _call("GET", "/health") == (200, "mibao de-identification service is up")
    status, entities = _call("GET", "/supportedentities?language=zh")
    assert status == 200
    assert {"PERSON", "CN_RESIDENT_ID", "EMAIL_ADDRESS"} <= set(entities)
    assert _call("GET", "/supportedentities?language=fr")[0] == 400


@pytest.mark.parametrize(
    ("path", "body", "error"),
    [
        ("/analyze", {"language": "en"}, 'analyze: expected "text", a string or a list of strings'),
        ("/analyze", {"text": "x", "language": "fr"}, "analyze: expected a language out of en, zh"),
        ("/analyze", {"text": "x", "entities": "PERSON"}, "entities: got str, which it cannot be"),
        ("/analyze", {"text": "x", "allow_list_match": "regex"}, 'analyze: expected allow_list_match "exact"'),
        ("/analyze", [], "expected a JSON object"),
        ("/anonymize", {"text": 3}, 'expected "text", a string'),
        ("/anonymize", {"text": "x", "anonymizers": {"A": "b"}}, 'anonymizers: expected for each type an object with'),
        ("/anonymize", {"text": "x", "anonymizers": {"DEFAULT": {"type": "custom", "lambda": "x"}},
                        "analyzer_results": [{"entity_type": "A", "start": 0, "end": 1}]},
         "anonymize: no such operator"),
    ],
)  # fmt: skip
def test_wrong_requests_are_errors_that_say_why(path: str, body: object, error: str) -> None:
    status, answer = _call("POST", path, body)
    assert status == 400
    assert answer["error"].startswith(error)
    assert _call("POST", path, raw=b"\xff")[0] == 400


def test_a_detector_that_fails_is_an_error_and_never_an_empty_answer() -> None:
    class Broken:
        def find(self, text: str) -> tuple[()]:
            raise ZeroDivisionError(text)

    global APP  # noqa: PLW0603
    before, APP = APP, application(analyzer=AnalyzerEngine(detectors=[Broken()]), anonymizer=AnonymizerEngine())
    try:
        status, answer = _call("POST", "/analyze", {"text": "secret"})
    finally:
        APP = before
    assert (status, answer) == (500, {"error": "the text could not be checked (ZeroDivisionError)"})
