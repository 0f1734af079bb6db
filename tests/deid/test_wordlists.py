import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mibao.deid import Masker, Operator, parse_policy
from mibao.deid.detection import rules_engine
from mibao.deid.wordlists import LONGEST, WordList
from mibao.errors import InputError
from mibao.types import EntityType

FIXED = settings(derandomize=True, deadline=None, max_examples=150)
_WORDS = st.lists(st.text("abAB1 王林-Ａ", min_size=1, max_size=5), min_size=1, max_size=8)
_TEXTS = st.text("abAB1 王林-Ａ。", max_size=40)


@FIXED
@given(_WORDS, _TEXTS)
def test_the_automaton_and_the_pattern_find_the_same(words: list[str], text: str) -> None:
    one = WordList(EntityType.PERSON, words).find(text)
    assert one == WordList(EntityType.PERSON, words, automaton=False).find(text)
    assert all(0 <= found.start < found.end <= len(text) for found in one)


def test_words_stand_alone_in_ascii_and_anywhere_in_chinese_and_the_longest_wins() -> None:
    found = WordList(EntityType.PERSON, ["ann", "Ann Lee", "阿福"]).find("ANN Lee and Anna, 老阿福来了, Ａnn")
    assert [(each.start, each.end) for each in found] == [(0, 7), (19, 21), (25, 28)]


@pytest.mark.parametrize("word", ["", "x" * (LONGEST + 1)])
def test_a_word_that_no_stream_could_hold_is_refused(word: str) -> None:
    with pytest.raises(InputError, match=r"^word list: expected words of 1 to 61 characters$"):
        WordList(EntityType.PERSON, [word])


def test_the_words_of_a_policy_are_found_in_a_stream_however_it_is_cut() -> None:
    policy = parse_policy('name = "p"\n[words]\nPERSON = ["Zaphod", "阿福"]', source="p")
    text = "Zaphod met 阿福 and Zaphods; zaphod left. "
    expected = "<PERSON> met <PERSON> and Zaphods; <PERSON> left. "
    for cut in range(len(text)):
        masker = Masker(Operator(policy), engine=rules_engine())
        assert masker.feed(text[:cut]) + masker.feed(text[cut:]) + masker.close() == expected
    with pytest.raises(InputError, match="no such type: PEOPLE"):
        parse_policy('name = "p"\n[words]\nPEOPLE = ["x"]', source="p")
