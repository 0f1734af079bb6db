"""What a key may use: never more than its limits, whoever counts, in whatever order."""

import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from counts import counts
from mibao.crypto.rng import random_bytes
from mibao.serving.admission import Refused
from mibao.serving.api_keys import Limits
from mibao.serving.migrations import OUTBOX, REQUEST_SLOTS, RESERVATIONS, USAGE
from mibao.serving.quotas import RESERVATION_MS, Quotas, Reserve, Reserved, Settle
from mibao.serving.storage import Store

NOON = int(datetime(2026, 2, 27, 12, tzinfo=UTC).timestamp() * 1000)
DAY = 86_400_000


class Clock:
    def __init__(self) -> None:
        self.now_ms = NOON

    def __call__(self) -> int:
        return self.now_ms


def reserve(limits: Limits, *, key: str = "k", tokens: int = 100, spend: int = 1000) -> Reserve:
    return Reserve(reservation=random_bytes(16), key_id=key, limits=limits, tokens=tokens, spend=spend)


def settle(of: Reserve | bytes, *, tokens: int, spend: int = 0, key: str = "k", events: bytes = b"") -> Settle:
    request = of.reservation if isinstance(of, Reserve) else of
    return Settle(
        request=request, key_id=key, reserved=isinstance(of, Reserve), model="m", prompt_tokens=0,
        completion_tokens=tokens, spend=spend, withheld=False, events=events,
    )  # fmt: skip


def apply(store: Store, quotas: Quotas, *batch: Reserve | Settle) -> list[Reserved | Refused | None]:
    with store.writing() as connection:
        return quotas.apply(connection, batch)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@settings(max_examples=counts(short=25, long=500), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(st.integers(0, 20_000), st.integers(1, 4)), min_size=1, max_size=40),
    st.integers(1, 8),
)
def test_no_sixty_seconds_hold_more_requests_than_the_limit(
    tmp_path: Path, steps: list[tuple[int, int]], limit: int
) -> None:
    clock, admitted, key = Clock(), [], random_bytes(8).hex()
    quotas = Quotas(clock)
    with Store.open(tmp_path / "gateway.db") as store:
        for wait_ms, many in steps:
            clock.now_ms += wait_ms
            batch = [reserve(Limits(requests_per_minute=limit), key=key) for _ in range(many)]
            answers = apply(store, quotas, *batch)
            admitted += [clock.now_ms] * sum(isinstance(answer, Reserved) for answer in answers)
            for answer in answers:
                if isinstance(answer, Refused):  # and after the time it names, there is room
                    assert 1 <= answer.retry_after_s <= 66
    for first in admitted:
        assert sum(first <= other < first + 60_000 for other in admitted) <= limit


def test_a_limit_of_requests_admits_exactly_so_many_and_again_after_the_time_it_says(
    store_place: str, clock: Clock
) -> None:
    limits = Limits(requests_per_minute=3)
    with Store.open(store_place) as store:
        quotas = Quotas(clock)
        assert [type(apply(store, quotas, reserve(limits))[0]) for _ in range(3)] == [Reserved] * 3
        (refused,) = apply(store, quotas, reserve(limits))
        assert (refused.status, refused.code) == (429, "rate_limit_exceeded")
        clock.now_ms += 1000 * int(refused.retry_after_s) - 1000
        assert isinstance(apply(store, quotas, reserve(limits))[0], Refused)
        clock.now_ms += 1000
        assert isinstance(apply(store, quotas, reserve(limits))[0], Reserved)


def test_a_batch_is_decided_in_order_and_each_key_for_itself(store_place: str, clock: Clock) -> None:
    limits = Limits(requests_per_minute=2)
    with Store.open(store_place) as store:
        batch = [reserve(limits, key=key) for key in "abababab"]
        answers = apply(store, Quotas(clock), *batch)
    assert [isinstance(answer, Reserved) for answer in answers] == [True] * 4 + [False] * 4


def test_requests_at_the_same_time_cannot_reserve_more_tokens_than_are_left(store_place: str, clock: Clock) -> None:
    limits = Limits(tokens_per_day=250)
    with Store.open(store_place) as store:
        answers = apply(store, Quotas(clock), *(reserve(limits) for _ in range(4)))
    assert answers[:3] == [Reserved(tokens=100, spend=0), Reserved(tokens=100, spend=0), Reserved(tokens=50, spend=0)]
    assert (answers[3].status, answers[3].code, answers[3].retry_after_s) == (429, "quota_exceeded", 12 * 3600)


def test_what_was_reserved_and_not_used_is_free_again_and_what_was_used_is_not(store_place: str, clock: Clock) -> None:
    limits = Limits(tokens_per_day=100)
    with Store.open(store_place) as store:
        quotas = Quotas(clock)
        first = reserve(limits)
        apply(store, quotas, first)
        assert isinstance(apply(store, quotas, reserve(limits))[0], Refused)
        apply(store, quotas, settle(first, tokens=60))
        second = reserve(limits)
        assert apply(store, quotas, second) == [Reserved(tokens=40, spend=0)]
        apply(store, quotas, settle(second, tokens=40))
        assert isinstance(apply(store, quotas, reserve(limits))[0], Refused)
        clock.now_ms += DAY
        assert isinstance(apply(store, quotas, reserve(limits))[0], Reserved)


def test_a_budget_is_of_the_month(store_place: str, clock: Clock) -> None:
    limits = Limits(spend_per_month=1500)
    with Store.open(store_place) as store:
        quotas = Quotas(clock)
        first = reserve(limits)
        assert apply(store, quotas, first) == [Reserved(tokens=0, spend=1000)]
        apply(store, quotas, settle(first, tokens=1, spend=1500))
        clock.now_ms += DAY  # 28 February
        (refused,) = apply(store, quotas, reserve(limits))
        assert (refused.code, refused.retry_after_s) == ("budget_exceeded", 12 * 3600)
        clock.now_ms += DAY  # 1 March
        assert isinstance(apply(store, quotas, reserve(limits))[0], Reserved)


def test_a_reservation_that_nobody_settles_is_charged_when_it_expires(store_place: str, clock: Clock) -> None:
    limits = Limits(tokens_per_day=100)
    with Store.open(store_place) as store:
        quotas = Quotas(clock)
        apply(store, quotas, reserve(limits))
        clock.now_ms += RESERVATION_MS
        with store.writing() as connection:
            quotas.sweep(connection)
            assert connection.execute(select(RESERVATIONS)).all() == []
            assert connection.execute(select(USAGE.c.completion_tokens)).scalars().all() == [100]
        assert isinstance(apply(store, quotas, reserve(limits))[0], Refused)


def test_a_sweep_forgets_minutes_that_are_over_and_no_other(store_place: str, clock: Clock) -> None:
    with Store.open(store_place) as store:
        quotas = Quotas(clock)
        apply(store, quotas, reserve(Limits(requests_per_minute=9)))
        clock.now_ms += 300_000
        apply(store, quotas, reserve(Limits(requests_per_minute=9)))
        with store.writing() as connection:
            quotas.sweep(connection)
            assert connection.execute(select(REQUEST_SLOTS.c.requests)).scalars().all() == [1]


def test_usage_is_summed_by_key_day_and_model_and_events_are_kept(store_place: str, clock: Clock) -> None:
    with Store.open(store_place) as store:
        batch = [settle(random_bytes(16), tokens=5, spend=2, events=b"e") for _ in range(3)]
        apply(store, Quotas(clock), *batch)
        apply(store, Quotas(clock), settle(random_bytes(16), tokens=1, key="other"))
        with store.reading() as connection:
            columns = (USAGE.c.key_id, USAGE.c.requests, USAGE.c.completion_tokens, USAGE.c.spend)
            rows = connection.execute(select(*columns).order_by(USAGE.c.key_id)).all()
            assert [tuple(row) for row in rows] == [("k", 3, 15, 6), ("other", 1, 1, 0)]
            kept = connection.execute(select(OUTBOX.c.request).order_by(OUTBOX.c.position)).scalars().all()
            assert [bytes(request) for request in kept] == [operation.request for operation in batch]


def test_many_stores_that_decide_at_once_admit_no_more_than_one_would(store_place: str, clock: Clock) -> None:
    limits = Limits(requests_per_minute=40, tokens_per_day=1000)
    admitted: list[Reserved] = []

    def work() -> None:
        with Store.open(store_place) as store:
            quotas = Quotas(clock)
            for _ in range(15):
                operation = reserve(limits, tokens=30)
                (answer,) = apply(store, quotas, operation)
                if isinstance(answer, Reserved):
                    admitted.append(answer)
                    apply(store, quotas, settle(operation, tokens=answer.tokens))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(answer.tokens for answer in admitted) == 1000
    assert len(admitted) == 34
