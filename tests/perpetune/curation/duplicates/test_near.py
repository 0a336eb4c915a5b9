from __future__ import annotations

import random
from collections import Counter

import pytest

from perpetune.curation.duplicates.minhash import similar_texts
from perpetune.curation.duplicates.near import NearDuplicates, near_duplicates, stars
from perpetune.curation.readers.row import example_of
from perpetune.records import Example, Message


def row(text: str) -> Example:
    return example_of({"input": text, "output": "a"}, "s")


def passage(draw: random.Random, words: int = 60) -> list[str]:
    return ["".join(draw.choices("abcdefghijklmnop", k=draw.randint(3, 8))) for _ in range(words)]


def test_long_texts_with_a_few_other_words_are_similar_and_unlike_ones_are_not() -> None:
    draw = random.Random(7)
    texts = []
    for _ in range(200):
        words = passage(draw)
        changed = [*words]
        for place in draw.sample(range(len(words)), 4):
            changed[place] = "other"
        texts += ["".join(words), "".join(changed)]
    found = set(similar_texts(texts))
    assert len([pair for pair in found if pair[0] // 2 == pair[1] // 2]) >= 190
    assert all(one // 2 == other // 2 for one, other in found)


def test_forms_that_are_filled_in_differently_are_not_similar() -> None:
    form = "this is to confirm the appointment that you made with our clinic on the telephone yesterday at "
    assert not list(similar_texts([f"{form}{n}" for n in range(100, 300)]))


@pytest.mark.parametrize("texts", [[], ["short"], ["a" * 100]])
def test_too_few_texts_are_compared_with_none(texts: list[str]) -> None:
    assert not list(similar_texts(texts))


def test_rows_are_compared_without_their_system_message() -> None:
    asked = row("Where is my card").model_copy(
        update={"messages": (Message(role="system", content="s"), Message(role="user", content="where is my card?"))}
    )
    near = near_duplicates([row("Where is my card"), asked, row("where is your card")])
    assert near.text_of(asked) == 0
    assert near.like(0) == {1}


def test_a_chain_of_small_changes_joins_no_unlike_texts() -> None:
    links = 50
    near = NearDuplicates({}, {n: frozenset({n - 1, n + 1} & set(range(links))) for n in range(links)})
    centres = stars(range(links), near)
    assert all(text == centre or centre in near.like(text) for text, centre in centres.items())
    assert max(Counter(centres.values()).values()) <= 3


def test_a_star_needs_no_neighbour_outside_of_the_texts() -> None:
    near = NearDuplicates({}, {0: frozenset({1}), 1: frozenset({0})})
    assert stars([1], near) == {1: 1}
