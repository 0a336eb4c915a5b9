"""Conversations to tokens, with the tokenizer's chat template."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import jinja2
from transformers import PreTrainedTokenizerBase

from perpetune.records import Message

# For base models without a chat template.
PLAIN_TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n\n{% endfor %}{% if add_generation_prompt %}Answer:{% endif %}"


def prompt_tokens(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: str | None = None
) -> list[int]:
    """The tokens of a prompt, with the generation prompt. `tools` is OpenAI's list of tools as JSON."""
    text = _render(tokenizer, messages, json.loads(tools) if tools else None)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def answer_tokens(tokenizer: PreTrainedTokenizerBase, output: str) -> list[int]:
    """The tokens of an answer with the end-of-turn token.

    They are tokenised separately from the prompt, as the model generates them.
    """
    text = output if tokenizer.chat_template else " " + output
    return [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]


def _render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: list[Any] | None) -> str:
    turns = [_turn(message) for message in messages]
    try:
        return _apply(tokenizer, turns, tools)
    except jinja2.TemplateError:
        # Mistral's and Gemma's templates reject system messages: put it before the first user message.
        if not turns or turns[0]["role"] != "system":
            raise
        return _apply(tokenizer, _fold_system(turns), tools)


def _turn(message: Message) -> dict[str, Any]:
    turn = message.model_dump(exclude_none=True)
    if message.tool_calls:
        turn["tool_calls"] = [_with_parsed_arguments(call) for call in message.tool_calls]
    return turn


def _with_parsed_arguments(call: dict[str, Any]) -> dict[str, Any]:
    """Parse a call's arguments, which OpenAI sends as JSON text, because templates serialise them."""
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        return {**call, "function": {**function, "arguments": json.loads(function["arguments"])}}
    except ValueError:
        return call


def _apply(tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, Any]], tools: list[Any] | None) -> str:
    return str(
        tokenizer.apply_chat_template(
            turns,
            tools=tools,
            chat_template=None if tokenizer.chat_template else PLAIN_TEMPLATE,
            tokenize=False,
            add_generation_prompt=True,
        )
    )


def _fold_system(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    system, first, *rest = turns
    return [{**first, "content": f"{system['content']}\n\n{first['content']}"}, *rest]
