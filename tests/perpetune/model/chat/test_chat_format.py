from __future__ import annotations

import json

import pytest
from transformers import PreTrainedTokenizerBase

from perpetune.model.base import Base
from perpetune.model.chat.chat_format import prompt_tokens
from perpetune.records import Message

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
