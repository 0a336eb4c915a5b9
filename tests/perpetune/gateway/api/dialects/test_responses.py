from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from perpetune.engines.engine import EngineDown
from perpetune.prediction_log.queries import recent_predictions
from perpetune.records import Message
from perpetune.testing.fake_engine import FakeEngine

Start = Callable[..., Any]
TOOL: dict[str, Any] = {
    "type": "function",
    "name": "weather",
    "description": "How it is.",
    "parameters": {"type": "object"},
    "strict": False,
}


class Review(BaseModel):
    stars: int
    reason: str


def call_weather(messages: Any) -> tuple[dict[str, object], ...]:
    function = {"name": "weather", "arguments": '{"city": "Bonn"}'}
    return () if messages[-1].role == "tool" else ({"id": "call_1", "type": "function", "function": function},)


@pytest.fixture
def client(start: Start) -> Iterator[Callable[..., tuple[Any, openai.OpenAI]]]:
    """A gateway of this engine, and a client of it."""
    clients: list[openai.OpenAI] = []

    def make(engine: FakeEngine | None = None) -> tuple[Any, openai.OpenAI]:
        gateway = start(engine or FakeEngine(lambda version, messages: "one two three"))
        clients.append(openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0))
        return gateway, clients[-1]

    yield make
    for one in clients:
        one.close()


def test_a_text_is_answered_logged_and_can_be_judged(client: Any) -> None:
    gateway, api = client()
    done = api.responses.create(
        model="reviews", input="hello", instructions="Be short.", metadata={"request_id": "mine"}, user="ann"
    )
    assert (done.output_text, done.status, done.object, done.model) == (
        "one two three",
        "completed",
        "response",
        "reviews@1",
    )
    assert (done.instructions, done.metadata, done.error) == ("Be short.", {"request_id": "mine"}, None)
    assert (done.usage.input_tokens, done.usage.output_tokens, done.usage.total_tokens) == (3, 3, 6)
    assert done.model_extra["perpetune"]["version"] == "1"
    [row] = recent_predictions(gateway.log, "reviews", limit=None)
    assert (row.id, row.group, row.client_id, row.output) == (done.id, "ann", "mine", "one two three")
    assert row.id.startswith("resp_")
    assert row.messages == (Message(role="system", content="Be short."), Message(role="user", content="hello"))
    assert gateway.post("/v1/feedback", {"request_id": done.id, "score": 1}).status_code == 200


def test_parameters_become_those_of_chat_completions(client: Any) -> None:
    engine = FakeEngine(lambda version, messages: '{"stars": 4, "reason": "good"}')
    _, api = client(engine)
    done = api.responses.parse(
        model="reviews", input="hello", text_format=Review, temperature=0.5, top_p=0.9, max_output_tokens=7
    )
    assert done.output_parsed == Review(stars=4, reason="good")
    asked = engine.asked[-1][1]
    assert (asked.temperature, asked.top_p, asked.max_tokens) == (0.5, 0.9, 7)
    assert json.loads(asked.json_schema or "")["required"] == ["stars", "reason"]
    api.responses.create(model="reviews", input="hello", text={"format": {"type": "json_object"}})
    assert json.loads(engine.asked[-1][1].json_schema or "") == {"type": "object"}
    logprobs = api.responses.create(
        model="reviews", input="hello", include=["message.output_text.logprobs"], top_logprobs=2
    )
    tokens = logprobs.output[0].content[0].logprobs
    assert len(tokens) == 4 and len(tokens[0].top_logprobs) == 2


def test_a_conversation_with_calls(client: Any) -> None:
    engine = FakeEngine(lambda version, messages: "rain", call=call_weather)
    gateway, api = client(engine)
    called = api.responses.create(model="reviews", input="weather?", tools=[TOOL], tool_choice="auto")
    [call] = called.output
    assert (call.type, call.call_id, call.name, call.arguments) == (
        "function_call",
        "call_1",
        "weather",
        '{"city": "Bonn"}',
    )
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "weather?"}]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        call.model_dump(exclude_none=True),
        {"type": "function_call_output", "call_id": "call_1", "output": "rain"},
    ]
    done = api.responses.create(model="reviews", input=items, tools=[TOOL])
    assert done.output_text == "rain"
    functions = [json.loads(asked.tools or "") for _, asked in engine.asked[-2:]]
    assert functions[0] == [{"type": "function", "function": {key: TOOL[key] for key in TOOL if key != "type"}}]
    row = recent_predictions(gateway.log, "reviews", limit=None)[-1]
    assert [message.role for message in row.messages] == ["user", "assistant", "tool"]
    assert row.messages[1].tool_calls == (
        {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bonn"}'}},
    )
    assert row.messages[2].tool_call_id == "call_1"
    api.responses.create(model="reviews", input="x", tools=[TOOL], tool_choice={"type": "function", "name": "weather"})
    assert json.loads(engine.asked[-1][1].tool_choice or "") == {"type": "function", "function": {"name": "weather"}}


def test_events_of_a_text(client: Any) -> None:
    gateway, api = client()
    with api.responses.stream(model="reviews", input="hello") as stream:
        events = list(stream)
        done = stream.get_final_response()
    assert [event.type.removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        *["output_text.delta"] * 3,
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert done.output_text == "one two three" == "".join(each.delta for each in events[4:7])
    assert done.usage.total_tokens > 0
    assert [row.id for row in recent_predictions(gateway.log, "reviews", limit=None)] == [done.id]


def test_events_of_a_call(client: Any) -> None:
    _, api = client(FakeEngine(call=call_weather))
    with api.responses.stream(model="reviews", input="hello", tools=[TOOL]) as stream:
        kinds = [event.type.removeprefix("response.") for event in stream]
        [call] = stream.get_final_response().output
    assert kinds[2:-1] == [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
    ]
    assert (call.call_id, call.name, call.arguments) == ("call_1", "weather", '{"city": "Bonn"}')


def test_an_answer_that_is_cut_off_is_incomplete(client: Any) -> None:
    _, api = client()
    done = api.responses.create(model="reviews", input="hello", max_output_tokens=2)
    assert (done.status, done.incomplete_details.reason, done.output_text) == (
        "incomplete",
        "max_output_tokens",
        "one two",
    )
    streamed = list(api.responses.create(model="reviews", input="hello", max_output_tokens=2, stream=True))
    assert (streamed[-1].type, streamed[-1].response.status) == ("response.incomplete", "incomplete")


def test_a_label_is_a_text(start: Start, release: Any) -> None:
    from perpetune.testing.fake_registry import FakeSource

    gateway = start(FakeEngine(sure=0.75), source=FakeSource([release("1", ("bad", "good"))], champion="1"))
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as api:
        done: Any = api.responses.create(model="reviews", input="hello")
        assert (done.output_text, done.model_extra["perpetune"]["confidence"]) == ("bad", 0.75)
        assert [event.type for event in api.responses.create(model="reviews", input="hello", stream=True)][-1] == (
            "response.completed"
        )


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input[0].content"),
        ({"input": "hello", "previous_response_id": "resp_1"}, "previous_response_id"),
        ({"input": "hello", "background": True}, "background"),
        ({"input": "hello", "tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"input": "hello", "tool_choice": "required"}, "tool_choice"),
        ({"input": "hello", "max_output_tokens": 0}, "max_output_tokens"),
        ({}, "input"),
    ],
)
def test_what_cannot_be_answered_is_named_as_it_was_sent(standing: Any, body: dict[str, Any], param: str) -> None:
    reply = standing.post("/v1/responses", {"model": "reviews", **body})
    assert reply.status_code == 400, reply.text
    assert str(reply.json()["error"]["param"]).startswith(param)
    assert reply.headers["x-request-id"].startswith("resp_")


def test_errors_before_and_after_the_first_event(client: Any) -> None:
    engine = FakeEngine(lambda version, messages: "one two three")
    gateway, api = client(engine)
    engine.fault, engine.fails_after = EngineDown("gone"), 1
    events = list(api.responses.create(model="reviews", input="hello", stream=True))
    assert [event.type for event in events[-2:]] == ["error", "response.failed"]
    assert events[-1].response.error.code == "engine_unavailable"
    engine.fails_after = 0
    assert httpx.post(f"{gateway.url}/v1/responses", json={"model": "x", "input": "hello"}).status_code == 404
    failed = httpx.post(f"{gateway.url}/v1/responses", json={"model": "reviews", "input": "hello"})
    assert (failed.status_code, failed.json()["error"]["code"]) == (503, "engine_unavailable")


@pytest.mark.parametrize("stream", [False, True])
def test_langchain_over_responses(start: Start, stream: bool) -> None:
    gateway = start(FakeEngine(lambda version, messages: "one two three"))
    model = ChatOpenAI(
        model="reviews",
        base_url=f"{gateway.url}/v1",
        api_key="none",
        use_responses_api=True,
        max_retries=0,
    )
    parts = model.stream("hello") if stream else [model.invoke("hello")]
    assert "".join(str(part.text) for part in parts) == "one two three"
