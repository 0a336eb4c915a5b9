from __future__ import annotations

import random
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from perpetune.curation.duplicates.shared_passages import JACCARD, MIN_WORDS, jaccard, shingles, words
from perpetune.evaluation.leakage import leakage
from perpetune.records import Example, Message

LONG = "the parcel that you sent on monday came without the second lamp so please send the other one soon"


def row(text: str, id: str = "x", messages: tuple[Message, ...] = ()) -> Example:
    return Example(input=text, output="a", id=id, group=id, source="test", messages=messages)


def test_the_same_question_is_found_whatever_its_case_its_system_message_and_its_length() -> None:
    asked = (Message(role="system", content="Which desk?"), Message(role="user", content="Great product"))
    found = leakage([row("great  PRODUCT")], [row("Great product", "held", asked), row("Bad product", "other")])
    assert (found.same, found.near, found.rows) == (("held",), (), 2)


def test_a_long_question_with_another_end_is_a_near_duplicate() -> None:
    found = leakage([row(LONG)], [row(f"{LONG.upper()}, thanks!", "held"), row("the lamp " + LONG[:30], "other")])
    assert (found.same, found.near) == ((), ("held",))


def test_short_inputs_count_only_if_they_are_equal() -> None:
    assert leakage([row("I like it very much!")], [row("I like it, very much", "held")]).near == ()


texts = st.lists(st.sampled_from("abcd"), min_size=8, max_size=30).map(" ".join)


@settings(max_examples=150, deadline=None)
@given(st.lists(texts, max_size=6), texts, st.integers(0, 29))
def test_no_near_duplicate_is_missed(trained: list[str], base: str, position: int) -> None:
    changed = base.split()
    changed[position % len(changed)] = "e"
    rows = [row(text, str(n)) for n, text in enumerate([*trained, base])]
    held = row(" ".join(changed), "held")
    exact = any(
        jaccard(shingles(held), shingles(other)) >= JACCARD and len(words(other)) >= MIN_WORDS for other in rows
    )
    assert (leakage(rows, [held]).near == ("held",)) == (exact and len(words(held)) >= MIN_WORDS)


def test_thousands_of_rows_are_compared_in_seconds() -> None:
    draw = random.Random(7)
    vocabulary = [f"w{n}" for n in range(2000)]

    def some(count: int) -> list[Example]:
        return [
            row("dear sir or madam i write about " + " ".join(draw.choices(vocabulary, k=25)), str(n))
            for n in range(count)
        ]

    trained, held = some(5000), some(1000)
    began = time.process_time()
    assert leakage(trained, held).near == ()
    assert time.process_time() - began < 5
