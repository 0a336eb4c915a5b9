"""The clients that people use, unchanged, against a real gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from perpetune.engines.engine import EngineDown, Overloaded
from perpetune.generation.answer import PromptTooLong
from perpetune.testing.fake_engine import FakeEngine

Start = Callable[..., Any]
HELLO: Any = [{"role": "user", "content": "hello"}]
CALL: dict[str, object] = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Bonn"}'},
}


class Review(BaseModel):
    """What a review says."""

    stars: int
    reason: str


def say_review(version: str, messages: Any) -> str:
    return json.dumps({"stars": 4, "reason": messages[-1].content})


def call_weather(messages: Any) -> tuple[dict[str, object], ...]:
    return () if messages[-1].role == "tool" else (CALL,)


@tool
def weather(city: str) -> str:
    """How the weather is in a city."""
    return f"rain in {city}"


@pytest.fixture
def client() -> Iterator[Callable[..., openai.OpenAI]]:
    clients: list[openai.OpenAI] = []

    def make(gateway: Any, **more: Any) -> openai.OpenAI:
        clients.append(openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", **{"max_retries": 0, **more}))
        return clients[-1]

    yield make
    for one in clients:
        one.close()


def chain(gateway: Any, **more: Any) -> ChatOpenAI:
    return ChatOpenAI(model="reviews", base_url=f"{gateway.url}/v1", api_key="none", max_retries=0, **more)


def test_openai_parses_what_a_schema_promises(start: Start, client: Any) -> None:
    engine = FakeEngine(say_review)
    gateway = start(engine)
    done = client(gateway).chat.completions.parse(model="reviews", messages=HELLO, response_format=Review)
    assert done.choices[0].message.parsed == Review(stars=4, reason="hello")
    schema = json.loads(engine.asked[-1][1].json_schema or "")
    assert (schema["required"], schema["properties"]["stars"]["type"]) == (["stars", "reason"], "integer")


def test_openai_streams_with_its_helper(start: Start, client: Any) -> None:
    gateway = start(FakeEngine(lambda version, messages: "one two three"))
    with client(gateway).chat.completions.stream(model="reviews", messages=HELLO, n=2, logprobs=True) as stream:
        kinds = [event.type for event in stream]
        done = stream.get_final_completion()
    assert [choice.message.content for choice in done.choices] == ["one two three"] * 2
    assert [token.token for token in done.choices[1].logprobs.content] == ["one", " two", " three"]
    assert {"content.delta", "content.done", "logprobs.content.delta"} <= set(kinds)


@pytest.mark.parametrize("stream", [False, True])
def test_openai_calls_tools(start: Start, client: Any, stream: bool) -> None:
    gateway = start(FakeEngine(lambda version, messages: "It rains.", call=call_weather))
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    completions = client(gateway).chat.completions
    if stream:
        with completions.stream(model="reviews", messages=HELLO, tools=tools) as events:
            for _ in events:
                pass
            choice = events.get_final_completion().choices[0]
    else:
        choice = completions.create(model="reviews", messages=HELLO, tools=tools).choices[0]
    assert choice.finish_reason == "tool_calls"
    [call] = choice.message.tool_calls
    assert (call.id, call.function.name, json.loads(call.function.arguments)) == ("call_1", "weather", {"city": "Bonn"})


def test_openai_async(start: Start) -> None:
    gateway = start(FakeEngine(lambda version, messages: "one two"))

    async def run() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
            stream = await client.chat.completions.create(model="reviews", messages=HELLO, stream=True)
            return [chunk.choices[0].delta.content async for chunk in stream if chunk.choices[0].delta.content]

    assert asyncio.run(run()) == ["one", " two"]


def test_openai_error_classes(start: Start, client: Any) -> None:
    engine = FakeEngine()
    gateway = start(engine)
    create = client(gateway).chat.completions.create
    with pytest.raises(openai.NotFoundError) as missing:
        create(model="gpt-4o", messages=HELLO)
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    assert (missing.value.request_id or "").startswith("chatcmpl-")
    with pytest.raises(openai.BadRequestError) as bad:
        create(model="reviews", messages=HELLO, logit_bias={"1": 1})
    assert (bad.value.code, bad.value.param) == ("unsupported_parameter", "logit_bias")
    for fault, kind in ((Overloaded(9, 1.0), openai.RateLimitError), (EngineDown(), openai.InternalServerError)):
        engine.fault, engine.fails_after = fault, 0
        for stream in (False, True):
            with pytest.raises(kind) as refused:
                create(model="reviews", messages=HELLO, stream=stream)
            assert int(refused.value.response.headers["retry-after"]) >= 1


def test_openai_client_retries_after_the_given_time(start: Start, client: Any) -> None:
    engine = FakeEngine()
    gateway = start(engine)

    class OnceBusy(Overloaded):
        """Gone once it was raised."""

        def __init__(self) -> None:
            super().__init__(9, 1.0)
            engine.fault = self
            engine.fails_after = 0

    fault = OnceBusy()
    answer = engine.answer

    async def answer_then_recover(*arguments: Any) -> Any:
        try:
            return await answer(*arguments)
        finally:
            engine.fault = None if engine.fault is fault else engine.fault

    engine.answer = answer_then_recover  # type: ignore[method-assign,assignment]
    done = client(gateway, max_retries=1).chat.completions.create(model="reviews", messages=HELLO)
    assert done.choices[0].message.content == "1: hello"


def test_langchain_invokes_and_streams(start: Start) -> None:
    gateway = start(FakeEngine(lambda version, messages: f"you said {messages[-1].content}"))
    model = chain(gateway, temperature=0.5, max_tokens=16)
    said = model.invoke([SystemMessage("Be kind."), HumanMessage("good day")])
    assert said.content == "you said good day"
    assert said.usage_metadata is not None
    assert said.usage_metadata["input_tokens"] == len(["Be", "kind.", "good", "day"])
    assert [chunk.content for chunk in model.stream("hello") if chunk.content] == ["you", " said", " hello"]
    assert [answer.content for answer in model.batch(["a", "b"])] == ["you said a", "you said b"]
    assert asyncio.run(model.ainvoke("hello")).content == "you said hello"


def test_langchain_has_structured_output(start: Start) -> None:
    gateway = start(FakeEngine(say_review))
    for method in ("json_schema", "json_mode"):
        asked = chain(gateway).with_structured_output(Review, method=method)
        assert asked.invoke("hello") == Review(stars=4, reason="hello")


@pytest.mark.parametrize("stream", [False, True])
def test_langchain_knows_an_overflow(start: Start, stream: bool) -> None:
    """Agents shorten the conversation when they see its error."""
    engine = FakeEngine()
    gateway = start(engine)
    assert chain(gateway).invoke("hello").content == "1: hello"
    engine.fault, engine.fails_after = PromptTooLong(5000, 4080, 16), 0
    with pytest.raises(ContextOverflowError, match="maximum context length is 4096 tokens") as caught:
        _ = [*chain(gateway).stream("hello")] if stream else chain(gateway).invoke("hello")
    assert isinstance(caught.value, openai.BadRequestError)
    for size in (2000, 200_000):  # refused before it is read
        with pytest.raises(ContextOverflowError, match="prompt is too long"):
            chain(gateway).invoke("x" * size)


def test_langchain_calls_tools(start: Start) -> None:
    gateway = start(FakeEngine(lambda version, messages: f"It is {messages[-1].content}.", call=call_weather))
    model = chain(gateway).bind_tools([weather])
    question = HumanMessage("How is it in Bonn?")
    called = model.invoke([question])
    assert isinstance(called, AIMessage)
    [call] = called.tool_calls
    assert (call["name"], call["args"]) == ("weather", {"city": "Bonn"})
    told = ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"])
    assert model.invoke([question, called, told]).content == "It is rain in Bonn."
