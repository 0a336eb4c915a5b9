"""Chunks of OpenAI's chat API, as servers cut them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from perpetune.engines.openai_api.chat import StreamAssembler, read_answers
from perpetune.generation.answer import Answer, TokenLogprob
from perpetune.generation.parameters import Delta, GenerationConfig

SCORED = GenerationConfig(16, top_logprobs=1)
SMILE = "\N{SLIGHTLY SMILING FACE}"


def token(text: str, utf8: bytes | None = None) -> dict[str, Any]:
    """As OpenAI and vLLM list a token; some servers leave its bytes out."""
    listed = {"bytes": list(utf8)} if utf8 is not None else {}
    return {"token": text, "logprob": -0.5, **listed, "top_logprobs": [{"token": text, "logprob": -0.5, **listed}]}


# A character in three tokens, as OpenAI and as vLLM show it.
ESCAPED = [token("\\xf0\\x9f", b"\xf0\x9f"), token("\\x99", b"\x99"), token("\\x82", b"\x82")]
IN_ONE = [token("", b""), token("", b""), token(SMILE, SMILE.encode())]
STREAMS = [
    ([(" Good", [token(" Good")]), (" day", [token(" day")]), ("\n", [token("\n")])], "Good day"),
    ([("\n\n", [token("\n\n")]), (" a", [token(" a", b" a")])], "a"),
    ([("", ESCAPED[:2]), (f"{SMILE}!", [ESCAPED[2], token("!", b"!")])], f"{SMILE}!"),
    ([("", IN_ONE[:2]), (SMILE, IN_ONE[2:]), (" b", [token(" b")])], f"{SMILE} b"),
    ([("a", [token("a")]), ("b", [token("b"), token(" STOP")])], "ab"),  # the server cut its stop string
]


def streamed(pieces: list[tuple[str, list[dict[str, Any]]]]) -> tuple[Answer, list[Delta]]:
    deltas: list[Delta] = []
    assembler = StreamAssembler(SCORED, deltas.append)
    for text, tokens in pieces:
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": None, "logprobs": {"content": tokens}}
        assembler.add({"choices": [choice]})
    assembler.add({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 4}})
    [answer] = assembler.answers(0.0)
    return answer, deltas


def whole(pieces: list[tuple[str, list[dict[str, Any]]]]) -> Answer:
    text = "".join(text for text, _ in pieces)
    tokens = [one for _, tokens in pieces for one in tokens]
    choice = {"index": 0, "message": {"content": text}, "finish_reason": "stop", "logprobs": {"content": tokens}}
    usage = {"prompt_tokens": 7, "completion_tokens": 4}
    return read_answers({"choices": [choice], "usage": usage}, SCORED, 0.0)[0]


def spell(one: TokenLogprob) -> bytes:
    return one.token.encode() if one.utf8 is None else one.utf8


@pytest.mark.parametrize(("pieces", "text"), STREAMS)
def test_tokens_join_to_the_text(pieces: list[tuple[str, list[dict[str, Any]]]], text: str) -> None:
    answer, deltas = streamed(pieces)
    at_once = whole(pieces)
    assert answer.text == at_once.text == text
    assert answer.logprobs == at_once.logprobs
    assert answer.logprobs is not None
    assert "".join(one.token for one in answer.logprobs) == text
    assert b"".join(map(spell, answer.logprobs)) == text.encode()
    assert sum((delta.logprobs or () for delta in deltas), ()) == answer.logprobs
    for one in answer.logprobs:
        assert one.top == ((one.token, -0.5),)


def test_a_half_character_keeps_its_bytes() -> None:
    answer = whole(STREAMS[2][0])
    assert answer.logprobs is not None
    assert [(one.token, spell(one)) for one in answer.logprobs] == [
        ("", b"\xf0\x9f"),
        ("", b"\x99"),
        (SMILE, b"\x82"),
        ("!", b"!"),
    ]


@pytest.mark.parametrize("where", ["chunk", "choice"])
def test_tokens_are_counted_as_they_come(where: str) -> None:
    """vLLM lists them on request; of others each chunk counts as one."""
    deltas: list[Delta] = []
    assembler = StreamAssembler(GenerationConfig(16), deltas.append)
    first = {"index": 0, "delta": {"role": "assistant"}, "finish_reason": None}
    ids = {"prompt_token_ids": [1, 2, 3]}
    assembler.add({"choices": [first], **ids} if where == "chunk" else {"choices": [{**first, **ids}]})
    for text, written in (("a", [5]), ("", [6]), ("bc", [7, 8])):
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": None, "token_ids": written}
        assembler.add({"choices": [choice]})
    assert [(delta.text, delta.tokens, delta.prompt_tokens) for delta in deltas] == [("a", 1, 3), ("bc", 3, 3)]
    deltas.clear()
    other = StreamAssembler(GenerationConfig(16), deltas.append)
    other.add(json.loads('{"choices": [{"index": 0, "delta": {"content": "a b"}, "finish_reason": null}]}'))
    assert [(delta.tokens, delta.prompt_tokens) for delta in deltas] == [(1, 0)]
