from __future__ import annotations

import random

import pytest

from perpetune.curation.duplicates.shared_passages import (
    JACCARD,
    PassageIndex,
    is_long,
    jaccard,
    passages_of,
    shingles,
    with_shared_passages,
)
from perpetune.curation.duplicates.word_hashes import WordNumbers
from perpetune.records import Example


def row(text: str) -> Example:
    return Example(input=text, output="a", id=text, group=text, source="made")


def changed(text: str, picks: random.Random) -> str:
    words = text.split()
    for _ in range(picks.randrange(4)):
        words[picks.randrange(len(words))] = picks.choice("abcdefgh")
    return " ".join(words[: picks.randint(8, len(words))])


@pytest.mark.parametrize("seed", range(5))
def test_the_pairs_are_those_of_comparing_all_with_all(seed: int) -> None:
    picks = random.Random(seed)
    texts = [" ".join(picks.choices("abcdefgh", k=picks.randint(8, 60))) for _ in range(60)]
    rows = [row(changed(text, picks)) for text in texts]
    others = [row(changed(picks.choice(texts), picks)) for _ in range(80)]
    expected = [
        place
        for place, one in enumerate(rows)
        if is_long(one)
        and any(is_long(other) and jaccard(shingles(one), shingles(other)) >= JACCARD for other in others)
    ]
    assert expected, "the rows must have pairs to find"
    assert with_shared_passages(rows, others) == expected


def test_nothing_is_like_no_texts() -> None:
    numbers = WordNumbers()
    assert PassageIndex(passages_of([], numbers)).like(passages_of([row("a b c d e f g h i j k")], numbers)) == []
    assert with_shared_passages([], [row("a b c d e f g h i j k")]) == []
