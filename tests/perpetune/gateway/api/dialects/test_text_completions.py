from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from langchain_openai import OpenAI as LangChainOpenAI

from perpetune.engines.engine import Overloaded
from perpetune.prediction_log.queries import recent_predictions
from perpetune.testing.fake_engine import FakeEngine

Start = Callable[..., Any]


def repeat(version: str, messages: Any) -> str:
    return f"so {messages[-1].content}"


@pytest.fixture
def client(start: Start) -> Iterator[Callable[..., tuple[Any, openai.OpenAI]]]:
    """A gateway of this engine, and a client of it."""
    clients: list[openai.OpenAI] = []

    def make(engine: FakeEngine | None = None) -> tuple[Any, openai.OpenAI]:
        gateway = start(engine or FakeEngine(repeat))
        clients.append(openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0))
        return gateway, clients[-1]

    yield make
    for one in clients:
        one.close()


def test_a_prompt_is_a_users_message(client: Any) -> None:
    engine = FakeEngine(repeat)
    gateway, api = client(engine)
    done = api.completions.create(
        model="reviews", prompt="hello there", max_tokens=2, temperature=0.5, stop=["\n"], n=2, seed=3, user="ann"
    )
    assert (done.object, done.model, done.id[:5]) == ("text_completion", "reviews@1", "cmpl-")
    assert [(each.index, each.text, each.finish_reason) for each in done.choices] == [
        (0, "so hello", "length"),
        (1, "so hello", "length"),
    ]
    assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (4, 4)
    asked = engine.asked[-1][1]
    assert (asked.max_tokens, asked.temperature, asked.stop, asked.n, asked.seed) == (2, 0.5, ("\n",), 2, 3)
    [row] = recent_predictions(gateway.log, "reviews", limit=None)
    assert (row.id, row.input, row.output, row.group) == (done.id, "hello there", "so hello", "ann")


def test_each_of_several_prompts_is_answered_and_logged(client: Any) -> None:
    gateway, api = client()
    done = api.completions.create(model="reviews", prompt=["a", "b", "c"], n=2)
    assert [each.index for each in done.choices] == list(range(6))
    assert [each.text for each in done.choices] == ["so a", "so a", "so b", "so b", "so c", "so c"]
    assert (done.usage.completion_tokens, done.usage.total_tokens) == (12, 21)
    ids = {each.text[-1]: each.model_extra["perpetune"]["request_id"] for each in done.choices}
    rows = recent_predictions(gateway.log, "reviews", limit=None)
    assert {row.input: row.id for row in rows} == ids
    assert done.id == ids["a"]
    for one in ids.values():
        assert gateway.post("/v1/feedback", {"request_id": one, "index": 1, "score": 1}).status_code == 200


def test_if_one_of_several_prompts_fails_the_reply_is_its_error(client: Any) -> None:
    def fail(version: str, messages: Any) -> str:
        if messages[-1].content == "b":
            raise Overloaded(9, 1.0)
        return "fine"

    _, api = client(FakeEngine(fail))
    with pytest.raises(openai.RateLimitError):
        api.completions.create(model="reviews", prompt=["a", "b"])


def test_a_stream(client: Any) -> None:
    _, api = client()
    chunks = list(
        api.completions.create(
            model="reviews", prompt="hello", stream=True, logprobs=1, stream_options={"include_usage": True}
        )
    )
    pieces = [each.choices[0] for each in chunks[:-1]]
    assert "".join(each.text for each in pieces) == "so hello"
    assert [each.finish_reason for each in pieces] == [None, None, "stop"]
    assert [each.logprobs.text_offset for each in pieces[:2]] == [[0], [2]]
    assert chunks[-1].usage.completion_tokens == 2


def test_log_probabilities_as_this_api_has_them(client: Any) -> None:
    _, api = client()
    found = api.completions.create(model="reviews", prompt="hello", logprobs=2).choices[0].logprobs
    assert (found.tokens, found.text_offset) == (["so", " hello"], [0, 2])
    assert [len(top) for top in found.top_logprobs] == [2, 2]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [1, 2]}, "prompt[0]"),
        ({"prompt": [[1, 2]]}, "prompt[0]"),
        ({"prompt": ["a", " "]}, "prompt"),
        ({"prompt": "a", "echo": True}, "echo"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "best_of": 3}, "best_of"),
        ({"prompt": ["a", "b"], "stream": True}, "stream"),
        ({}, "prompt"),
    ],
)
def test_what_cannot_be_answered_is_named_as_it_was_sent(standing: Any, body: dict[str, Any], param: str) -> None:
    reply = standing.post("/v1/completions", {"model": "reviews", **body})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param), reply.text


def test_langchains_older_class(start: Start) -> None:
    gateway = start(FakeEngine(repeat))
    model = LangChainOpenAI(model="reviews", base_url=f"{gateway.url}/v1", api_key="none", max_retries=0)
    assert model.invoke("hello") == "so hello"
    assert model.batch(["a", "b"]) == ["so a", "so b"]
    assert "".join(model.stream("hello")) == "so hello"
