"""Who is let in, how far, and that every worker agrees."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import delete, insert, select, update

from mibao.errors import InputError
from mibao.serving import api_keys, group_commit, recording
from mibao.serving.accounts import Accounts, Price
from mibao.serving.admission import Admission, Caller, Outcome, Refused
from mibao.serving.api_keys import Grant, KeyKind, Limits
from mibao.serving.group_commit import GroupCommit
from mibao.serving.key_directory import REMEMBERED_S
from mibao.serving.migrations import KEYS, OUTBOX, USAGE
from mibao.serving.storage import Store, Unavailable

NOW_MS = 1_780_000_000_000
CHAT = "/v1/chat/completions"
PRICES = {"small": Price(prompt_per_million=1.0, completion_per_million=4.0)}


def outcome(*, tokens: int = 0, status: int = 200, model: str = "small", **changes: object) -> Outcome:
    fields = {
        "route": CHAT, "model": model, "upstream": "u", "status": status, "findings": {"PERSON": 2},
        "prompt_tokens": 0, "completion_tokens": tokens, "seconds": 0.1, "withheld": None, **changes,
    }  # fmt: skip
    return Outcome(**fields)


class Clock:
    def __init__(self) -> None:
        self.s = 0.0

    def ms(self) -> int:
        return NOW_MS + int(self.s * 1000)

    def monotonic(self) -> float:
        return self.s


@asynccontextmanager
async def accounts_of(store: Store, clock: Clock | None = None, **options: object) -> AsyncIterator[Accounts]:
    clock = clock or Clock()
    accounts = Accounts(store, clock_ms=clock.ms, monotonic_s=clock.monotonic, **options)
    try:
        yield accounts
    finally:
        await asyncio.to_thread(accounts.close)


def key_for(store: Store, grant: Grant | None = None) -> str:
    with store.writing() as connection:
        return api_keys.create(connection, grant or Grant(tenant="acme"), now_ms=NOW_MS)[0]


async def ask(accounts: Accounts, text: str | None, *, route: str = CHAT, model: str | None = None) -> Caller:
    authorization = None if text is None else f"Bearer {text}"
    return await accounts.admit(authorization=authorization, client_certificate=None, route=route, model=model)


def test_a_key_lets_in_as_what_it_was_granted(store_place: str) -> None:
    grant = Grant(tenant="acme", policy="strict", routes=frozenset({CHAT}), models=frozenset({"small"}))

    async def run(store: Store) -> Caller:
        async with accounts_of(store) as accounts:
            assert isinstance(accounts, Admission)
            return await ask(accounts, key_for(store, grant), model="small")

    with Store.open(store_place) as store:
        caller = asyncio.run(run(store))
    assert (caller.tenant, caller.policy, caller.routes, caller.models) == (
        "acme", "strict", frozenset({CHAT}), frozenset({"small"}),
    )  # fmt: skip


def _altered(text: str) -> str:
    return text[:-1] + ("a" if text[-1] != "a" else "b")


@pytest.mark.parametrize(
    "authorization",
    [
        lambda text: f"Bearer {_altered(text)}",
        lambda text: f"Bearer {text[:-1]}",
        lambda text: f"Bearer sk-mibao-{'a' * 13}-{text[23:]}",
        lambda text: f"Basic {text}",
        lambda text: text,
        lambda text: "",
        lambda text: "Bearer " + "x" * 30_000,
        lambda text: "Bearer a.b.c",
    ],
)
def test_anything_but_the_key_is_refused_with_the_same_words(tmp_path, authorization: Callable[[str], str]) -> None:
    async def run(store: Store) -> None:
        async with accounts_of(store) as accounts:
            presented = authorization(key_for(store))
            with pytest.raises(Refused, match=r"^this API key is not valid$") as refused:
                await accounts.admit(authorization=presented, client_certificate=None, route=CHAT, model=None)
            assert (refused.value.status, refused.value.code) == (401, "invalid_api_key")

    with Store.open(tmp_path / "gateway.db") as store:
        asyncio.run(run(store))


def test_no_key_at_all_is_refused(tmp_path) -> None:
    async def run(store: Store) -> None:
        async with accounts_of(store) as accounts:
            with pytest.raises(Refused, match="expected an API key") as refused:
                await ask(accounts, None)
            assert (refused.value.status, refused.value.code) == (401, "missing_api_key")

    with Store.open(tmp_path / "gateway.db") as store:
        asyncio.run(run(store))


@pytest.mark.parametrize(
    "grant", [Grant(tenant="t", expires_ms=NOW_MS), Grant(tenant="t", kind=KeyKind.ADMIN)], ids=["expired", "admin"]
)
def test_an_expired_key_and_an_admins_open_nothing_here(tmp_path, grant: Grant) -> None:
    async def run(store: Store) -> None:
        async with accounts_of(store) as accounts:
            with pytest.raises(Refused, match="this API key is not valid"):
                await ask(accounts, key_for(store, grant))

    with Store.open(tmp_path / "gateway.db") as store:
        asyncio.run(run(store))


@pytest.mark.parametrize(
    ("route", "model", "code"),
    [("/v1/embeddings", None, "route_not_allowed"), (CHAT, "large", "model_not_allowed")],
)
def test_beyond_its_scope_a_key_is_refused(tmp_path, route: str, model: str | None, code: str) -> None:
    grant = Grant(tenant="t", routes=frozenset({CHAT}), models=frozenset({"small"}))

    async def run(store: Store) -> None:
        async with accounts_of(store) as accounts:
            with pytest.raises(Refused) as refused:
                await ask(accounts, key_for(store, grant), route=route, model=model)
            assert (refused.value.status, refused.value.code) == (403, code)

    with Store.open(tmp_path / "gateway.db") as store:
        asyncio.run(run(store))


def test_a_key_revoked_elsewhere_is_refused_within_the_time_that_is_promised(store_place: str) -> None:
    async def run(store: Store) -> None:
        clock = Clock()
        text = key_for(store)
        async with accounts_of(store, clock) as accounts:
            caller = await ask(accounts, text)
            with Store.open(store_place) as elsewhere, elsewhere.writing() as connection:
                assert api_keys.revoke(connection, caller.key_id, now_ms=NOW_MS)
            clock.s += REMEMBERED_S
            with pytest.raises(Refused, match="this API key is not valid"):
                await ask(accounts, text)

    with Store.open(store_place) as store:
        asyncio.run(run(store))


def test_a_certificate_lets_in_whom_it_was_registered_for_and_a_key_comes_first(tmp_path) -> None:
    async def run(store: Store) -> None:
        with store.writing() as connection:
            grant = Grant(tenant="held", kind=KeyKind.CERTIFICATE)
            api_keys.register_certificate(connection, b"a certificate", grant, now_ms=NOW_MS)
        async with accounts_of(store) as accounts:

            async def present(certificate: bytes, authorization: str | None = None) -> Caller:
                return await accounts.admit(
                    authorization=authorization, client_certificate=certificate, route=CHAT, model=None
                )

            assert (await present(b"a certificate")).tenant == "held"
            with pytest.raises(Refused, match="this API key is not valid"):
                await present(b"another")
            assert (await present(b"a certificate", f"Bearer {key_for(store)}")).tenant == "acme"
            with pytest.raises(Refused, match="this API key is not valid"):
                await present(b"a certificate", "Bearer wrong")

    with Store.open(tmp_path / "gateway.db") as store:
        asyncio.run(run(store))


def test_requests_at_once_are_let_in_up_to_the_limit_whichever_worker_they_ask(store_place: str) -> None:
    async def run(store: Store, other: Store) -> None:
        text = key_for(store, Grant(tenant="t", limits=Limits(requests_per_minute=10)))
        async with accounts_of(store) as one, accounts_of(other) as two:
            asked = [ask(accounts, text) for _ in range(15) for accounts in (one, two)]
            answers = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(answer, Caller) for answer in answers) == 10
        assert {answer.code for answer in answers if isinstance(answer, Refused)} == {"rate_limit_exceeded"}

    with Store.open(store_place) as store, Store.open(store_place) as other:
        asyncio.run(run(store, other))


def test_a_budget_is_spent_at_the_configured_prices_and_asks_for_priced_models_only(tmp_path) -> None:
    async def run(store: Store) -> None:
        text = key_for(store, Grant(tenant="t", limits=Limits(spend_per_month=1000)))
        async with accounts_of(store, prices=PRICES, reserved_tokens=10) as accounts:
            caller = await ask(accounts, text)
            assert caller.models == frozenset({"small"})
            await accounts.settle(caller, outcome(tokens=200, prompt_tokens=200))
            with pytest.raises(Refused, match="budget of the month is used up") as refused:
                await ask(accounts, text)
            assert refused.value.code == "budget_exceeded"
        with store.reading() as connection:
            assert connection.execute(select(USAGE.c.spend)).scalar_one() == 1000

    with Store.open(tmp_path / "gateway.db") as store:
        asyncio.run(run(store))


@pytest.mark.parametrize(
    ("told", "charged"),
    [
        ({}, 50),
        ({"model": ""}, 50),
        ({"status": 499}, 50),
        ({"status": 502}, 0),
        ({"upstream": ""}, 0),
        ({"model": "", "route": "/v1/models"}, 0),
    ],
)
def test_an_answer_whose_tokens_nobody_counted_is_charged_what_was_reserved(
    tmp_path, told: dict[str, Any], charged: int
) -> None:
    async def run(store: Store) -> int:
        text = key_for(store, Grant(tenant="t", limits=Limits(tokens_per_day=1000)))
        async with accounts_of(store, reserved_tokens=50) as accounts:
            await accounts.settle(await ask(accounts, text), outcome(**told))
        with store.reading() as connection:
            return connection.execute(select(USAGE.c.completion_tokens)).scalar_one()

    with Store.open(tmp_path / "gateway.db") as store:
        assert asyncio.run(run(store)) == charged


def test_what_is_settled_is_in_the_outbox_when_settle_returns_with_counts_and_no_names(store_place: str) -> None:
    async def run(store: Store) -> None:
        async with accounts_of(store, recording_key=bytes(32)) as accounts:
            caller = await ask(accounts, key_for(store))
            await accounts.settle(caller, outcome(tokens=7))
            with Store.open(store_place) as elsewhere, elsewhere.reading() as connection:
                (kept,) = connection.execute(select(OUTBOX.c.events)).scalars().all()
        served, found = recording.decode(bytes(kept))
        assert (served.status, served.findings, served.completion_tokens) == (200, 2, 7)
        assert (found.entity.value, found.findings, found.request) == ("PERSON", 2, served.request)
        assert served.caller == recording.caller_hash(caller, key=bytes(32))
        assert b"acme" not in bytes(kept)
        assert caller.key_id.encode() not in bytes(kept)

    with Store.open(store_place) as store:
        asyncio.run(run(store))


def test_only_a_caller_that_was_let_in_can_be_settled(tmp_path) -> None:
    async def run(store: Store) -> None:
        async with accounts_of(store) as accounts:
            with pytest.raises(InputError, match="expected the caller that admit returned"):
                await accounts.settle(Caller(tenant="t", key_id="k"), outcome())

    with Store.open(tmp_path / "gateway.db") as store:
        asyncio.run(run(store))


def test_with_the_store_gone_nobody_is_let_in(tmp_path) -> None:
    async def run(store: Store) -> None:
        limited = key_for(store, Grant(tenant="t", limits=Limits(requests_per_minute=10)))
        async with accounts_of(store) as accounts:
            await ask(accounts, limited)
            with store.writing() as connection:
                connection.exec_driver_sql("DROP TABLE request_slots")
                connection.exec_driver_sql("DROP TABLE api_keys")
            for text in (limited, f"sk-mibao-{'a' * 13}-{'a' * 52}"):
                with pytest.raises(Unavailable):
                    await ask(accounts, text)

    with Store.open(tmp_path / "gateway.db") as store:
        asyncio.run(run(store))


def test_many_that_wait_are_written_in_few_transactions_and_one_at_fault_fails_alone(tmp_path) -> None:
    sizes: list[int] = []
    begin = threading.Event()

    def apply(connection: object, batch: list[int]) -> list[int]:
        begin.wait(10)
        sizes.append(len(batch))
        if 13 in batch:
            raise KeyError(13)
        connection.execute(insert(OUTBOX), [{"request": bytes([number]), "events": b"e"} for number in batch])
        return [number * 2 for number in batch]

    async def run(store: Store) -> list[object]:
        commits = GroupCommit(store, apply)
        waiting = [asyncio.ensure_future(commits.submit(number)) for number in range(20)]
        await asyncio.sleep(0.05)
        begin.set()
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        await asyncio.to_thread(commits.close)
        with pytest.raises(Unavailable, match="closed"):
            await commits.submit(1)
        return answers

    with Store.open(tmp_path / "gateway.db") as store:
        answers = asyncio.run(run(store))
        with store.reading() as connection:
            assert len(connection.execute(select(OUTBOX.c.request)).all()) == 19
    assert [answer for answer in answers if isinstance(answer, int)] == [2 * n for n in range(20) if n != 13]
    assert isinstance(answers[13], KeyError)
    assert sizes[0] <= 20
    assert sizes[1:].count(1) >= 19


def test_a_client_that_goes_away_does_not_undo_what_it_did(tmp_path) -> None:
    async def run(store: Store) -> None:
        async with accounts_of(store, recording_key=bytes(32)) as accounts:
            caller = await ask(accounts, key_for(store))
            settling = asyncio.ensure_future(accounts.settle(caller, outcome()))
            await asyncio.sleep(0)
            settling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await settling
        with store.reading() as connection:
            assert len(connection.execute(select(OUTBOX.c.request)).all()) == 1

    with Store.open(tmp_path / "gateway.db") as store:
        asyncio.run(run(store))


def test_too_much_that_waits_is_refused(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "MAX_WAITING", 1)
    begin = threading.Event()

    async def run(store: Store) -> None:
        commits = GroupCommit(store, lambda connection, batch: begin.wait(10) and batch)
        first = asyncio.ensure_future(commits.submit(1))
        await asyncio.sleep(0.05)  # it is being written, and does not wait any more
        second = asyncio.ensure_future(commits.submit(2))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="too much waits"):
            await commits.submit(3)
        begin.set()
        assert await asyncio.gather(first, second) == [1, 2]
        await asyncio.to_thread(commits.close)

    with Store.open(tmp_path / "gateway.db") as store:
        asyncio.run(run(store))


def test_an_expiry_that_passes_while_a_key_is_remembered_counts(tmp_path) -> None:
    async def run(store: Store) -> None:
        clock = Clock()
        text = key_for(store, Grant(tenant="t", expires_ms=NOW_MS + 1000))
        async with accounts_of(store, clock) as accounts:
            await ask(accounts, text)
            clock.s += 1.0
            with pytest.raises(Refused):
                await ask(accounts, text)
            with store.writing() as connection:
                connection.execute(update(KEYS).values(expires_ms=None))

    with Store.open(tmp_path / "gateway.db") as store:
        asyncio.run(run(store))


def test_a_key_made_after_it_was_asked_for_is_let_in_at_once_and_guesses_displace_nobody(tmp_path) -> None:
    async def run(store: Store) -> None:
        clock = Clock()
        async with accounts_of(store, clock) as accounts:
            text = key_for(store)
            caller = await ask(accounts, text)
            with store.writing() as connection:
                kept = connection.execute(select(KEYS)).one()
                connection.execute(delete(KEYS))
            clock.s += REMEMBERED_S
            for _ in range(2):
                with pytest.raises(Refused):
                    await ask(accounts, text)
            with store.writing() as connection:
                connection.execute(insert(KEYS), dict(kept._mapping))
            assert (await ask(accounts, text)).key_id == caller.key_id

    with Store.open(tmp_path / "gateway.db") as store:
        asyncio.run(run(store))
