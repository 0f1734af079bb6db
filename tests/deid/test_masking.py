import logging
import traceback

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from counts import counts
from mibao.codec import records
from mibao.deid import Pseudonymiser, Vault, detect, mask, restore
from mibao.deid.masking import scope_key
from mibao.deid.pseudonyms import PLACEHOLDER, SYMBOLS, check_symbol, stem_of
from mibao.demo import notes
from mibao.errors import InputError
from mibao.types import EntityType, Language

FIXED = settings(derandomize=True, deadline=None, max_examples=40)

KEY = bytes(range(32))

_ENTITIES = st.sampled_from([entity.value for entity in EntityType])
_STEMS = st.text(SYMBOLS, min_size=9, max_size=9).map(lambda symbols: symbols + check_symbol(symbols))
_LOOK_ALIKES = st.builds(
    lambda entity, stem, tail: f"<{entity}_{stem}{tail}",
    _ENTITIES,
    _STEMS | st.text(SYMBOLS, min_size=10, max_size=10),
    st.sampled_from([">", "_0000>", "_000>", "", "_", ">>", "_0000_0000>"]),
)  # fmt: skip
_VALUES = st.sampled_from([
    "Dr. Chen", "Patient: Lin Xiaoyu", "LIN XIAOYU", "患者林晓雨", "林晓雨", "王建国医生", "13800138000",
    "+86 138 0013 8000", "１３８００１３８０００", "a@b.example", "A@B.EXAMPLE", "990101198707145121", "MRN 1234",
    "身份证990101198707145122", "病历号：ab-12345", "2026-03-12", "2026年3月12日", "12 March 2026",
    "<PERSON_", "<PHONE_NUMBER_", "<", ">", "_", "0000000000",
])  # fmt: skip
_ANY_TEXT = st.text(st.characters(codec=None), max_size=6)
TEXTS = st.lists(_LOOK_ALIKES | _VALUES | _ANY_TEXT, max_size=12).map("".join)


@settings(
    max_examples=counts(short=80, long=100_000),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(st.lists(TEXTS, min_size=1, max_size=3))
def test_restoring_gives_back_every_text_exactly(texts: list[str]) -> None:
    session = Pseudonymiser(key=KEY, scope="property")
    masked = [session.mask(text) for text in texts]
    assert [session.restore(each.text) for each in masked] == texts
    for text, each in zip(texts, masked, strict=True):
        assert PLACEHOLDER.findall(each.text) == [stem_of(token) for token in each.placeholders]
        assert each.findings == detect(text)


@FIXED
@given(TEXTS)
def test_masking_twice_is_undone_by_restoring_twice(text: str) -> None:
    session = Pseudonymiser(key=KEY, scope="twice")
    assert session.restore(session.restore(session.mask(session.mask(text).text).text)) == text


@FIXED
@given(TEXTS)
def test_another_scope_or_key_restores_nothing(text: str) -> None:
    session, stranger = Pseudonymiser(key=KEY, scope="one"), Pseudonymiser(key=KEY, scope="two")
    other_key = Pseudonymiser(key=bytes(32), scope="one")
    masked = session.mask(text).text
    assert stranger.restore(masked) == other_key.restore(masked) == masked
    stranger.mask(text)
    other_key.mask(text)
    assert stranger.restore(masked) == other_key.restore(masked) == masked


@FIXED
@given(TEXTS, TEXTS)
def test_masking_does_not_depend_on_what_was_masked_before(first: str, second: str) -> None:
    session = Pseudonymiser(key=KEY, scope="history")
    session.mask(first)
    assert session.mask(second).text == Pseudonymiser(key=KEY, scope="history").mask(second).text


def test_no_value_of_the_referral_survives_masking_and_each_keeps_its_stem_in_both_languages() -> None:
    session = Pseudonymiser(key=KEY, scope="referral")
    for names in notes.ONE_PERSON_EACH:
        session.link(EntityType.PERSON, *names)
    english, chinese = (session.mask(text) for text in notes.REFERRAL)
    values = ("Lin Xiaoyu", "林晓雨", "Chen Mingyuan", "陈明远", "138", "lin.xiaoyu", "990101", "00417", "March", "3月")
    assert not [value for value in values if value in english.text + chinese.text]
    stems = [{stem_of(token) for token in each.placeholders} for each in (english, chinese)]
    assert stems[0] == stems[1]
    assert len(stems[0]) == 7
    assert (english.language, chinese.language) == (Language.ENGLISH, Language.CHINESE)
    assert [session.restore(each.text) for each in (english, chinese)] == list(notes.REFERRAL)


def test_an_answer_that_uses_placeholders_in_its_own_words_is_restored() -> None:
    session = Pseudonymiser(key=KEY, scope="answer")
    (token,) = session.mask("Dr. Chen").placeholders
    assert session.restore(f"Tell {token} and {token}'s team.") == "Tell Chen and Chen's team."


@pytest.mark.parametrize("damage", [
    lambda t: t.lower(), lambda t: t[1:-1], lambda t: t.replace("<", "< "), lambda t: t[:-2] + ">",
    lambda t: t.replace("_", " "), lambda t: t.replace("PERSON", "PHONE_NUMBER"), lambda t: t[:-1] + "_0000>",
    lambda t: t[:8] + t[8:-1][::-1] + ">",
])  # fmt: skip
def test_a_damaged_placeholder_is_never_guessed_at(damage) -> None:  # type: ignore[no-untyped-def]
    session = Pseudonymiser(key=KEY, scope="damage")
    (token,) = session.mask("Dr. Chen").placeholders
    assert damage(token) != token
    assert session.restore(damage(token)) == damage(token)


def test_an_unknown_placeholder_with_a_right_check_symbol_stays() -> None:
    session = Pseudonymiser(key=KEY, scope="unknown")
    session.mask("Dr. Chen")
    unknown = f"<PERSON_{'0' * 9}{check_symbol('0' * 9)}>"
    assert session.restore(unknown) == unknown


def test_a_restored_value_is_not_itself_restored() -> None:
    session = Pseudonymiser(key=KEY, scope="once")
    (token,) = session.mask("Dr. Chen").placeholders
    masked = session.mask(f"he wrote {token} literally")
    assert token not in masked.text
    assert session.restore(masked.text) == f"he wrote {token} literally"


def test_one_event_for_each_type_counts_findings_and_distinct_values() -> None:
    vault = Vault(scope_key=bytes(32))
    masked = mask("13800138000, +86 138 0013 8000, 13900139000, Dr. Chen", vault=vault)
    counted = {event.entity: (event.findings, event.distinct) for event in masked.events}
    assert counted == {EntityType.PERSON: (1, 1), EntityType.PHONE_NUMBER: (3, 2)}
    assert all(event.scope == vault.scope and event.language is Language.ENGLISH for event in masked.events)
    restored = restore(masked.text + masked.placeholders[0] + "<PERSON_0000000000>", vault=vault)
    assert (restored.event.scope, restored.event.placeholders) == (vault.scope, 5)


def test_personal_data_shows_in_no_repr_event_log_or_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    session = Pseudonymiser(key=KEY, scope="scope Zebulon")
    text = "Dr. Zebulon, zebulon@example.com, 13800138000; and a Zebulon again, MRN 00417"
    masked = session.mask(text)
    restored = restore(masked.text, vault=session.vault)
    assert masked.events
    shown = [repr(thing) for thing in (masked, restored, session, session.vault, *masked.findings, *masked.events)]
    shown += [str(records.to_value(event)) for event in (*masked.events, restored.event)]
    shown.append(caplog.text)
    with pytest.raises(InputError) as refused:
        session.link(EntityType.PERSON, "Nobody", "Zebulon")
    shown += traceback.format_exception_only(refused.value)
    joined = "".join(shown).lower()
    assert not [value for value in ("zebulon", "13800138000", "00417", KEY.hex()) if value in joined]


def test_two_scopes_and_two_keys_give_unlinkable_placeholders() -> None:
    sessions = [Pseudonymiser(key=key, scope=scope) for key in (KEY, bytes(32)) for scope in ("a", "b")]
    assert len({session.mask("Dr. Chen").text for session in sessions}) == 4
    assert len({session.vault.scope for session in sessions}) == 4


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(InputError, match=r"^pseudonymiser: expected a key of 32 bytes, got 31$"):
        Pseudonymiser(key=bytes(31), scope="a")


def test_any_text_can_name_a_scope() -> None:
    assert scope_key(KEY, "病人\ud800") != scope_key(KEY, "病人")
