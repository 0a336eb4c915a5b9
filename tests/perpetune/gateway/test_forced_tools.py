"""Clients that force a tool, unchanged, against a gateway of a real model in process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import openai
import pytest
from byte_models import random_byte_model
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from perpetune.engines.transformers_engine import TransformersEngine
from perpetune.inference.predictor import Predictor
from perpetune.params import BaseParams
from perpetune.prediction_log.queries import recent_predictions
from perpetune.testing.fake_registry import FakeSource

HELLO: Any = [{"role": "user", "content": "hello"}]


class Review(BaseModel):
    """What a review says."""

    stars: Literal[1, 2, 3]
    tone: Literal["warm", "cold"]


TOOL: Any = {"type": "function", "function": {"name": "Review", "parameters": Review.model_json_schema()}}
FORCED: Any = {"type": "function", "function": {"name": "Review"}}


@pytest.fixture
def gateway(start: Callable[..., Any], release: Callable[..., Any], params: Any) -> Any:
    """Its model writes random bytes where nothing is forced."""
    engine = TransformersEngine(Predictor(random_byte_model(), 1024), BaseParams(model="path:tiny"), params)
    source = FakeSource([replace(release("1"), system="prompted")], champion="1")
    return start(engine, source=source, max_new_tokens=200)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("choice", [FORCED, "required"])
def test_openai(gateway: Any, choice: Any, stream: bool) -> None:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
        asked: Any = {"model": "reviews", "messages": HELLO, "tools": [TOOL], "tool_choice": choice}
        if stream:
            with client.chat.completions.stream(**asked) as events:
                message = events.get_final_completion().choices[0].message
        else:
            message = client.chat.completions.create(**asked).choices[0].message
    assert message.tool_calls
    [call] = message.tool_calls
    assert (message.content or None, call.function.name, call.type) == (None, "Review", "function")
    Review.model_validate_json(call.function.arguments)
    [row] = recent_predictions(gateway.log, "reviews", limit=None)
    assert json.loads(row.output)[0]["function"] == {"name": "Review", "arguments": call.function.arguments}


@pytest.mark.parametrize("method", ["function_calling", "json_schema", "json_mode"])
def test_langchains_structured_output(gateway: Any, method: Any) -> None:
    model = ChatOpenAI(model="reviews", base_url=f"{gateway.url}/v1", api_key="none", max_retries=0)
    if method == "json_mode":  # forces an object of no certain keys
        found = model.with_structured_output(None, method=method, include_raw=True).invoke("hello")
        assert found["raw"].content.startswith("{")
        return
    assert isinstance(model.with_structured_output(Review, method=method).invoke("hello"), Review)


@pytest.mark.parametrize("mode", ["TOOLS", "TOOLS_STRICT"])
def test_instructor(gateway: Any, mode: str) -> None:
    instructor = pytest.importorskip("instructor", reason="instructor is not installed: `pip install instructor`")
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as plain:
        client = instructor.from_openai(plain, mode=instructor.Mode[mode])
        found = client.chat.completions.create(model="reviews", messages=HELLO, response_model=Review, max_retries=0)
        assert isinstance(found, Review)
