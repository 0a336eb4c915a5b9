from __future__ import annotations

import json
from typing import Any

import pytest
from chat_families import FAMILIES, family_tokenizer
from transformers import PreTrainedTokenizerBase

from perpetune.model.base import Base
from perpetune.model.chat.chat_format import answer_tokens, end_of_turn, prompt_tokens, target_tokens
from perpetune.records import Example, Message
from perpetune.tool_calls import hermes, same_calls, split_calls, written

CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at": "sky"}'}}
TALK = (
    Message(role="user", content="which colour"),
    Message(role="assistant", content="", tool_calls=(CALL,)),
    Message(role="tool", content="blue", tool_call_id="call_1"),
)
TEMPLATE = (
    "{% for tool in tools or [] %}say {{ tool.function.name }} {% endfor %}"
    "{% for message in messages %}{{ message.role }} {{ message.content }} "
    "{% for call in message.tool_calls or [] %}{{ call.function.name }} {{ call.function.arguments.at }} {% endfor %}"
    "{% if message.tool_call_id %}{{ message.tool_call_id }} {% endif %}{% endfor %}"
)


@pytest.fixture
def tokenizer(tiny_base: Base) -> PreTrainedTokenizerBase:
    tiny_base.tokenizer.add_tokens(["look", "call_1", "tool"])
    return tiny_base.tokenizer


def test_templates_that_know_tools_are_shown_calls_and_results(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = TEMPLATE
    tools = json.dumps([{"type": "function", "function": {"name": "look", "parameters": {}}}])
    expected = "say look user which colour assistant look sky tool blue call_1"
    assert str(tokenizer.decode(prompt_tokens(tokenizer, TALK, tools))).split() == expected.split()
    assert str(tokenizer.decode(prompt_tokens(tokenizer, TALK))).split() == expected.split()[2:]


def test_templates_without_tools_get_the_messages(tokenizer: PreTrainedTokenizerBase) -> None:
    plain = tuple(Message(role=message.role, content=message.content) for message in TALK)
    assert prompt_tokens(tokenizer, TALK) == prompt_tokens(tokenizer, plain)


ANSWER = written([CALL, {"function": {"name": "ask", "arguments": {"about": "<|im_end|> it"}}}])
CALLED = Example(input="which colour", output=ANSWER, id="1", group="1", source="t", answers_with="tool_calls")


@pytest.mark.parametrize("name", [family.name for family in FAMILIES])
@pytest.mark.parametrize("instruction", ["", "Use a tool."])
def test_calls_are_learned_as_they_can_be_read_back(name: str, instruction: str) -> None:
    tokenizer = family_tokenizer(name)
    tokens = target_tokens(tokenizer, CALLED, instruction)

    assert tokens.count(end_of_turn(tokenizer)) == 1, "a control token that an argument spells is text"
    assert tokens[-1] == end_of_turn(tokenizer)
    assert same_calls(ANSWER, str(tokenizer.decode(tokens[:-1]))) == 1
    assert "think>" not in tokenizer.decode(tokens)


@pytest.mark.parametrize("name", ["qwen2.5-base", "qwen3"])
def test_a_template_that_writes_calls_is_followed_token_by_token(name: str) -> None:
    """What is learned stands in the whole conversation, as a server renders it later."""
    tokenizer = family_tokenizer(name)
    row = CALLED.model_copy(update={"output": written([CALL])})
    target = target_tokens(tokenizer, row, "")
    calls = [{"id": "call_0", "type": "function", "function": {"name": "look", "arguments": {"at": "sky"}}}]
    turns: list[dict[str, Any]] = [
        {"role": "user", "content": "which colour"},
        {"role": "assistant", "content": "", "tool_calls": calls},
    ]
    whole = tokenizer.apply_chat_template(turns, tokenize=False)

    assert tokenizer("<tool_call>", add_special_tokens=False)["input_ids"][0] in target
    assert str(tokenizer.decode(target)).strip() in str(whole)


def test_a_template_without_calls_gets_those_of_hermes() -> None:
    tokenizer = family_tokenizer("chatml")
    assert target_tokens(tokenizer, CALLED, "") == answer_tokens(tokenizer, hermes(ANSWER))


@pytest.mark.parametrize("name", [family.name for family in FAMILIES])
def test_a_text_before_the_calls_is_learned_with_them(name: str) -> None:
    tokenizer = family_tokenizer(name)
    row = CALLED.model_copy(update={"said": "Let me look, <|im_end|>."})
    tokens = target_tokens(tokenizer, row, "")

    assert tokens.count(end_of_turn(tokenizer)) == 1 and tokens[-1] == end_of_turn(tokenizer)
    written = str(tokenizer.decode(tokens[:-1]))
    text, calls = split_calls(written, {"look", "ask"})
    assert same_calls(ANSWER, written) == 1
    assert not calls or text.strip() == row.said


def test_a_text_is_learned_as_it_was() -> None:
    tokenizer = family_tokenizer("qwen3")
    row = Example(input="which colour", output="blue", id="1", group="1", source="t")
    assert target_tokens(tokenizer, row, "") == answer_tokens(tokenizer, "blue")
