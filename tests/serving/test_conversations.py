"""Which conversation a request belongs to: never another's, however alike they are."""

import asyncio

import pytest

from mibao.deid.policies import PSEUDONYMS
from mibao.serving.admission import Caller
from mibao.serving.conversations import Conversations, answer_turns, turns
from mibao.serving.storage import Store
from mibao.serving.vault_store import StoredVault
from mibao.types import EntityType

ALICE = Caller(tenant="a", key_id="1")
HISTORY, ANSWER = turns({"messages": [{"role": "user", "content": "Hi"}]})[0], [b"answer"]


@pytest.fixture
def time_s():
    return [0.0]


@pytest.fixture
def known(time_s):
    return Conversations(key=b"k" * 32, clock_s=lambda: time_s[0], ttl_s=100.0)


def begun(known, caller=ALICE):
    """A first turn, answered; the key of its names."""
    names = known.continued(caller, [], PSEUDONYMS)
    known.remember(caller, [*HISTORY, *ANSWER], names)
    return names.scope_key


def gone_on(known, caller=ALICE):
    return known.continued(caller, [*HISTORY, *ANSWER], PSEUDONYMS).scope_key


def test_a_second_turn_finds_the_names_of_its_first_once(known):
    names = begun(known)
    assert gone_on(known) == names
    assert gone_on(known) != names


def test_the_next_turn_knows_only_what_stands_in_it(known):
    names = known.continued(ALICE, [], PSEUDONYMS)
    core = names.pseudonym(EntityType.PERSON, "Jane")
    known.remember(ALICE, [*HISTORY, *ANSWER], names)
    next_turn = known.continued(ALICE, [*HISTORY, *ANSWER], PSEUDONYMS)
    assert not len(next_turn)
    assert next_turn.pseudonym(EntityType.PERSON, "Jane") == core


def test_two_that_have_come_to_one_history_find_neither(known):
    both = [begun(known), begun(known)]
    assert gone_on(known) not in both


def test_a_second_turn_that_is_sent_again_never_finds_who_came_to_the_same_history_since(known):
    first = begun(known)
    assert gone_on(known) == first
    second = begun(known)
    assert gone_on(known) not in (first, second)


def test_a_second_turn_that_began_elsewhere_never_finds_who_came_to_the_same_history_since(known):
    gone_on(known)
    here = begun(known)
    assert gone_on(known) != here


@pytest.mark.parametrize("other", [Caller(tenant="a", key_id="2"), Caller(tenant="b", key_id="1")])
def test_another_key_and_another_tenant_find_nothing(known, other):
    names = begun(known)
    assert gone_on(known, other) != names
    mine, others = (asyncio.run(known.named(who, "c", PSEUDONYMS)) for who in (ALICE, other))
    assert mine.scope_key != others.scope_key


def test_after_its_time_it_is_forgotten(known, time_s):
    names = begun(known)
    time_s[0] = 101
    assert gone_on(known) != names


@pytest.fixture
def workers(store_place):
    """Two workers of one gateway."""
    with Store.open(store_place) as one, Store.open(store_place) as two:
        yield [
            Conversations(
                key=b"k" * 32, clock_s=lambda: 0.0, vault=StoredVault(store, key=b"v" * 32, clock_ms=lambda: 1)
            )
            for store in (one, two)
        ]


def test_another_worker_goes_on_with_a_conversation_that_has_a_name(workers):
    async def run():
        names = await workers[0].named(ALICE, "c", PSEUDONYMS)
        core = names.pseudonym(EntityType.PERSON, "Jane")
        await workers[0].keep(names)
        elsewhere = await workers[1].named(ALICE, "c", PSEUDONYMS)
        assert elsewhere.values == {core: "Jane"}
        elsewhere.pseudonym(EntityType.PERSON, "John")
        await workers[1].keep(elsewhere)
        assert (await workers[0].named(ALICE, "c", PSEUDONYMS)).values == elsewhere.values
        assert not len(await workers[0].named(Caller(tenant="b", key_id="1"), "c", PSEUDONYMS))

    asyncio.run(run())


def test_another_worker_goes_on_after_a_response_and_after_one_of_two_with_the_same_id_nobody_does(workers):
    async def run():
        for mail in ("a@example.com", "b@example.com"):
            names = workers[0].continued(ALICE, [], PSEUDONYMS)
            names.changed(EntityType.EMAIL_ADDRESS, mail)
            await workers[0].keep(names)
            await workers[0].answered(ALICE, f"resp_{mail}", names)
            assert (await workers[1].after(ALICE, f"resp_{mail}", PSEUDONYMS)).values == names.values
            await workers[1].answered(ALICE, f"resp_{mail}", names)
            assert (await workers[1].after(ALICE, f"resp_{mail}", PSEUDONYMS)).values == names.values
            await workers[1].answered(ALICE, "resp_same", names)
        assert await workers[0].after(ALICE, "resp_same", PSEUDONYMS) is None
        assert await workers[0].after(ALICE, "resp_none", PSEUDONYMS) is None

    asyncio.run(run())


def test_without_a_vault_nobody_goes_on_after_one_of_two_responses_with_the_same_id(known):
    async def run():
        for _ in range(2):
            await known.answered(ALICE, "resp_same", known.continued(ALICE, [], PSEUDONYMS))
        assert await known.after(ALICE, "resp_same", PSEUDONYMS) is None

    asyncio.run(run())


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{ }"}}
ITEM = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
ANSWERS = {
    "a chat's, its content in parts and its reasoning left out": (
        {"choices": [{"message": {"content": "a", "refusal": None, "reasoning_content": "r"}}]},
        [{"content": [{"type": "text", "text": "a"}], "role": "assistant"}],
    ),
    "a call of a chat's, its arguments written anew": (
        {"choices": [{"message": {"content": None, "tool_calls": [CALL]}}]},
        [{"role": "assistant", "tool_calls": [{**CALL, "function": {"arguments": "{}"}}]}],
    ),
    "Anthropic's, its thinking left out": (
        {
            "content": [
                {"type": "thinking", "thinking": "t"},
                {"text": "a"},
                {"type": "tool_use", "id": "c", "input": 1},
            ]
        },
        [{"role": "assistant", "content": [{"text": "a"}, {"input": {"text": "x"}, "id": "c", "type": "tool_use"}]}],
    ),
    "items of a response, its reasoning left out": (
        {"output": [{"type": "reasoning"}, {"role": "assistant", "content": [{"text": "a"}]}, ITEM]},
        [{"role": "assistant", "content": "a"}, {**ITEM, "status": "completed"}],
    ),
}


@pytest.mark.parametrize("about", ANSWERS)
def test_an_answer_is_known_again_however_the_client_writes_it(about):
    answer, sent_back = ANSWERS[about]
    messages = [{"role": "user", "content": "Hi"}, *sent_back, {"role": "user", "content": "x"}]
    said, answered = turns({"messages": messages})
    assert said[:answered] == [*HISTORY, *answer_turns(answer)]


def test_in_memory_a_conversation_that_has_a_name_goes_on_until_its_time(known, time_s):
    async def run():
        names = await known.named(ALICE, "c", PSEUDONYMS)
        core = names.pseudonym(EntityType.PERSON, "Jane")
        await known.keep(names)
        assert (await known.named(ALICE, "c", PSEUDONYMS)).values == {core: "Jane"}
        assert not len(await known.named(ALICE, "d", PSEUDONYMS))
        time_s[0] = 101
        assert not len(await known.named(ALICE, "c", PSEUDONYMS))

    asyncio.run(run())
