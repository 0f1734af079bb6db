"""The gateway as its users meet it: a process on 127.0.0.1 in front of a real server, asked by real clients."""

import gzip
import json
import threading
import time
import urllib.request

import anthropic
import openai
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from counts import counts
from mibao.serving import openapi_gateway
from mibao.serving.exchange import APIS
from serving_conformance import CASES, MAIL, chat, chunks, function, streamed
from serving_process import running

ASK = f"Write to {MAIL}, please."


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with running(tmp_path_factory.mktemp("gateway"), "--no-auth", "--report") as started:
        yield started


@pytest.fixture(autouse=True)
def _no_script(gateway):
    gateway.script(None)


@pytest.fixture
def client(gateway):
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="sk-user", max_retries=0) as made:
        yield made


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_conformance(gateway, case):
    gateway.script(case.script)
    before = len(gateway.received())
    status, text, _ = gateway.post(case.path, case.body, case.headers)
    for body in gateway.received()[before:]:
        sent = json.dumps(body["body"], ensure_ascii=False)
        assert not [planted for planted in case.planted if planted in sent]
    told = streamed(text)[0] if case.stream and status == 200 else json.loads(text)
    assert case.answer(status, told), (status, told)


def test_at_least_sixty_cases_are_held_to():
    assert len(CASES) >= 60
    assert len({case.name for case in CASES}) == len(CASES)


def test_openai_client_chat_and_stream(client, gateway):
    answer = client.chat.completions.create(model="m", messages=[{"role": "user", "content": ASK}])
    assert answer.choices[0].message.content == ASK
    assert MAIL not in gateway.sent()
    stream = client.chat.completions.create(model="m", messages=[{"role": "user", "content": ASK}], stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices) == ASK
    assert gateway.received()[-1]["headers"]["authorization"] == "Bearer sk-user"


def test_openai_client_responses_completions_embeddings_models(client):
    assert client.responses.create(model="m", input=ASK).output_text == ASK
    with client.responses.stream(model="m", input=ASK) as stream:
        assert stream.until_done().get_final_response().output_text == ASK
    assert client.completions.create(model="m", prompt=ASK).choices[0].text == ASK
    assert client.embeddings.create(model="m", input=[ASK], encoding_format="float").data[0].embedding == [0.5, 0.25]
    assert [model.id for model in client.models.list()] == ["m"]


def test_openai_client_streams_tool_calls(client, gateway):
    head = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "send", "arguments": ""}}
    token = "{{0}}"
    gateway.script(
        chunks(
            {"role": "assistant", "tool_calls": [head]},
            *(
                {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}
                for piece in ('{"to"', ': "', token, '"}')
            ),
            finish="tool_calls",
        )
    )
    stream = client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": ASK}], tools=[function()], stream=True
    )
    arguments = [call.function.arguments or "" for chunk in stream for call in chunk.choices[0].delta.tool_calls or []]
    assert json.loads("".join(arguments)) == {"to": MAIL}


def test_anthropic_client_messages_and_stream(gateway):
    with anthropic.Anthropic(base_url=gateway.url, api_key="sk-ant", max_retries=0) as client:
        asked = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": ASK}]}
        assert client.messages.create(**asked).content[0].text == ASK
        with client.messages.stream(**asked) as stream:
            assert stream.get_final_text() == ASK
    assert gateway.received()[-1]["headers"]["authorization"] == "Bearer sk-ant"
    gateway.post("/v1/messages", asked, {"x-api-key": "sk-old", "anthropic-version": "2023-06-01"})
    sent = gateway.received()[-1]["headers"]
    assert (sent["x-api-key"], sent["anthropic-version"]) == ("sk-old", "2023-06-01")
    assert MAIL not in gateway.sent()


def test_errors_come_in_the_form_that_each_client_reads(client, gateway):
    with pytest.raises(openai.BadRequestError, match="images, audio and files are refused"):
        client.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x"}}]}],
        )
    gateway.script({"json": {"type": "error", "error": {"type": "overloaded_error", "message": "x"}}, "status": 529})
    with (
        anthropic.Anthropic(base_url=gateway.url, api_key="k", max_retries=0) as asking,
        pytest.raises(anthropic.APIStatusError, match="overloaded_error"),
    ):
        asking.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "x"}])


def test_a_second_turn_uses_the_names_of_the_first_and_another_user_does_not(gateway):
    first = chat(f"A first turn that nobody else has: {MAIL}")
    _, text, _ = gateway.post("/v1/chat/completions", first)
    token = gateway.received()[-1]["body"]["messages"][0]["content"]
    answer = json.loads(text)["choices"][0]["message"]
    second = {"model": "m", "messages": [*first["messages"], answer, {"role": "user", "content": f"Again {MAIL}"}]}
    gateway.post("/v1/chat/completions", second)
    assert gateway.received()[-1]["body"]["messages"][0]["content"] == token
    gateway.post("/v1/chat/completions", first)
    assert gateway.received()[-1]["body"]["messages"][0]["content"] != token


def said_in(text, *, stream):
    return streamed(text)[0] if stream else json.loads(text)["choices"][0]["message"]["content"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_second_turn_after_a_stream_and_after_reasoning_uses_the_names_of_the_first(gateway, stream):
    asked = f"Think first ({stream}): {MAIL}"
    if stream:
        gateway.script(chunks({"reasoning_content": "of {{0}}"}, {"content": "I wrote "}, {"content": "to {{0}}."}))
    else:
        message = {"role": "assistant", "reasoning_content": "of {{0}}", "content": "I wrote to {{0}}."}
        gateway.script({"json": {"id": "c", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}})
    _, text, _ = gateway.post("/v1/chat/completions", chat(asked, stream=stream))
    answer = said_in(text, stream=stream)
    assert answer == f"I wrote to {MAIL}."
    token = gateway.received()[-1]["body"]["messages"][0]["content"]
    turns = [("user", asked), ("assistant", answer), ("user", "Again")]
    gateway.post("/v1/chat/completions", {"model": "m", "messages": [{"role": r, "content": t} for r, t in turns]})
    assert gateway.received()[-1]["body"]["messages"][0]["content"] == token


@pytest.mark.parametrize("streams", [False, True])
def test_a_second_turn_of_anthropics_tools_uses_the_names_of_the_first(gateway, streams):
    tools = [{"name": "send", "input_schema": {"type": "object"}}]
    begun = [{"role": "user", "content": f"Send it ({streams}) to {MAIL}"}]
    block = {"type": "tool_use", "id": f"toolu_{streams}", "name": "send", "input": {"to": "{{0}}"}}
    start = {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }
    if streams:
        delta = {"type": "input_json_delta", "partial_json": '{"to": "{{0}}"}'}
        gateway.script({"events": [
            {"type": "message_start", "message": {**start, "content": [], "stop_reason": None}},
            {"type": "content_block_start", "index": 0, "content_block": {**block, "input": {}}},
            {"type": "content_block_delta", "index": 0, "delta": delta},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 1}},
            {"type": "message_stop"},
        ]})  # fmt: skip
    else:
        gateway.script({"json": {**start, "content": [block], "stop_reason": "tool_use"}})
    with anthropic.Anthropic(base_url=gateway.url, api_key="sk-ant", max_retries=0) as client:
        asked = {"model": "m", "max_tokens": 9, "tools": tools}
        if streams:
            with client.messages.stream(messages=begun, **asked) as stream:
                answer = stream.get_final_message()
        else:
            answer = client.messages.create(messages=begun, **asked)
        assert answer.content[0].input == {"to": MAIL}
        first = gateway.received()[-1]["body"]["messages"][0]["content"]
        result = {"type": "tool_result", "tool_use_id": answer.content[0].id, "content": "sent"}
        said = [block.model_dump() for block in answer.content]
        history = [*begun, {"role": "assistant", "content": said}, {"role": "user", "content": [result]}]
        gateway.script(None)
        client.messages.create(messages=history, **asked)
    assert gateway.received()[-1]["body"]["messages"][0]["content"] == first


@pytest.mark.parametrize("streams", [False, True])
def test_a_second_turn_of_responses_uses_the_names_of_the_first(client, gateway, streams):
    begun = [{"role": "user", "content": f"Tell me ({streams}) of {MAIL}"}]
    if streams:
        with client.responses.stream(model="m", input=begun) as stream:
            answer = stream.until_done().get_final_response()
    else:
        answer = client.responses.create(model="m", input=begun)
    first = gateway.received()[-1]["body"]["input"][0]["content"]
    said = [{"type": "message", "role": "assistant", "content": answer.output_text}]
    client.responses.create(model="m", input=[*begun, *said, {"role": "user", "content": "Again"}])
    assert gateway.received()[-1]["body"]["input"][0]["content"] == first


def test_a_number_is_no_id_of_a_response(gateway):
    status, _, _ = gateway.post(
        "/v1/responses", {"model": "m", "input": "x", "previous_response_id": "resp_13800138000"}
    )
    assert status == 400


def test_when_to_ask_again_is_passed_on(gateway):
    gateway.script({"json": {"error": {"type": "rate_limit"}}, "status": 429, "headers": {"retry-after": "7"}})
    status, _, headers = gateway.post("/v1/chat/completions", chat("x"))
    assert (status, headers["retry-after"]) == (429, "7")


def test_a_conversation_that_the_client_names_keeps_its_names(gateway):
    tokens = []
    for name in ("a", "a", "b"):
        gateway.post("/v1/chat/completions", chat(ASK), {"x-mibao-conversation": name})
        tokens.append(gateway.received()[-1]["body"]["messages"][0]["content"])
    assert tokens[0] == tokens[1] != tokens[2]


def test_what_was_found_is_counted_in_a_header_without_values(gateway):
    _, _, headers = gateway.post("/v1/chat/completions", chat(f"{ASK} {MAIL}"))
    assert headers["x-mibao-findings"] == "EMAIL_ADDRESS=2"


def test_parallel_users_get_their_own_words_back(gateway):
    wrong = []

    def ask(number):
        mail = f"user{number}@example.com"
        _, text, _ = gateway.post("/v1/chat/completions", chat(f"I am {mail}"))
        if json.loads(text)["choices"][0]["message"]["content"] != f"I am {mail}":
            wrong.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_stream_is_passed_on_as_it_comes_with_nine_tenths_of_its_chunks(client, gateway):
    deltas = [{"role": "assistant", "content": ""}, *({"content": f"word{number} "} for number in range(40))]
    gateway.script({**chunks(*deltas), "pause_s": 0.02})
    began = time.monotonic()
    stream = client.chat.completions.create(model="m", messages=[{"role": "user", "content": ASK}], stream=True)
    times = [time.monotonic() - began for chunk in stream if chunk.choices and chunk.choices[0].delta.content]
    assert len(times) >= 36
    assert times[-1] - times[0] > 0.5


def left_within(gateway, count, *, seconds=10):
    until = time.monotonic() + seconds
    while gateway.left() < count and time.monotonic() < until:
        time.sleep(0.05)
    return gateway.left()


def test_a_client_that_goes_away_ends_the_upstreams_stream(client, gateway):
    before = gateway.left()
    gateway.script({**chunks(*({"content": "x"} for _ in range(400))), "pause_s": 0.05})
    stream = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}], stream=True)
    next(iter(stream))
    stream.close()
    assert left_within(gateway, before + 1) == before + 1


def test_a_client_that_does_not_wait_for_its_answer_ends_the_upstreams_work(client, gateway):
    before = gateway.left()
    gateway.script({"wait_s": 15, "say": "late"})
    with pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}], timeout=1)
    assert left_within(gateway, before + 1) == before + 1


ODD = {
    "a text where an object is due": {"type": "message_start", "message": "x"},
    "too deep": json.loads('{"a":' * 80 + "1" + "}" * 80),
    "a list where a number is due": {
        "type": "response.output_item.done",
        "output_index": [],
        "item": {"type": "x_call"},
    },
}


@pytest.mark.parametrize("about", ODD)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
def test_whatever_an_upstream_sends_the_stream_is_ended_in_order(gateway, about, path):
    gateway.script({"events": [ODD[about], "[DONE]"]})
    body = {"model": "m", "max_tokens": 9, "stream": True}
    body |= {"input": ASK} if path == "/v1/responses" else {"messages": [{"role": "user", "content": ASK}]}
    status, text, _ = gateway.post(path, body)
    assert status == 200
    assert text.endswith("data: [DONE]\n\n") or "upstream_unreadable" in text


def test_limits_and_forms_of_the_body(gateway):
    path = "/v1/chat/completions"
    assert gateway.post(path, b"{")[0] == 400
    assert gateway.post(path, b"[]")[0] == 400
    assert gateway.post(path, b"x", {"content-type": "text/plain"})[0] == 415
    assert gateway.post(path, b"x", {"content-encoding": "br"})[0] == 415
    assert gateway.post(path, b" " * (11 * 1024 * 1024))[0] == 413
    assert gateway.post(path, gzip.compress(b" " * (11 * 1024 * 1024)), {"content-encoding": "gzip"})[0] == 413
    assert gateway.post(path, gzip.compress(json.dumps(chat(ASK)).encode()), {"content-encoding": "gzip"})[0] == 200
    assert gateway.post(path, gzip.compress(b"{}")[:-4], {"content-encoding": "gzip"})[0] == 400
    deep = b'{"model":"m","messages":' + b"[" * 100 + b"]" * 100 + b"}"
    assert gateway.post(path, deep)[0] == 400
    assert gateway.post(path, b"[" * 100_000)[0] == 400
    assert gateway.post(path + "?a=" + MAIL, chat("x"))[0] == 400


OPERATIONS = [
    found.ok() for found in schemathesis.openapi.from_dict(openapi_gateway.document(APIS.values())).get_all_operations()
]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: f"{operation.method} {operation.path}")
def test_whatever_is_sent_to_it_it_answers_as_it_is_described_and_never_with_a_fault(gateway, operation):
    gateway.script({"json": {"id": "x"}})
    called = set()

    @settings(
        max_examples=counts(short=6, long=2000),
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy())
    def fuzz(case):
        answer = case.call_and_validate(base_url=gateway.url)
        assert answer.status_code < 500
        called.add(answer.status_code)

    fuzz()
    assert 200 in called


def test_the_description_is_served_and_names_every_path(gateway):
    with urllib.request.urlopen(f"{gateway.url}/openapi.json", timeout=10) as answer:  # noqa: S310 - on loopback
        assert json.load(answer) == openapi_gateway.document(APIS.values())


def test_headers_of_the_client_stay_at_home(gateway):
    gateway.post("/v1/chat/completions", chat("x"), {"x-user": MAIL, "cookie": f"m={MAIL}", "openai-beta": MAIL})
    assert MAIL not in json.dumps(gateway.received()[-1])


def test_a_detector_that_errs_blocks_the_text():
    from mibao.deid.policies import PSEUDONYMS
    from mibao.serving.findings_cache import FindingsCache
    from mibao.serving.placeholders import Names
    from mibao.serving.requests_walk import RequestMasker

    class Broken:
        rules = ()

        def candidates(self, _text):
            raise RuntimeError("broken")

    masker = RequestMasker(
        Names(scope_key=b"k" * 32, policy=PSEUDONYMS), FindingsCache(salt=b"s" * 32, engine=Broken())
    )
    with pytest.raises(RuntimeError):
        masker.mask({"messages": [{"role": "user", "content": ASK}]})
