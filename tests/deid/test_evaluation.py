import pytest

from mibao.deid.evaluation import ALL, Agreement, agreements

GOLD = [("PERSON", 0, 4), ("PERSON", 10, 14), ("PHONE_NUMBER", 20, 31)]
FOUND = [("PERSON", 0, 4), ("PERSON", 9, 13), ("EMAIL_ADDRESS", 20, 31)]


def test_exact_counts_only_equal_spans_and_overlap_any_shared_character() -> None:
    exact = agreements([(GOLD, FOUND)], exact=True)
    assert exact["PERSON"] == Agreement(gold=2, found=2, gold_hit=1, found_right=1)
    assert exact["PHONE_NUMBER"] == Agreement(gold=1)
    assert exact["EMAIL_ADDRESS"] == Agreement(found=1)
    assert exact[ALL] == Agreement(gold=3, found=3, gold_hit=1, found_right=1)
    assert agreements([(GOLD, FOUND)], exact=False)["PERSON"] == Agreement(gold=2, found=2, gold_hit=2, found_right=2)


def test_spans_that_only_touch_do_not_overlap() -> None:
    touching = agreements([([("PERSON", 0, 4)], [("PERSON", 4, 8)])], exact=False)
    assert touching["PERSON"] == Agreement(gold=1, found=1)


def test_the_scores_are_those_of_their_definitions() -> None:
    row = Agreement(gold=4, found=2, gold_hit=1, found_right=1)
    assert (row.precision, row.recall) == (0.5, 0.25)
    assert row.f(1) == pytest.approx(1 / 3)
    assert row.f(2) == pytest.approx(5 * 0.5 * 0.25 / (4 * 0.5 + 0.25))
    assert Agreement().f(1) == 1.0
    assert Agreement(gold=1).f(1) == 0.0
