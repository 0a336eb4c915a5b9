from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from perpetune.evaluation.scores.text_metrics import TEXT_METRICS, exact_match, rouge_l, squad_tokens, token_f1

QUICK = settings(max_examples=40, deadline=None)


def test_exact_match_ignores_whitespace_alone() -> None:
    assert exact_match("in  two\ndays", " in two days ") == 1
    assert exact_match("In two days", "in two days") == 0
    assert exact_match("cafe\u0301", "caf\u00e9") == 1


@pytest.mark.parametrize(
    ("expected", "answer", "f1"),
    [
        ("The cat sat.", "a cat sat", 1.0),
        ("red green blue", "green blue yellow black", 2 * 2 / 7),
        ("to be or not to be", "to to to", 2 * 2 / 9),
        ("yes", "no", 0.0),
        ("", "", 1.0),
        ("", "something", 0.0),
        ("the", "...", 1.0),
        ("我喜欢猫", "我喜欢狗", 0.75),
        ("«Größe»", "größe", 1.0),
    ],
)
def test_token_f1_by_hand(expected: str, answer: str, f1: float) -> None:
    assert token_f1(expected, answer) == pytest.approx(f1)


def test_tokens_are_those_of_squads_scorer() -> None:
    assert squad_tokens("An  apple, isn't  THE pear-tree!") == ["apple", "isnt", "peartree"]


def test_rouge_l_by_hand() -> None:
    # The longest common subsequence is "police the gunman": 3 of 4 and 3 of 5 words.
    assert rouge_l("police killed the gunman", "police ended up the gunman") == pytest.approx(2 * 0.75 * 0.6 / 1.35)


@QUICK
@given(st.text("abc XY.,-'7", max_size=40), st.text("abc XY.,-'7", max_size=40))
def test_rouge_l_of_english_is_that_of_the_package(expected: str, answer: str) -> None:
    assert rouge_l(expected, answer) == RougeScorer(["rougeL"]).score(expected, answer)["rougeL"].fmeasure


def test_rouge_l_reads_other_scripts() -> None:
    assert rouge_l("посылка придёт завтра", "посылка придёт сегодня") == pytest.approx(2 / 3)


@QUICK
@given(st.text(max_size=30), st.text(max_size=30))
def test_every_score_is_a_share_and_equal_texts_are_right(expected: str, answer: str) -> None:
    for metric in TEXT_METRICS.values():
        assert 0 <= metric(expected, answer) <= 1
    assert exact_match(expected, expected) == token_f1(expected, expected) == 1
