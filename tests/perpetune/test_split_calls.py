"""Calls that a model writes into its text: in the formats of the common chat templates, and what is no call."""

from __future__ import annotations

import pytest

from perpetune.tool_calls import may_become_a_call, split_calls

CALL = '{"name": "look", "arguments": {"at": "sky"}}'
FOUND = [{"name": "look", "arguments": {"at": "sky"}}]
TOOLS = {"look", "go"}


@pytest.mark.parametrize(
    ("text", "said", "calls"),
    [
        (CALL, "", FOUND),
        (f"<tool_call>\n{CALL}\n</tool_call>", "", FOUND),
        (f"Let me look.\n\n<tool_call>\n{CALL}\n</tool_call>", "Let me look.", FOUND),
        (f"<tool_call>\n{CALL}\n</tool_call>\n<tool_call>\n{CALL}\n</tool_call>", "", [*FOUND, *FOUND]),
        (f"<tool_call>{CALL}</tool_call> done", "done", FOUND),
        (f"[TOOL_CALLS] [{CALL}, {CALL}]", "", [*FOUND, *FOUND]),
        (f"<|tool_call|>[{CALL}]<|/tool_call|>", "", FOUND),
        ('<|python_tag|>{"name": "look", "parameters": {"at": "sky"}}', "", FOUND),
        ('{"type": "function", "function": {"name": "look", "arguments": "{\\"at\\": \\"sky\\"}"}}', "", FOUND),
        ('<tool_call>{"name": "go"}</tool_call>', "", [{"name": "go", "arguments": {}}]),
    ],
)
def test_calls_are_cut_out_of_the_text(text: str, said: str, calls: list[object]) -> None:
    assert split_calls(text, TOOLS) == (said, calls)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " no call < at all ",
        '{"name": "Ann", "arguments": "none"}',
        '{"name": "look"}',
        f'[{CALL}, {{"name": "else", "arguments": {{}}}}]',
        '<tool_call>{"name": "look", "arguments": {"at": "sk',
        '{"answer": [1, 2]}\n',
    ],
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert split_calls(text, TOOLS) == (text, [])


@pytest.mark.parametrize(
    "text", ["<", "<t", "<tool", "<tool_call>{", "<|", "[", "[T", "[TOOL_CALLS] x", "{", '{"n', CALL]
)
def test_what_may_become_a_call(text: str) -> None:
    assert may_become_a_call(text)


@pytest.mark.parametrize("text", ["< ", "<b>", "<3 ", "</b>", "[1", "[x", "{1", "{}", '{"answer"', "[]"])
def test_what_cannot(text: str) -> None:
    assert not may_become_a_call(text)
