"""Running the gateway: keys, aliases and fallbacks, other ports and hosts, wrong use, and an end that loses nothing."""

import asyncio
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import closing
from pathlib import Path

import openai
import pytest

from mibao import serving
from mibao.serving import app
from serving_conformance import MAIL, chat, streamed
from serving_process import free_port, running, wait_until_up

CONFIG = """
allow = ["/v1/moderations"]

[[upstreams]]
name = "main"
url = "{upstream}"
key_env = "UPSTREAM_KEY"

[[upstreams]]
name = "down"
url = "http://127.0.0.1:9/v1"
retries = 0

[[models]]
name = "fast"
upstream = "down"
model = "real-fast"
fallbacks = ["spare"]

[[models]]
name = "spare"
upstream = "main"
model = "real-spare"

[privacy]
tools = ["look_up"]

[state]
record = true
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with running(tmp_path_factory.mktemp("running"), config=CONFIG) as started:
        yield started


@pytest.fixture(scope="module")
def key(gateway):
    log = (gateway.folder / "serve.log").read_text(encoding="utf-8")
    return next(line.split(": ")[1] for line in log.splitlines() if line.startswith("first API key"))


def test_without_a_key_nothing_is_read_or_sent(gateway):
    before = len(gateway.received())
    for headers, code in (({}, "missing_api_key"), ({"authorization": "Bearer sk-mibao-wrong"}, "invalid_api_key")):
        status, text, _ = gateway.post("/v1/chat/completions", chat("x"), headers)
        assert (status, json.loads(text)["error"]["code"]) == (401, code)
    assert len(gateway.received()) == before


def test_a_model_that_is_down_falls_back_and_the_upstreams_key_is_used_alone(gateway, key):
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) as client:
        answer = client.chat.completions.create(model="fast", messages=[{"role": "user", "content": f"hi {MAIL}"}])
        assert [model.id for model in client.models.list()] == ["fast", "spare"]
    assert (answer.model, answer.choices[0].message.content) == ("fast", f"hi {MAIL}")
    last = gateway.received()[-1]
    assert last["body"]["model"] == "real-spare"
    assert last["headers"]["authorization"] == "Bearer sk-upstream"
    assert key not in json.dumps(gateway.received())


def test_a_model_that_is_not_configured_is_not_asked_for(gateway, key):
    status, text, _ = gateway.post(
        "/v1/chat/completions", {**chat("x"), "model": "other"}, {"authorization": f"Bearer {key}"}
    )
    assert (status, json.loads(text)["error"]["code"]) == (404, "model_not_found")


def test_arguments_are_restored_for_tools_that_the_policy_names_alone(gateway, key):
    tools = [
        {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
        for name in ("look_up", "send")
    ]
    for name, back in (("look_up", True), ("send", False)):
        call = {"id": "c", "type": "function", "function": {"name": name, "arguments": '{"to": "{{0}}"}'}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        gateway.script(
            {"json": {"id": "c", "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}}
        )
        _, text, _ = gateway.post(
            "/v1/chat/completions", {**chat(MAIL, tools=tools), "model": "spare"}, {"authorization": f"Bearer {key}"}
        )
        assert (MAIL in text) is back
    gateway.script(None)


def test_a_path_that_is_allowed_by_name_is_masked_as_well(gateway, key):
    gateway.script({"json": {"ok": "{{0}}"}})
    status, text, _ = gateway.post(
        "/v1/moderations", {"model": "spare", "input": MAIL}, {"authorization": f"Bearer {key}"}
    )
    gateway.script(None)
    assert (status, json.loads(text)) == (200, {"ok": MAIL})
    assert MAIL not in gateway.sent()


def test_nobody_is_told_that_a_stream_is_over_before_it_is_written_down(gateway, key):
    body, told = {**chat(MAIL, stream=True), "model": "spare"}, []
    asking = threading.Thread(
        target=lambda: told.append(gateway.post("/v1/chat/completions", body, {"authorization": f"Bearer {key}"}))
    )
    with closing(sqlite3.connect(gateway.folder / "gateway.db", isolation_level=None)) as held:
        held.execute("BEGIN IMMEDIATE")
        asking.start()
        asking.join(2)
        assert asking.is_alive()
        held.execute("ROLLBACK")
    asking.join(20)
    assert told[0][1].endswith("data: [DONE]\n\n")


def test_the_log_and_the_store_hold_nothing_that_was_asked(gateway, key):
    gateway.post("/v1/chat/completions", {**chat(MAIL), "model": "spare"}, {"authorization": f"Bearer {key}"})
    for path in gateway.folder.iterdir():
        if path.name.startswith(("serve.log", "gateway.db")):
            held = path.read_bytes()
            assert MAIL.encode() not in held
            if path.name != "serve.log":
                assert key.encode() not in held


def test_a_conversation_that_the_service_keeps_is_gone_on_with_after_a_restart(tmp_path):
    config = CONFIG.replace('upstream = "down"', 'upstream = "main"')
    ask = {"model": "spare", "input": f"Remember {MAIL}"}
    with running(tmp_path, config=config) as gateway:
        log = (tmp_path / "serve.log").read_text(encoding="utf-8")
        key = next(line.split(": ")[1] for line in log.splitlines() if line.startswith("first API key"))
        headers = {"authorization": f"Bearer {key}"}
        _, text, _ = gateway.post("/v1/responses", ask, headers)
        token = gateway.received()[-1]["body"]["input"].removeprefix("Remember ")
        gateway.post("/v1/chat/completions", {**chat(MAIL), "model": "spare"}, {**headers, "x-mibao-conversation": "c"})
        named = gateway.received()[-1]["body"]["messages"][0]["content"]
    with running(tmp_path, config=config) as gateway:
        gateway.script({"say": f"It was {token}"})
        second = {"model": "spare", "input": "Which?", "previous_response_id": json.loads(text)["id"]}
        _, told, _ = gateway.post("/v1/responses", second, headers)
        assert json.loads(told)["output"][0]["content"][0]["text"] == f"It was {MAIL}"
        gateway.script({"say": f"It was {named} or {token}"})
        _, told, _ = gateway.post(
            "/v1/chat/completions", {**chat("x"), "model": "spare"}, {**headers, "x-mibao-conversation": "c"}
        )
        assert json.loads(told)["choices"][0]["message"]["content"] == f"It was {MAIL} or {token}"
    for path in tmp_path.glob("gateway.db*"):
        assert MAIL.encode() not in path.read_bytes()


def mibao(folder, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "mibao", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **environment},
    )  # fmt: skip


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    """A folder with an upstream's key, sealed to the gateway by who runs it, and another's key."""
    folder = tmp_path_factory.mktemp("sealed")
    (folder / "upstream.txt").write_text("sk-of-a-sealed-file\n", encoding="utf-8")
    for arguments in (
        ("keygen", "-o", "gateway-recipient.key", "--passphrase"),
        ("keygen", "--sign", "-o", "ops.key"),
        ("keygen", "--sign", "-o", "else.key"),
        ("seal", "upstream.txt", "--to", "gateway-recipient.pub", "--sign", "ops.key", "--model-id", "upstream-key",
         "--version", "1", "-o", "upstream.mibao"),
    ):  # fmt: skip
        assert mibao(folder, *arguments, MIBAO_PASSPHRASE="correct horse battery").returncode == 0
    (folder / "upstream.txt").unlink()
    return folder


SEALED = """
no_auth = true

[[upstreams]]
name = "main"
url = "{upstream}"
key_sealed = "upstream.mibao"
sealed_to = "gateway-recipient.key"
sealed_by = "ops.pub"
"""


def test_the_upstreams_key_lies_in_a_sealed_file(sealed, monkeypatch):
    monkeypatch.setenv("MIBAO_PASSPHRASE", "correct horse battery")
    with running(sealed, config=SEALED) as gateway:
        assert gateway.post("/v1/chat/completions", chat("x"))[0] == 200
        assert gateway.received()[-1]["headers"]["authorization"] == "Bearer sk-of-a-sealed-file"


@pytest.mark.parametrize(
    ("config", "passphrase", "message"),
    [
        (SEALED.replace("ops.pub", "else.pub"), "correct horse battery", "signed by another key"),
        (SEALED, "another", "passphrase"),
        (SEALED.replace('sealed_by = "ops.pub"', ""), "", "expected key_sealed, sealed_to and sealed_by together"),
        (SEALED + 'key_env = "HOME"', "", "expected one of key_env, key_file and key_sealed"),
        (SEALED.replace("upstream.mibao", "none.mibao"), "correct horse battery", "none.mibao"),
    ],
)
def test_a_sealed_key_that_cannot_be_trusted_or_opened_is_told_before_anything_is_served(
    sealed, config, passphrase, message
):
    (sealed / "wrong.toml").write_text(config.replace("{upstream}", "http://127.0.0.1:9/v1"), encoding="utf-8")
    done = mibao(sealed, "serve", "wrong.toml", MIBAO_PASSPHRASE=passphrase)
    assert done.returncode != 0
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_metrics_and_keys_are_told_on_a_port_of_their_own(tmp_path):
    admin = free_port()
    config = CONFIG.replace("[privacy]", f"[server]\nadmin_port = {admin}\n\n[privacy]")
    with running(tmp_path, config=config) as gateway:
        made = subprocess.run(
            [sys.executable, "-m", "mibao", "apikey", "create", "--admin"],
            cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        key = next(word for word in made.stdout.split() if word.startswith("sk-"))
        url = f"http://127.0.0.1:{admin}"
        wait_until_up(f"{url}/readyz", gateway.process)
        first = next(
            line.split(": ")[1]
            for line in (tmp_path / "serve.log").read_text(encoding="utf-8").splitlines()
            if line.startswith("first API key")
        )
        gateway.post("/v1/chat/completions", {**chat(MAIL), "model": "spare"}, {"authorization": f"Bearer {first}"})
        until = time.monotonic() + 30
        told = ""
        while "mibao" not in told or "EMAIL_ADDRESS" not in told:
            assert time.monotonic() < until, told
            request = urllib.request.Request(f"{url}/metrics", headers={"authorization": f"Bearer {key}"})  # noqa: S310
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                told = answer.read().decode()
            time.sleep(0.2)
        assert MAIL not in told


@pytest.mark.parametrize("stream", [False, True])
def test_surrogates_have_the_form_of_what_they_stand_for_and_come_back(tmp_path, stream):
    with running(tmp_path, "--no-auth", "--policy", "surrogates") as gateway:
        text = f"Call 138-0013-8000 or write to {MAIL}, says 张伟明."
        _, told, _ = gateway.post("/v1/chat/completions", chat(text, stream=stream))
        sent = gateway.received()[-1]["body"]["messages"][0]["content"]
        back = streamed(told)[0] if stream else json.loads(told)["choices"][0]["message"]["content"]
    assert back == text
    assert re.fullmatch(r"Call \d{3}-\d{4}-\d{4} or write to [a-z]{4}\.[a-z]{3}@example.com, says [一-鿿]{3}\.", sent)
    assert not [true for true in ("138-0013-8000", MAIL, "张伟明") if true in sent]


def test_clients_certificates_and_several_workers_are_not_taken_together(tmp_path):
    told = "certificate = 'a'\ncertificate_key = 'b'\nclient_authority = 'c'\nworkers = 2\n"
    config = f"no_auth = true\n[[upstreams]]\nname = 'main'\nurl = 'http://127.0.0.1:9/v1'\n[server]\n{told}"
    (tmp_path / "config.toml").write_text(config, encoding="utf-8")
    done = mibao(tmp_path, "serve", "config.toml")
    assert done.returncode == 2
    assert "expected one worker with client_authority, got 2" in done.stderr


def a_chat(content, finish=None):
    return {"id": "c", "choices": [{"index": 0, "delta": {"content": content}, "finish_reason": finish}]}


@pytest.fixture(scope="module")
def hasty(tmp_path_factory):
    """A gateway that waits a second for what its upstream says."""
    config = 'no_auth = true\n[[upstreams]]\nname = "main"\nurl = "{upstream}"\ntimeout_s = 1\nretries = 0\n'
    with running(tmp_path_factory.mktemp("hasty"), config=config) as started:
        yield started


def last_event(text):
    return json.loads(text.rstrip().rsplit("data: ", 1)[1])


@pytest.mark.parametrize(
    ("path", "events"),
    [
        ("/v1/chat/completions", [a_chat("half")]),
        ("/v1/chat/completions", [a_chat("one", "stop"), {"choices": [{"index": 1, "delta": {"content": "other"}}]}]),
        ("/v1/chat/completions", [a_chat('"finish_reason": "stop"')]),
        ("/v1/completions", [{"id": "c", "choices": [{"index": 0, "text": "half", "finish_reason": None}]}]),
        ("/v1/responses", [{"type": "response.created", "response": {"id": "resp_1"}}]),
        ("/v1/messages", [{"type": "message_start", "message": {"id": "m"}}]),
    ],
)
@pytest.mark.parametrize("cut", [False, True])
def test_a_stream_without_its_last_event_is_told_to_have_broken_off(hasty, path, events, cut):
    hasty.script({"events": events, "cut": cut})
    body = {"model": "m", "stream": True, "input": "x", "messages": [{"role": "user", "content": "x"}], "prompt": "x"}
    _, text, _ = hasty.post(path, body)
    assert last_event(text)["error"]["code"] == "upstream_broke_off"
    assert text.count("upstream_broke_off") == 1


def test_a_chat_that_says_why_it_finished_may_end_without_done(hasty):
    hasty.script({"events": [a_chat("x"), a_chat("", "stop"), {"id": "c", "choices": [], "usage": {}}]})
    _, text, _ = hasty.post("/v1/chat/completions", chat("x", stream=True))
    assert "error" not in text
    assert streamed(text)[0] == "x"


def test_a_service_that_leaves_its_connection_open_after_the_last_event_is_not_waited_for(hasty):
    hasty.script({"events": ["[DONE]"], "pause_s": 8})
    began_s = time.monotonic()
    _, text, _ = hasty.post("/v1/chat/completions", chat("x", stream=True))
    assert text == "data: [DONE]\n\n"
    assert time.monotonic() - began_s < 4


def test_an_answer_that_drips_is_not_waited_for_longer_than_was_told(hasty):
    hasty.script({"raw": "[" * 100, "pause_s": 0.1})
    began_s = time.monotonic()
    status, text, _ = hasty.post("/v1/chat/completions", chat("x"))
    assert (status, json.loads(text)["error"]["code"]) == (504, "upstream_timeout")
    assert time.monotonic() - began_s < 5


def test_a_stream_that_never_ends_is_ended_after_six_times_as_long(hasty):
    hasty.script({"events": [a_chat("x")] * 100, "pause_s": 0.2})
    began_s = time.monotonic()
    _, text, _ = hasty.post("/v1/chat/completions", chat("x", stream=True))
    assert last_event(text)["error"]["code"] == "upstream_broke_off"
    assert 5 < time.monotonic() - began_s < 12


ENDS = {
    "/v1/chat/completions": [a_chat("x"), a_chat("", "stop"), "[DONE]"],
    "/v1/messages": [{"type": "ping"}, {"type": "message_stop"}],
    "/v1/responses": [
        {"type": "response.created", "response": {"id": "resp_1"}},
        {"type": "response.completed", "response": {"id": "resp_1"}},
    ],
}


def test_a_stream_that_cannot_be_written_down_does_not_end_as_one_that_was(tmp_path):
    with running(tmp_path, config=CONFIG) as gateway:
        log = (tmp_path / "serve.log").read_text(encoding="utf-8")
        key = next(line.split(": ")[1] for line in log.splitlines() if line.startswith("first API key"))
        with closing(sqlite3.connect(tmp_path / "gateway.db", isolation_level=None)) as store:
            store.execute("ALTER TABLE ledger_outbox RENAME TO gone")
        for path, events in ENDS.items():
            gateway.script({"events": events})
            body = {"model": "spare", "stream": True, "input": "x", "messages": [{"role": "user", "content": "x"}]}
            _, text, _ = gateway.post(path, body, {"authorization": f"Bearer {key}"})
            assert last_event(text)["error"]["code"] == "unavailable", path
            assert not [end for end in ("[DONE]", "message_stop", "response.completed") if end in text]


def test_asked_to_end_it_finishes_what_it_was_asked(tmp_path):
    with running(tmp_path, "--no-auth") as gateway:
        event = {"id": "c", "choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": None}]}
        gateway.script({"events": [event] * 20 + ["[DONE]"], "pause_s": 0.05})
        told = []
        asking = threading.Thread(
            target=lambda: told.append(gateway.post("/v1/chat/completions", chat("x", stream=True)))
        )
        asking.start()
        time.sleep(0.4)
        gateway.process.send_signal(signal.SIGTERM)
        asking.join(20)
        assert told[0][0] == 200
        assert told[0][1].rstrip().endswith("data: [DONE]")
        assert gateway.process.wait(20) == 0


FEW = """
[[upstreams]]
name = "main"
url = "{upstream}"
key_file = "upstream.key"

[limits]
concurrent = 1

[state]
store = "held/few.db"
reserved_tokens = 1000
"""


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """One at a time; its files lie beside its configuration, and not where it runs."""
    folder, elsewhere = tmp_path_factory.mktemp("few"), tmp_path_factory.mktemp("elsewhere")
    (folder / "held").mkdir()
    (folder / "upstream.key").write_text("sk-of-a-file\n", encoding="utf-8")
    with running(folder, config=FEW, cwd=elsewhere) as gateway:
        yield gateway
    assert not list(elsewhere.iterdir())


@pytest.fixture
def headers(few):
    """A new key, whose day is over with one request that nobody counted."""
    made = subprocess.run(
        [sys.executable, "-m", "mibao", "apikey", "create", "--tokens-per-day", "1000", "--store", "held/few.db"],
        cwd=few.folder, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return {"authorization": f"Bearer {next(word for word in made.stdout.split() if word.startswith('sk-'))}"}


def listed(gateway, headers):
    request = urllib.request.Request(f"{gateway.url}/v1/models", headers=headers)  # noqa: S310 - http on loopback
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        return [model["id"] for model in json.load(answer)["data"]]


def test_the_list_of_models_takes_no_tokens_of_the_days(few, headers):
    assert [listed(few, headers) for _ in range(3)] == [["m"]] * 3
    status, _, _ = few.post("/v1/chat/completions", chat("x"), headers)
    assert status == 200
    assert few.received()[-1]["headers"]["authorization"] == "Bearer sk-of-a-file"


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_leaves_its_place_to_the_next_and_is_charged(few, headers, stream):
    event = {"id": "c", "choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": None}]}
    few.script({"events": [event] * 400, "pause_s": 0.05} if stream else {"wait_s": 15, "say": "late"})
    before = few.left()
    with socket.create_connection(("127.0.0.1", few.port), timeout=10) as connection:
        body = json.dumps(chat("x", stream=stream)).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: {headers['authorization']}\r\n"
        about = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        connection.sendall((head + about).encode() + body)
        if stream:
            assert b"200" in connection.recv(100)
        else:
            time.sleep(0.5)
    until = time.monotonic() + 10
    while few.left() == before and time.monotonic() < until:
        time.sleep(0.05)
    few.script(None)
    status = 503
    while status == 503 and time.monotonic() < until:
        status, text, _ = few.post("/v1/chat/completions", chat("x"), headers)
    assert (status, json.loads(text)["error"]["code"]) == (429, "quota_exceeded")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected either --upstream URL or a configuration file"),
        (["--upstream", "ftp://x/v1"], "expected a URL such as https://host/v1"),
        (["--upstream", "https://user:secret@x/v1"], "expected a URL such as https://host/v1"),
        (["nothing.toml"], "cannot read nothing.toml"),
        (["--upstream", "http://127.0.0.1:9/v1", "--no-auth", "--policy", "none"], "policy none: expected one of"),
        (
            ["--upstream", "http://127.0.0.1:9/v1", "--no-auth", "--upstream-key-env", "NO_SUCH_KEY"],
            "expected its key in $NO_SUCH_KEY",
        ),
    ],
)
def test_wrong_use_is_told_in_one_line(tmp_path, arguments, message):
    done = mibao(tmp_path, "serve", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "secret" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def status_of(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - on loopback
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_a_gateway_whose_store_cannot_be_used_is_not_ready(tmp_path):
    with (
        running(tmp_path, config=CONFIG) as gateway,
        closing(sqlite3.connect(tmp_path / "gateway.db", isolation_level=None)) as store,
    ):
        store.execute("ALTER TABLE api_keys RENAME TO gone")
        assert status_of(f"{gateway.url}/readyz") == 503
        store.execute("ALTER TABLE gone RENAME TO api_keys")
        assert status_of(f"{gateway.url}/readyz") == 200


def test_a_store_that_does_not_answer_is_asked_once_and_waited_for_a_moment(monkeypatch):
    monkeypatch.setattr(app, "READY_S", 0.05)
    let_go, asked = threading.Event(), []

    async def ask():
        probe = app.Probe(lambda: (asked.append(1), let_go.wait(10)))
        assert not await probe.is_ready()
        assert not await probe.is_ready()
        assert len(asked) == 1
        let_go.set()
        await asyncio.sleep(0.2)
        assert await probe.is_ready()

    asyncio.run(ask())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl is Linux's")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_gateway_that_is_killed_leaves_no_process_that_holds_its_ports(tmp_path, workers):
    admin = free_port()
    config = CONFIG.replace("[privacy]", f"[server]\nadmin_port = {admin}\nworkers = {workers}\n\n[privacy]")
    with running(tmp_path, config=config) as gateway:
        wait_until_up(f"http://127.0.0.1:{admin}/readyz", gateway.process)
        gateway.process.kill()
        gateway.process.wait(10)
        until, held = time.monotonic() + 20, {admin, gateway.port}
        while held and time.monotonic() < until:
            held = {port for port in held if is_listening(port)}
            time.sleep(0.1)
        assert not held


def is_listening(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_every_code_of_a_refusal_is_documented():
    folder = Path(serving.__file__).parent
    source = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py") if path.name != "admin.py")
    codes = set(re.findall(r'code ?= ?"([a-z_]+)"|40[45]: "([a-z]+_(?:not_)?allowed)"|"([a-z]+_exceeded)"', source))
    told = (Path(__file__).parents[2] / "docs" / "gateway.md").read_text(encoding="utf-8")
    assert len(codes) > 30
    assert not [code for found in codes for code in found if code and f"`{code}`" not in told]
