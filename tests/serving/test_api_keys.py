"""API keys: made, shown once, found again, revoked."""

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from command_line import mibao
from mibao.errors import InputError
from mibao.serving import api_keys
from mibao.serving.api_keys import Grant, KeyKind, Limits
from mibao.serving.storage import Store
from tls_server import Authority

EVERYTHING = Grant(
    tenant="acme",
    label="the chat's",
    policy="strict",
    routes=frozenset({"/v1/chat/completions"}),
    models=frozenset({"small", "large"}),
    limits=Limits(requests_per_minute=60, tokens_per_day=10_000, spend_per_month=5_000_000),
    expires_ms=2_000,
)


@pytest.mark.parametrize("grant", [EVERYTHING, Grant(tenant="t"), Grant(tenant="t", kind=KeyKind.ADMIN)])
def test_a_key_is_found_by_its_text_with_all_that_it_was_granted(store_place: str, grant: Grant) -> None:
    with Store.open(store_place) as store, store.writing() as connection:
        text, made = api_keys.create(connection, grant, now_ms=1_000)
        key_id, secret = api_keys.parse(text)
        found = api_keys.find(connection, key_id)
    assert found == made
    assert found.grant == grant
    assert api_keys.opens(found, api_keys.secret_digest(secret))


def test_nothing_of_a_secret_is_in_the_store(tmp_path: Path) -> None:
    with Store.open(tmp_path / "gateway.db") as store:
        with store.writing() as connection:
            text, record = api_keys.create(connection, Grant(tenant="t"), now_ms=0)
        stored = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert record.key_id.encode() in stored
    assert text.rpartition("-")[2].encode() not in stored
    assert text not in repr(record)


def test_two_keys_share_neither_id_nor_secret(tmp_path: Path) -> None:
    with Store.open(tmp_path / "gateway.db") as store, store.writing() as connection:
        texts = [api_keys.create(connection, Grant(tenant="t"), now_ms=0)[0] for _ in range(20)]
    assert len({part for text in texts for part in api_keys.parse(text)}) == 40


def test_another_secret_does_not_open_a_record_and_no_record_opens_for_none(tmp_path: Path) -> None:
    with Store.open(tmp_path / "gateway.db") as store, store.writing() as connection:
        _, record = api_keys.create(connection, Grant(tenant="t"), now_ms=0)
    assert not api_keys.opens(record, api_keys.secret_digest("a" * 52))
    assert not api_keys.opens(None, bytes(32))


@given(st.text(max_size=100) | st.from_regex(r"sk-mibao-[a-z2-7]{12,14}-[a-z2-7]{51,53}", fullmatch=True))
def test_only_the_exact_form_is_taken_for_a_key(text: str) -> None:
    parsed = api_keys.parse(text)
    assert parsed is None or f"sk-mibao-{parsed[0]}-{parsed[1]}" == text
    assert (parsed is not None) == (len(text) == 75 and text.startswith("sk-mibao-") and text[22] == "-")


def test_a_revoked_key_says_so_and_is_revoked_once(store_place: str) -> None:
    with Store.open(store_place) as store, store.writing() as connection:
        _, made = api_keys.create(connection, EVERYTHING, now_ms=1_000)
        assert made.refusal(1_999) is None
        assert made.refusal(2_000) == "expired"
        assert api_keys.revoke(connection, made.key_id, now_ms=1_500)
        assert not api_keys.revoke(connection, made.key_id, now_ms=1_600)
        assert api_keys.find(connection, made.key_id).refusal(1_501) == "revoked"
        assert not api_keys.revoke(connection, "nosuchkey", now_ms=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tenant": ""}, "expected a tenant"),
        ({"tenant": "a\nb"}, "none of them a control character"),
        ({"tenant": "a\u202eb"}, "none of them a control character"),
        ({"tenant": "a" * 201}, "at most 200 characters"),
    ],
)
def test_a_grant_whose_names_would_mislead_is_refused(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Grant(**arguments)


def test_a_limit_below_nothing_is_refused() -> None:
    with pytest.raises(InputError, match=r"tokens_per_day: expected 0 to \d+, got -1"):
        Limits(tokens_per_day=-1)


def test_the_command_makes_lists_and_revokes(store_place: str, tmp_path: Path) -> None:
    made = mibao(
        "apikey", "create", "--store", store_place, "--tenant", "acme", "--label", "chat", "--model", "small",
        "--requests-per-minute", 5, "--spend-per-month", 2.5, "--expires", "90d", folder=tmp_path,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    key_id, _ = api_keys.parse(made.stdout.strip())
    listed = mibao("apikey", "list", "--store", store_place, "--jsonl", folder=tmp_path)
    (shown,) = map(json.loads, listed.stdout.splitlines())
    assert shown["id"] == key_id
    assert (shown["state"], shown["models"], shown["spend_per_month"]) == ("open", ["small"], 2.5)
    assert shown["expires_ms"] - shown["created_ms"] == 90 * 86_400_000
    assert datetime.fromtimestamp(shown["created_ms"] / 1000, tz=UTC).year >= 2026
    table = mibao("apikey", "list", "--store", store_place, folder=tmp_path).stdout
    assert key_id in table
    assert "models small; 5 requests/min; 2.5 a month" in table
    revoked = mibao("apikey", "revoke", key_id, "--store", store_place, folder=tmp_path)
    assert revoked.returncode == 0
    assert "revoked" in mibao("apikey", "list", "--store", store_place, folder=tmp_path).stdout
    again = mibao("apikey", "revoke", key_id, "--store", store_place, folder=tmp_path)
    assert (again.returncode, again.stderr) == (2, "error: apikey: expected the id of a key that is not revoked yet\n")


def test_the_command_registers_a_certificate_once(tmp_path: Path) -> None:
    pem = Authority(tmp_path).ca_file
    made = mibao("apikey", "create", "--certificate", pem, "--tenant", "t", folder=tmp_path)
    assert made.returncode == 0, made.stderr
    with Store.open(tmp_path / "gateway.db") as store, store.reading() as connection:
        (record,) = api_keys.every(connection)
    assert record.key_id == made.stdout.strip()
    command = ["openssl", "x509", "-in", str(pem), "-noout", "-fingerprint", "-sha256"]
    fingerprint = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert fingerprint.strip().partition("=")[2].replace(":", "").lower() == record.digest.hex()
    again = mibao("apikey", "create", "--certificate", pem, folder=tmp_path)
    assert (again.returncode, again.stderr) == (2, "error: API key: that certificate is registered already\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("list",), "gateway.db: no such file; name the gateway's store with --store or $MIBAO_STORE"),
        (("create", "--expires", "soon"), "--expires: expected a time such as 30m, 12h, 90d or 1y, got soon"),
        (("create", "--admin", "--certificate", "x.pem"), "apikey: expected either --admin or --certificate"),
        (("create", "--certificate", "x.pem"), "x.pem: cannot be read (No such file or directory)"),
    ],
)
def test_the_command_refuses(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = mibao("apikey", *arguments, folder=tmp_path)
    assert (done.returncode, done.stderr) == (2, f"error: {message}\n")
    assert list(tmp_path.iterdir()) == []
