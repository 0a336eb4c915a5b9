from __future__ import annotations

import html
import json
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from perpetune.erasure.scrubber import ERASED, SHORTEST, Scrubber

SECRET = 'my name is "Ann" & I\'d <owe>\n50\\100 to Bob; a | b_c'
WRITERS = {
    "plain": str,
    "json": lambda text: json.dumps({"a": text}),
    "json in unicode": lambda text: json.dumps({"a": text}, ensure_ascii=False),
    "html": lambda text: f"<p>{html.escape(text)}</p>",
    "html without quotes": lambda text: f"<p>{html.escape(text, quote=False)}</p>",
    "json in html": lambda text: f"<script>{html.escape(json.dumps(text))}</script>",
    "repr in a log": lambda text: f"ERROR row={text!r} failed",
}


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS.keys())
def test_a_text_is_found_however_it_is_written(writer: object) -> None:
    assert callable(writer)
    found = Scrubber(None, [SECRET]).text(f"before {writer(SECRET)} after")
    assert ERASED in found and "Ann" not in found and "Bob" not in found
    assert found.startswith("before ") and found.endswith(" after")


@given(st.text(st.characters(categories=["L", "N", "Zs"]), min_size=60, max_size=300), st.integers(41, 300))
def test_what_is_shown_shortened_goes_too(text: str, shown: int) -> None:
    assume(text[:40].strip() and "\u0130" not in text)
    found = Scrubber(None, [text]).text(f"- a: {text[:shown]}… (duplicate)")
    assert text[:40] not in found
    assert (found.endswith("… (duplicate)") and ERASED in found) or text[:shown] == text


@given(st.text(max_size=SHORTEST - 1), st.text(max_size=100))
def test_short_texts_of_everybody_stay(short: str, other: str) -> None:
    page = f"<p>said: {html.escape(other)}</p>"
    assume(f">{html.escape(short)}<" not in page)
    assert Scrubber(None, [short]).text(page) == page


def test_json_stays_json_and_a_list_keeps_its_length() -> None:
    scrubber = Scrubber(re.compile("bob", re.IGNORECASE), [])
    terms = {"terms": ["call bob", "Bob", "alice", "ask bob"], "bob": 1, "rows": [["x", 1], ["bob", 2]]}
    found = scrubber.value(terms)
    assert "bob" not in json.dumps(found).lower()
    assert len(set(found["terms"])) == 4 and found["terms"][2] == "alice"
    assert found["rows"][0] == ["x", 1]


def test_a_golden_prompt_goes_whole_even_if_its_text_is_short() -> None:
    prompts = [
        {"messages": [{"role": "user", "content": text}], "output": "yes", "confidence": 0.5}
        for text in ("hi", "hello there")
    ]
    found = Scrubber(None, ["hi"]).value({"temperature": 1.0, "golden": prompts})
    assert found == {"temperature": 1.0, "golden": prompts[1:]}
