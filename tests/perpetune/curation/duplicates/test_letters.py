from __future__ import annotations

import pytest

from perpetune.curation.duplicates.letters import folded, has_words, words_of


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("café", "cafe"),
        ("ещё", "еще"),
        ("diyarbakır", "diyarbakir"),  # the capital of both is the same
        ("pаypаl", "paypal"),  # with Cyrillic letters
        ("👍!", "👍"),
    ],
)
def test_accents_and_letters_that_look_the_same_make_no_difference(one: str, other: str) -> None:
    assert folded(one) == folded(other)


@pytest.mark.parametrize(("one", "other"), [("がき", "かき"), ("कमल", "कमला"), ("👍", "👎"), ("a1", "a2")])
def test_marks_that_are_letters_do(one: str, other: str) -> None:
    assert folded(one) != folded(other)


def test_words_have_no_punctuation_and_signs_without_spaces_are_words() -> None:
    assert words_of("my top-up isn't there!") == ("my", "topup", "isnt", "there")
    assert words_of("カード") == ("カ", "ー", "ド")
    assert words_of("บัตรหาย")[:2] == ("บ", "ั")


def test_numbers_are_no_words() -> None:
    assert has_words("7 b") and has_words("👍") and not has_words("7 - 5")
