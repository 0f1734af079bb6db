"""Made-up values of the same form: one for each true one, known again as they were written and as nothing else."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counts import counts
from mibao.serving.configuration import SURROGATES
from mibao.serving.placeholders import Names
from mibao.serving.restoring import Restorer, Sent, restored
from mibao.types import EntityType

NOTHING = Sent(())
TRUE = {
    "Jane Doe": EntityType.PERSON,
    "张伟明": EntityType.PERSON,
    "jane@example.com": EntityType.EMAIL_ADDRESS,
    "+86 138 0013 8000": EntityType.PHONE_NUMBER,
    "4111 1111 1111 1111": EntityType.CREDIT_CARD,
    "李": EntityType.PERSON,
}


@pytest.fixture(scope="module")
def names():
    made = Names(scope_key=b"k" * 32, policy=SURROGATES)
    for written, entity in TRUE.items():
        made.changed(entity, written)
    return made


def sent(names, written):
    return names.changed(TRUE[written], written)


def test_they_have_the_form_of_what_they_stand_for_and_come_back(names):
    for written in list(TRUE)[:-1]:
        surrogate = sent(names, written)
        assert "<" not in surrogate
        assert [symbol.isdigit() for symbol in surrogate if not symbol.isalpha()] == [
            symbol.isdigit() for symbol in written if not symbol.isalpha()
        ] or "@" in written
        assert restored(f"({surrogate}), {surrogate}'s.", names, NOTHING) == f"({written}), {written}'s."


def test_one_that_is_too_short_to_be_known_again_is_a_placeholder(names):
    assert sent(names, "李").startswith("<PERSON_")


def test_two_people_never_share_one():
    names = Names(scope_key=b"k" * 32, policy=SURROGATES)
    people = [f"Anna {chr(65 + first)}{chr(97 + second)}x" for first in range(26) for second in range(26)]
    made = [names.changed(EntityType.PERSON, person) for person in people]
    assert len(set(made)) == len(people)
    assert [restored(f"Dear {name},", names, NOTHING) for name in made] == [f"Dear {person}," for person in people]


def test_one_that_the_user_wrote_himself_stands_for_nobody(names):
    other = Names(scope_key=b"k" * 32, policy=SURROGATES)
    written = sent(names, "Jane Doe")
    assert other.changed(EntityType.PERSON, "Jane Doe", f"I know {written} too").startswith("<PERSON_")
    other.changed(EntityType.EMAIL_ADDRESS, "jane@example.com")
    other.surrogates.leave(f"also {sent(names, 'jane@example.com')}")
    assert restored(sent(names, "jane@example.com"), other, NOTHING) == sent(names, "jane@example.com")


@pytest.mark.parametrize("around", ["x{}", "{}x", "{}1", "_{}", "{}@x", "a.{}", "{}.evil.example", "{}-b"])
def test_within_a_longer_word_it_is_another(names, around):
    text = around.format(sent(names, "jane@example.com"))
    assert restored(text, names, NOTHING) == text


@pytest.mark.parametrize("link", ["https://evil.example/?q={}", "![x](https://evil.example/{})", "mailto:{}"])
def test_nothing_is_restored_inside_of_links(names, link):
    text = link.format(sent(names, "jane@example.com"))
    assert restored(text, names, NOTHING) == text
    assert restored(text, names, Sent((text,))) != text or link == "mailto:{}"


def test_what_a_worker_kept_is_known_to_another(names):
    other = Names(scope_key=b"k" * 32, policy=SURROGATES)
    for name, written in names.values.items():
        other.know(name, written)
    text = " and ".join(sent(names, written) for written in TRUE)
    assert restored(text, other, NOTHING) == " and ".join(TRUE)


@settings(max_examples=counts(short=200, long=20_000), deadline=None)
@given(st.data())
def test_a_stream_restores_what_the_whole_would_however_it_is_cut(names, data):
    own = [sent(names, written) for written in TRUE]
    parts = st.sampled_from([*own, *(name[:-2] for name in own), *(name[1:] for name in own), " ", ".", "-", "x", "明"])
    text = "".join(data.draw(st.lists(parts, max_size=10)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=30)))
    restorer = Restorer(names, NOTHING)
    pieces = [restorer.feed(text[start:end]) for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert "".join(pieces) + restorer.close() == restored(text, names, NOTHING)
