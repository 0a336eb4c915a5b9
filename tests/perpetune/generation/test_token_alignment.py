"""Log-probabilities say the same as the answer's text, whatever is cut from it and however it arrives."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perpetune.generation.answer import TokenLogprob
from perpetune.generation.stop_sequences import StopFilter
from perpetune.generation.token_alignment import AlignedLogprobs, decoded


def spell(token: TokenLogprob) -> bytes:
    return token.token.encode() if token.utf8 is None else token.utf8


def run(pieces: list[TokenLogprob], stop: tuple[str, ...] = ()) -> tuple[str, list[TokenLogprob]]:
    """The text, and the tokens taken in the course of it."""
    text, aligned = StopFilter(stop), AlignedLogprobs()
    taken: list[TokenLogprob] = []
    for piece in pieces:
        aligned.extend([piece])
        text.add(piece.token)
        taken += aligned.take(text, final=text.stopped)
        assert text.text.startswith("".join(token.token for token in taken))
        if text.stopped:
            return text.text, taken
    text.end()
    return text.text, [*taken, *aligned.take(text, final=True)]


def tokens(*texts: str) -> list[TokenLogprob]:
    return [TokenLogprob(text, -float(place), ((text, -float(place)), ("?", -9.0))) for place, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("pieces", "stop", "expected"),
    [
        ([" Good", " day"], (), ["Good", " day"]),
        (["\n", " ", "Good", " ", "\n"], (), ["Good"]),
        ([" a", "b\n\n"], (), ["a", "b"]),
        (["a", " b", " END", " c"], (" END",), ["a", " b"]),
        (["a", " bE", "N", "D c"], ("END",), ["a", " b"]),
        (["a", " ", "E", "x"], ("END",), ["a", " ", "E", "x"]),
        (["END"], ("END",), []),
    ],
)
def test_tokens_are_cut_as_the_text_is(pieces: list[str], stop: tuple[str, ...], expected: list[str]) -> None:
    text, taken = run(tokens(*pieces), stop)
    assert [token.token for token in taken] == expected
    assert "".join(expected) == text
    for token in taken:
        assert token.top[0] == (token.token, token.logprob) and token.top[1] == ("?", -9.0)


def test_characters_in_several_tokens_keep_their_bytes() -> None:
    parts = [b" \xf0\x9f", b"\x99", b"\x82!", "é".encode()[:1], "é".encode()[1:]]
    pieces = [TokenLogprob(text, -1.0, utf8=utf8) for text, utf8 in decoded(parts)]
    assert [piece.token for piece in pieces] == [" ", "", "\N{SLIGHTLY SMILING FACE}!", "", "é"]
    text, taken = run(pieces)
    assert text == "\N{SLIGHTLY SMILING FACE}!é"
    assert "".join(token.token for token in taken) == text
    assert b"".join(map(spell, taken)) == text.encode()
    assert list(map(spell, taken))[:2] == [b"\xf0\x9f", b"\x99"]


@settings(max_examples=300, deadline=None)
@given(
    st.text(st.sampled_from(" \nab<>é🙂"), max_size=24),
    st.lists(st.integers(0, 60), max_size=12),
    st.sampled_from([(), ("<>",), ("b", "a<")]),
)
def test_whatever_the_text_and_its_tokens(text: str, cuts: list[int], stop: tuple[str, ...]) -> None:
    raw = text.encode()
    ends = sorted({min(cut, len(raw)) for cut in cuts} | {len(raw)})
    parts = [raw[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
    said, taken = run([TokenLogprob(one, -1.0, utf8=utf8) for one, utf8 in decoded(parts)], stop)
    assert "".join(token.token for token in taken) == said
    assert b"".join(map(spell, taken)) == said.encode()


def test_tokens_that_are_not_the_text_are_passed_on() -> None:
    text, aligned = StopFilter(()), AlignedLogprobs()
    aligned.extend(tokens("token_id:7", "token_id:9"))
    text.add("good day")
    assert [token.token for token in aligned.take(text)] == ["token_id:7", "token_id:9"]
    aligned.extend(tokens("more"))
    assert len(aligned.take(text, final=True)) == 1


def test_tokens_of_no_text_are_passed_on_at_the_end() -> None:
    """A call of a tool has tokens, and no text."""
    text, aligned = StopFilter(()), AlignedLogprobs()
    aligned.extend(tokens("<call>", "f()"))
    assert aligned.take(text) == ()
    assert [token.token for token in aligned.take(text, final=True)] == ["<call>", "f()"]
