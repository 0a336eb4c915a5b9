from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perpetune.curation.duplicates.one_word import MAX_FILLERS, MIN_WORDS, Neighbourhoods, one_word_apart

WORDS = st.lists(st.sampled_from("abcd"), min_size=1, max_size=7).map(tuple)


def without_one(words: tuple[str, ...]) -> set[tuple[str, ...]]:
    return {words[:place] + words[place + 1 :] for place in range(len(words))}


def are_one_word_apart(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    shared = ({one} | without_one(one)) & ({other} | without_one(other))
    return any(len(words) >= MIN_WORDS for words in shared)


@settings(max_examples=300, deadline=None)
@given(st.lists(WORDS, max_size=MAX_FILLERS, unique=True))
def test_exactly_the_pairs_that_a_comparison_of_all_finds(texts: list[tuple[str, ...]]) -> None:
    expected = {
        (one, other)
        for one in range(len(texts))
        for other in range(one + 1, len(texts))
        if are_one_word_apart(texts[one], texts[other])
    }
    assert set(one_word_apart(texts)) == expected


def test_the_slot_of_a_template_joins_nothing() -> None:
    def ticket(number: int) -> tuple[str, ...]:
        return ("where", "is", "my", "ticket", f"no{number}")

    few, many = [ticket(n) for n in range(MAX_FILLERS)], [ticket(n) for n in range(MAX_FILLERS + 1)]
    assert len(set(one_word_apart(few))) == MAX_FILLERS * (MAX_FILLERS - 1) // 2
    assert not set(one_word_apart(many))


def test_no_texts_and_endless_ones() -> None:
    assert not list(one_word_apart([]))
    assert not list(one_word_apart([("a",) * 10_000, ("b",) * 10_000]))


@pytest.mark.parametrize("length", [150, 201, 700, 3_000])
def test_another_number_is_found_in_a_text_of_any_length(length: int) -> None:
    draw = random.Random(length)
    words = [f"word{draw.choice('abcdefgh')}{draw.choice('abcdefgh')}" for _ in range(length)]
    for place in draw.sample(range(length), 20):
        one, other = ([*words[:place], number, *words[place + 1 :]] for number in ("17", "2031"))
        assert set(one_word_apart([one, other])) == {(0, 1)}, place
    longer = [*words, "17"]
    assert set(one_word_apart([words, longer])) == {(0, 1)}


def test_several_texts_of_one_owner_are_no_pair() -> None:
    found = Neighbourhoods()
    for owner, text in enumerate(("my old card", "my new card", "my old card is lost")):
        found.add(text.split(), owner)
    assert not set(found.pairs(np.array([0, 0, 1], dtype=np.int32)))
