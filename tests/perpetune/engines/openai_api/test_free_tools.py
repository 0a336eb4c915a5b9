"""Calls of the model's own accord: the same streamed in pieces of any size as at once."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from perpetune.engines.openai_api.chat import merge_call
from perpetune.engines.openai_api.free_tools import free_tools
from perpetune.generation.answer import Answer, TokenLogprob
from perpetune.generation.parameters import Delta, GenerationConfig

TOOLS = json.dumps([{"type": "function", "function": {"name": "look", "parameters": {}}}])
ASKED = GenerationConfig(max_tokens=100, tools=TOOLS)
CALL = '<tool_call>\n{"name": "look", "arguments": {"at": "sky"}}\n</tool_call>'
TEXTS = {
    CALL: ("", 1),
    f"Let me look: \n\n{CALL}\n{CALL}": ("Let me look:", 2),
    "if a < b and b <c then [1, 2] is {not} a call  ": ("if a < b and b <c then [1, 2] is {not} a call  ", 0),
    '{"name": "look"': ('{"name": "look"', 0),
    '  {"name": "Ann", "arguments": 1} and <tool>': ('  {"name": "Ann", "arguments": 1} and <tool>', 0),
    "": ("", 0),
}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_streamed_as_at_once(text: str, size: int) -> None:
    tools, sent = free_tools(ASKED), list[Delta]()
    assert tools is not None
    send = tools.on_delta(sent.append)
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    logprobs = [TokenLogprob(piece, -0.5) for piece in pieces]
    for piece, logprob in zip(pieces, logprobs, strict=True):
        send(Delta(0, piece, (logprob,)))
    answer = Answer(text, None, None, 5, len(pieces), "stop", 0.1, tuple(logprobs))
    [found] = tools.answers([answer], sent.append)
    assert "".join(delta.text for delta in sent) == found.text == TEXTS[text][0]
    assert [each for delta in sent for each in delta.logprobs or ()] == logprobs
    calls: dict[int, dict[str, Any]] = {}
    for each in (call for delta in sent for call in delta.tool_calls):
        merge_call(calls.setdefault(int(str(each["index"])), {}), each)
    assert len(found.tool_calls) == len(calls) == TEXTS[text][1]
    assert [call["id"] for call in found.tool_calls] == [calls[place]["id"] for place in sorted(calls)]
    for call in found.tool_calls:
        assert call["function"] == {"name": "look", "arguments": '{"at": "sky"}'}
    assert found.finish_reason == ("tool_calls" if calls else "stop")


def test_text_is_sent_as_soon_as_it_is_certain() -> None:
    tools, sent = free_tools(ASKED), list[str]()
    assert tools is not None
    send = tools.on_delta(lambda delta: sent.append(delta.text))
    for piece in ("Let me", " look <", "b", "> now", " <tool_", "call>"):
        send(Delta(0, piece))
    assert sent == ["Let me", " look", " <b> now"] or "".join(sent) == "Let me look <b> now"


def test_an_answer_that_was_cut_off_says_so() -> None:
    tools = free_tools(ASKED)
    assert tools is not None
    [found] = tools.answers([Answer(CALL, None, None, 5, 9, "length", 0.1)], None)
    assert found.tool_calls and found.finish_reason == "length"


@pytest.mark.parametrize(
    "asked", [replace(ASKED, tools=None), replace(ASKED, json_schema="{}"), replace(ASKED, tools="[]")]
)
def test_without_tools_or_under_a_schema_nothing_is_a_call(asked: GenerationConfig) -> None:
    assert free_tools(asked) is None
