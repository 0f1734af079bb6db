"""The administrative side: keys, spend and metrics for who holds an admin's key, and its own description."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from starlette.testclient import TestClient

from counts import counts
from mibao.crypto.rng import random_bytes
from mibao.serving import admin, api_keys, openapi
from mibao.serving.admin import admin_app
from mibao.serving.api_keys import Grant, KeyKind
from mibao.serving.metrics import Metrics, MetricsWriter
from mibao.serving.quotas import Quotas, Settle
from mibao.serving.storage import Store

NOW_MS = 1_780_000_000_000  # 28 May 2026


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "gateway.db") as opened:
        yield opened


def key(store: Store, kind: KeyKind = KeyKind.ADMIN) -> dict[str, str]:
    with store.writing() as connection:
        text, _ = api_keys.create(connection, Grant(tenant="t", kind=kind), now_ms=NOW_MS)
    return {"Authorization": f"Bearer {text}"}


@pytest.fixture
def client(store: Store) -> Iterator[TestClient]:
    app = admin_app(store, clock_ms=lambda: NOW_MS)
    with TestClient(app, headers=key(store), raise_server_exceptions=False) as started:
        yield started
    app.state.directory.close()


GUARDED = [("GET", "/metrics"), ("GET", "/keys"), ("POST", "/keys"), ("DELETE", "/keys/x"), ("GET", "/spend")]


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_nothing_is_told_or_done_without_an_admins_key(
    store: Store, client: TestClient, method: str, path: str
) -> None:
    for headers in ({"Authorization": ""}, {"Authorization": "Bearer wrong"}, key(store, KeyKind.CLIENT)):
        answer = client.request(method, path, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/openapi.json", "/keys", "/nothing"])
def test_every_answer_bears_safe_headers(client: TestClient, path: str) -> None:
    answer = client.get(path)
    for name, value in admin.SAFE_HEADERS:
        assert answer.headers[name.decode()] == value.decode()
    assert "server" not in answer.headers


def test_a_key_is_made_used_listed_and_revoked(store: Store, client: TestClient) -> None:
    wanted = {"tenant": "acme", "models": ["small"], "tokens_per_day": 1000, "expires_in_s": 60}
    made = client.post("/keys", json=wanted)
    assert made.status_code == 201
    key_id, secret = api_keys.parse(made.json()["key"])
    with store.reading() as connection:
        record = api_keys.find(connection, key_id)
    assert api_keys.opens(record, api_keys.secret_digest(secret))
    assert (record.grant.kind, record.grant.expires_ms) == (KeyKind.CLIENT, NOW_MS + 60_000)
    (shown,) = [one for one in client.get("/keys").json()["keys"] if one["id"] == key_id]
    assert {name: shown[name] for name in ("tenant", "models", "tokens_per_day", "state")} == {
        "tenant": "acme", "models": ["small"], "tokens_per_day": 1000, "state": "open",
    }  # fmt: skip
    assert secret not in client.get("/keys").text
    assert client.delete(f"/keys/{key_id}").status_code == 204
    assert client.delete(f"/keys/{key_id}").status_code == 404
    with store.reading() as connection:
        assert api_keys.find(connection, key_id).refusal(NOW_MS) == "revoked"


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{}", "application/json", 400),
        (b'{"tenant": "t", "kind": "admin"}', "application/json", 400),
        (b'{"tenant": "t", "tokens_per_day": -1}', "application/json", 400),
        (b'{"tenant": "a\\u0000b"}', "application/json", 400),
        (b"not json", "application/json", 400),
        (b'{"tenant": "\xff"}', "application/json", 400),
        (b'{"tenant": "t"}', "text/plain", 415),
        (b" " * (admin.MAX_BODY_BYTES + 1), "application/json", 413),
    ],
)
def test_what_is_no_new_key_is_refused(client: TestClient, content: bytes, kind: str, status: int) -> None:
    answer = client.post("/keys", content=content, headers={"Content-Type": kind})
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}


def test_spend_is_told_by_key_and_model_for_the_days_that_are_asked_for(store: Store, client: TestClient) -> None:
    used = Settle(
        request=random_bytes(16), key_id="k", reserved=False, model="small", prompt_tokens=10, completion_tokens=5,
        spend=1_500_000, withheld=False, events=b"",
    )  # fmt: skip
    with store.writing() as connection:
        Quotas(lambda: NOW_MS).apply(connection, [used])
        Quotas(lambda: NOW_MS - 3 * 86_400_000).apply(connection, [used])
    expected = {
        "key_id": "k", "model": "small", "requests": 2, "prompt_tokens": 20, "completion_tokens": 10, "spend": 3.0,
        "withheld": 0,
    }  # fmt: skip
    told = client.get("/spend").json()
    assert told == {"from": "2026-05-01", "to": "2026-05-28", "usage": [expected]}
    (one,) = client.get("/spend", params={"from": "2026-05-28"}).json()["usage"]
    assert one["requests"] == 1
    assert client.get("/spend", params={"from": "May"}).status_code == 400


def test_the_metrics_are_of_this_hosts_workers(store: Store, client: TestClient) -> None:
    counted = Metrics()
    counted.refused(status=429, code="rate_limit_exceeded")
    MetricsWriter(store, counted, worker="w", clock_ms=lambda: NOW_MS).close()
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'mibao_refused_total{status="429",code="rate_limit_exceeded"} 1' in answer.text
    assert socket.gethostname() not in answer.text


def test_without_its_store_it_is_alive_and_not_ready(store: Store, client: TestClient) -> None:
    with store.writing() as connection:
        connection.exec_driver_sql("DROP TABLE schema_version")
    assert client.get("/healthz").json() == {"status": "ok"}
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
    assert "schema_version" not in answer.text


def test_the_description_names_every_route_and_no_other(store: Store) -> None:
    app = admin_app(store)
    served = {(route.path, method) for route in app.routes for method in route.methods if method != "HEAD"}
    paths = openapi.document()["paths"]
    assert served == {(path, method.upper()) for path, methods in paths.items() for method in methods}
    app.state.directory.close()


def test_whatever_is_sent_to_it_it_answers_as_it_is_described(store: Store) -> None:
    app = admin_app(store, clock_ms=lambda: NOW_MS)
    described = schemathesis.openapi.from_asgi("/openapi.json", app)
    called, headers = set(), key(store)
    for found in described.get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=counts(short=25, long=1000),
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(operation.as_strategy())
        def fuzz(case: schemathesis.Case) -> None:
            answer = case.call_and_validate(headers=headers)
            called.add((case.path, case.method, answer.status_code))

        fuzz()
    app.state.directory.close()
    paths = openapi.document()["paths"].items()
    assert {(path, method) for path, method, _ in called} == {
        (path, method.upper()) for path, methods in paths for method in methods if path != "/openapi.json"
    }
    assert ("/keys", "POST", 201) in called
