"""A gateway over a real, tiny model: what depends on tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
from gateways import BASE, PARAMS, Gateway
from waiting import eventually

from perpetune.engines.transformers_engine import TransformersEngine
from perpetune.inference.predictor import Predictor
from perpetune.model.base import Base
from perpetune.model.release import Release
from perpetune.prediction_log.tables import predictions
from perpetune.testing.fake_registry import FakeSource

Start = Callable[..., Gateway]
CHAT = "/v1/chat/completions"


@pytest.fixture
def serve(start: Start, release: Callable[..., Release], tiny_base: Base) -> Callable[..., Gateway]:
    """A gateway over the base model, whose context has 64 tokens, with 16 for an answer."""

    def begin(labels: tuple[str, ...] | None = None) -> Gateway:
        prompted = replace(release("1", labels), system="prompted")
        engine = TransformersEngine(Predictor(tiny_base, 1024), BASE, PARAMS)
        return start(engine, source=FakeSource([prompted], champion="1"))

    return begin


@pytest.mark.parametrize(("labels", "answer"), [(None, 16), (("red", "green"), 2)])
def test_an_overflow_says_what_openai_says(
    serve: Callable[..., Gateway], labels: tuple[str, ...] | None, answer: int
) -> None:
    gateway = serve(labels)
    assert gateway.ask("sky " * 20).status_code == 200
    for stream in (False, True):
        reply = gateway.ask("sky " * 90, stream=stream)
        error = reply.json()["error"]
        assert (reply.status_code, error["type"], error["code"], error["param"]) == (
            400,
            "invalid_request_error",
            "context_length_exceeded",
            "messages",
        )
        found = re.fullmatch(
            r"This model's maximum context length is 64 tokens\. However, you requested (\d+) tokens \((\d+) in the "
            r"messages, (\d+) in the completion\)\. Please reduce the length of the messages or completion\. The prompt is too long\.",
            error["message"],
        )
        assert found, error["message"]
        whole, prompt, completion = map(int, found.groups())
        assert (whole, completion) == (prompt + completion, answer) and prompt > 90


@pytest.mark.parametrize("more", [{}, {"stop": "red"}, {"temperature": 1.5, "seed": 2}, {"n": 3, "temperature": 1.0}])
def test_log_probabilities_join_to_the_content(serve: Callable[..., Gateway], more: dict[str, Any]) -> None:
    gateway = serve()
    asked = {"logprobs": True, "top_logprobs": 3, "seed": 1, **more}
    choices = gateway.ask("the sky", **asked).json()["choices"]
    streamed = ["" for _ in choices]
    texts = ["" for _ in choices]
    for line in gateway.ask("the sky", stream=True, **asked).text.splitlines():
        for choice in json.loads(line[6:])["choices"] if line.startswith("data: {") else ():
            texts[choice["index"]] += choice["delta"].get("content") or ""
            tokens = (choice["logprobs"] or {"content": []})["content"]
            streamed[choice["index"]] += "".join(token["token"] for token in tokens)
    for choice, text, joined in zip(choices, texts, streamed, strict=True):
        content, tokens = choice["message"]["content"], choice["logprobs"]["content"]
        assert "".join(token["token"] for token in tokens) == content == text == joined
        assert bytes(byte for token in tokens for byte in token["bytes"]).decode() == content
        for token in tokens:
            assert len(token["top_logprobs"]) == 3
            assert token["bytes"] == list(token["token"].encode())


def test_a_stopped_stream_counts_its_tokens(serve: Callable[..., Gateway]) -> None:
    gateway = serve()
    body = {"model": "reviews", "messages": [{"role": "user", "content": "the sky"}], "stream": True}
    with httpx.stream("POST", gateway.url + CHAT, json=body, timeout=20) as reply:
        assert next(line for line in reply.iter_lines() if '"content":' in line and '"content":""' not in line)

    def rows() -> Any:
        with gateway.log.connect() as connection:
            return connection.execute(predictions.select()).all()

    [row] = eventually(rows, 10)
    whole = gateway.ask("the sky").json()
    if row.finish_reason == "cancelled":  # a model this small may have finished before the client was seen to go
        assert whole["choices"][0]["message"]["content"].startswith(row.output)
        assert 0 < row.completion_tokens <= whole["usage"]["completion_tokens"]
    assert row.prompt_tokens == whole["usage"]["prompt_tokens"]
