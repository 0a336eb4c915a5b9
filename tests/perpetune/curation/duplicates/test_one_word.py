from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from perpetune.curation.duplicates.one_word import MAX_FILLERS, MIN_WORDS, one_word_apart

WORDS = st.lists(st.sampled_from("abcd"), min_size=1, max_size=7).map(tuple)


def without_one(words: tuple[str, ...]) -> set[tuple[str, ...]]:
    return {words[:place] + words[place + 1 :] for place in range(len(words))}


def are_one_word_apart(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    return bool(({one} | without_one(one)) & ({other} | without_one(other)))


@settings(max_examples=300, deadline=None)
@given(st.lists(WORDS, max_size=MAX_FILLERS, unique=True))
def test_exactly_the_pairs_that_a_comparison_of_all_finds(texts: list[tuple[str, ...]]) -> None:
    long = [position for position, text in enumerate(texts) if len(text) >= MIN_WORDS]
    expected = {
        (one, other) for one in long for other in long if one < other and are_one_word_apart(texts[one], texts[other])
    }
    assert set(one_word_apart(texts)) == expected


def test_the_slot_of_a_template_joins_nothing() -> None:
    def ticket(number: int) -> tuple[str, ...]:
        return ("where", "is", "my", "ticket", f"no{number}")

    few, many = [ticket(n) for n in range(MAX_FILLERS)], [ticket(n) for n in range(MAX_FILLERS + 1)]
    assert len(set(one_word_apart(few))) == MAX_FILLERS * (MAX_FILLERS - 1) // 2
    assert not set(one_word_apart(many))


def test_no_texts_and_very_long_ones() -> None:
    assert not list(one_word_apart([]))
    assert not list(one_word_apart([("a",) * 1000, ("a",) * 1001]))
