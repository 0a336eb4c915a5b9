from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perpetune.model.chat.control_tokens import has_spelling, mark, pattern_of


@given(
    tokens=st.lists(st.text("<|ab.*>", min_size=1, max_size=5), max_size=6),
    text=st.text("<|ab.*>", max_size=30),
)
def test_the_longest_token_is_found_first(tokens: list[str], text: str) -> None:
    longest_first = "|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) or "(?!)"
    assert pattern_of(tokens).findall(text) == re.findall(longest_first, text)


def test_thousands_of_tokens_are_looked_for_quickly() -> None:
    """Gemma 3 has 6,242 unused ones, and a training set thousands of rows with markup in them."""
    pattern = pattern_of([f"<unused{number}>" for number in range(6242)] + ["<start_of_turn>", "[multimodal]"])
    text = "The quick <b>brown</b> fox [1] jumps over it. " * 90
    began = time.perf_counter()
    assert not has_spelling([text] * 100, pattern)
    assert time.perf_counter() - began < 0.5, "it was over a second with one alternative for each token"


@pytest.mark.parametrize("value", ["a", ["a", {"b": "c"}], {"role": "x"}, None, 3, ({"a": ["b"]},)])
def test_values_without_a_spelling_stay_the_same_objects(value: object) -> None:
    assert mark(value, pattern_of(["<s>"])) is value
