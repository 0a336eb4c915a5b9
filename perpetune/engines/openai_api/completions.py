"""Prompts as tokens in OpenAI's completions API: request bodies, and replies in the form of chat replies.

Templates are rendered here rather than by the server, so that both engines and the training have the same tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from perpetune.engines.openai_api.chat import chat_body
from perpetune.generation.parameters import GenerationConfig


def completion_body(model: str, prompt: Sequence[int], generation: GenerationConfig) -> dict[str, Any]:
    """The request for answers to a prompt; tokens in the reply are named by their ids."""
    body = chat_body(model, (), generation)
    for name in ("messages", "logprobs", "top_logprobs", "tools", "tool_choice"):
        body.pop(name, None)
    body |= {"prompt": list(prompt)}
    if generation.top_logprobs is not None:
        body |= {"logprobs": generation.top_logprobs, "return_tokens_as_token_ids": True}
    return body


def as_chat(
    reply: Mapping[str, Any], generation: GenerationConfig, text_of: Callable[[int], str], stops: Collection[int]
) -> dict[str, Any]:
    """A reply, or a chunk of one, as that of the chat API, without the log-probability of the token at which it ends."""
    return {**reply, "choices": [_choice(choice, generation, text_of, stops) for choice in reply["choices"]]}


def token_id(shown: str) -> int:
    """The id in "token_id:504"."""
    return int(shown.removeprefix("token_id:"))


def _choice(
    choice: Mapping[str, Any], generation: GenerationConfig, text_of: Callable[[int], str], stops: Collection[int]
) -> dict[str, Any]:
    message = {"content": choice["text"]}
    found = choice.get("logprobs")
    logprobs = {"content": _logprobs(found, generation.top_logprobs or 0, text_of, stops)} if found else None
    return {**choice, "message": message, "delta": message, "logprobs": logprobs}


def _logprobs(
    found: Mapping[str, Any], most: int, text_of: Callable[[int], str], stops: Collection[int]
) -> list[dict[str, Any]]:
    steps = zip(found["tokens"], found["token_logprobs"], found["top_logprobs"] or (), strict=True)
    return [
        {"token": text_of(token_id(token)), "logprob": logprob, "top_logprobs": _top(top, most, text_of)}
        for token, logprob, top in steps
        if token_id(token) not in stops
    ]


def _top(top: Mapping[str, float], most: int, text_of: Callable[[int], str]) -> list[dict[str, Any]]:
    """The likeliest tokens; the server adds the one that was drawn."""
    best = sorted(top.items(), key=lambda pair: -pair[1])[:most]
    return [{"token": text_of(token_id(token)), "logprob": logprob} for token, logprob in best]
