from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from near_duplicate_kinds import KINDS, NEVER_STRADDLE

from perpetune.curation.duplicates.canonical import bare, canonical, variant_key
from perpetune.records import Example, Message

TEXTS = (
    "Why isn't my card working? I've tried 3 shops & an ATM.",
    "The parcel that you sent on Monday came without the second lamp",
    "Wo bleibt meine Bestellung vom 4. Mai?",
    "Où est ma commande, s'il vous plaît ?",
)


@pytest.mark.parametrize("kind", [*NEVER_STRADDLE, "signature"])
@pytest.mark.parametrize("text", TEXTS)
def test_variants_have_one_canonical_form(kind: str, text: str) -> None:
    draw = random.Random(kind)
    variants = {KINDS[kind](text, draw) for _ in range(30)}
    assert len(variants) > (kind != "full_stop" and kind != "quotes")
    different = {variant: bare(variant) for variant in variants if canonical(variant) != canonical(text)}
    assert not different


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("3 cards arrived", "2 cards arrived"),
        ("Thanks to you it works", "It works"),
        ("How do I thank my agent", "How do I"),
        ("hi", "hello"),
        ("कमल", "कमला"),
        ("我的卡丢了", "我的卡到了"),
        (":-)", ":-("),
        ("👍", "👎"),
        ("12 - 7", "15 - 7"),
        ("The best. Ever", "The best"),
        ("I said hello to the agent", "I said to the agent"),
    ],
)
def test_other_texts_stay_apart(one: str, other: str) -> None:
    assert canonical(one) != canonical(other)


@given(st.text(min_size=1))
def test_no_text_is_emptied(text: str) -> None:
    assert canonical(text) or not text.strip()


def row(text: str, *before: Message) -> Example:
    messages = (*before, Message(role="user", content=text)) if before else ()
    return Example(input=text, output="a", id="1", group="1", source="s", messages=messages)


def test_variants_keep_their_signs_and_their_system_message() -> None:
    assert variant_key(row("It costs 5.")) == variant_key(row("it costs 5!"))
    assert variant_key(row("it costs €5")) != variant_key(row("it costs £5"))
    assert variant_key(row("a*b")) != variant_key(row("a/b"))
    assert len({variant_key(row(f"what is 12 {sign} 7?")) for sign in "+-*/"}) == 4
    assert variant_key(row("what is 12 - 7?")) == variant_key(row("What is 12-7"))
    assert variant_key(row("-5 + 3")) != variant_key(row("5 + 3"))
    assert variant_key(row("great 😀")) != variant_key(row("great 😡"))
    system = Message(role="system", content="Which desk?")
    assert variant_key(row("x")) != variant_key(row("x", system))
