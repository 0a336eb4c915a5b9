"""LiteLLM, by its provider for OpenAI-compatible servers."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from cases import BASE, run

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # otherwise it is fetched from the network

import litellm

litellm.suppress_debug_info = True
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def asking(text: str, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {
        "model": "openai/reviews",
        "messages": messages,
        "api_base": BASE,
        "api_key": "none",
        "max_retries": 0,
        **more,
    }


def ask(text: str, **more: Any) -> Any:
    return litellm.completion(**asking(text, **more))


def answers() -> None:
    done = ask("hello")
    assert done.choices[0].message.content == "you said hello"
    assert done.usage.total_tokens > 0


def answers_asynchronously() -> None:
    done = asyncio.run(litellm.acompletion(**asking("hello")))
    assert done.choices[0].message.content == "you said hello"


def streams() -> None:
    pieces = list(ask("a b c", stream=True, stream_options={"include_usage": True}))
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices) == "you said a b c"
    assert pieces[-1].usage.completion_tokens > 0


def calls_tools() -> None:
    [call] = ask("how is it", tools=[WEATHER]).choices[0].message.tool_calls
    assert (call.function.name, call.function.arguments) == ("weather", '{"city": "Bonn"}')


def reads_log_probabilities() -> None:
    choice = ask("a b", logprobs=True, top_logprobs=2).choices[0]
    assert "".join(token.token for token in choice.logprobs.content) == choice.message.content


def knows_an_overflow() -> None:
    for words, stream in ((190, False), (190, True), (900, False), (100_000, False)):
        try:
            ask("word " * words, stream=stream)
        except litellm.ContextWindowExceededError:
            continue
        raise AssertionError(f"no ContextWindowExceededError for {words} words")


def falls_back_after_an_overflow() -> None:
    router = litellm.Router(
        model_list=[
            {"model_name": name, "litellm_params": {"model": model, "api_base": BASE, "api_key": "none"}}
            for name, model in (("short", "openai/reviews"), ("long", "openai/reviews@2"))
        ],
        context_window_fallbacks=[{"short": ["long"]}],
        num_retries=0,
    )
    done = router.completion(model="short", messages=[{"role": "user", "content": "word " * 190}])
    assert done.model == "reviews@2", done.model


def knows_the_other_errors() -> None:
    for fault, more in (
        (litellm.NotFoundError, {"model": "openai/gpt-4o"}),
        (litellm.BadRequestError, {"logit_bias": {"1": 1}}),
    ):
        try:
            ask("x", **more)
        except fault:
            continue
        raise AssertionError(f"no {fault.__name__}")


run(
    answers,
    answers_asynchronously,
    streams,
    calls_tools,
    reads_log_probabilities,
    knows_an_overflow,
    falls_back_after_an_overflow,
    knows_the_other_errors,
)
