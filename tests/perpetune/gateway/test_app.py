from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import sqlalchemy

from perpetune.engines.transformers_engine import TransformersEngine
from perpetune.model.release import Release
from perpetune.params import BaseParams, ServeParams
from perpetune.prediction_log.queries import recent_predictions
from perpetune.records import Message
from perpetune.testing.fake_engine import FakeEngine, FakeModel
from perpetune.testing.fake_registry import FakeSource

Start = Callable[..., Any]
BASE = BaseParams(model="path:tiny", revision=None)
HELLO: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture
def client_of() -> Iterator[Callable[..., openai.OpenAI]]:
    clients: list[openai.OpenAI] = []

    def make(gateway: Any, **more: Any) -> openai.OpenAI:
        clients.append(openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0, **more))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def schema(title: str) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"title": title}}}


def result(call: str) -> dict[str, Any]:
    return {"role": "tool", "content": "x", "tool_call_id": call}


def error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "Traceback" not in error["message"]
    return error


def test_the_openai_client(start: Start, client_of: Any) -> None:
    gateway = start()
    done = client_of(gateway).chat.completions.create(model="reviews", messages=HELLO, user="ann", temperature=0.7)
    assert done.choices[0].message.content == "1: hello"
    assert done.choices[0].finish_reason == "stop"
    assert (done.model, done.object) == ("reviews@1", "chat.completion")
    assert done.usage.prompt_tokens == len(["Judge", "it.", "hello"])
    assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens
    assert done._request_id == done.id
    assert done.model_extra["perpetune"] == {"version": "1", "route": "champion", "confidence": None}
    [row] = recent_predictions(gateway.log, "reviews", limit=None)
    assert (row.id, row.version, row.input, row.output, row.group) == (done.id, "1", "hello", "1: hello", "ann")
    assert row.messages == (Message(role="user", content="hello"),), "as the client sent them"
    assert abs(row.time.timestamp() - time.time()) < 10


def test_the_openai_client_streaming(start: Start, client_of: Any) -> None:
    gateway = start()
    chunks = list(
        client_of(gateway).chat.completions.create(
            model="reviews", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "1: hello"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage.completion_tokens == 2
    [row] = recent_predictions(gateway.log, "reviews", limit=None)
    assert {chunk.id for chunk in chunks} == {row.id}
    short = client_of(gateway).chat.completions.create(model="reviews", messages=HELLO, stream=True)
    assert all(chunk.usage is None and chunk.choices for chunk in short)


def test_the_openai_client_async(start: Start) -> None:
    gateway = start()

    async def run() -> None:
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
            answers = await asyncio.gather(
                *(
                    client.chat.completions.create(model="reviews", messages=[{"role": "user", "content": str(number)}])
                    for number in range(20)
                )
            )
            stream = await client.chat.completions.create(model="reviews", messages=HELLO, stream=True)
            streamed = [chunk.choices[0].delta.content async for chunk in stream]
        assert [answer.choices[0].message.content for answer in answers] == [f"1: {n}" for n in range(20)]
        assert "".join(filter(None, streamed)) == "1: hello"

    asyncio.run(run())
    assert len(recent_predictions(gateway.log, "reviews", limit=None)) == 21


def test_a_classifier_tells_how_sure_it_is(start: Start, client_of: Any, release: Callable[..., Release]) -> None:
    source = FakeSource([release("1", ("good", "bad"))], champion="1")
    gateway = start(FakeEngine(lambda version, messages: "good"), source=source)
    done = client_of(gateway).chat.completions.create(model="reviews", messages=HELLO)
    assert done.model_extra["perpetune"] == {
        "version": "1",
        "route": "champion",
        "confidence": 1.0,
        "probabilities": {"good": 1.0, "bad": 0.0},
    }
    assert recent_predictions(gateway.log, "reviews", limit=None)[0].confidence == 1.0


def test_models(start: Start, client_of: Any) -> None:
    client = client_of(start())
    assert [model.id for model in client.models.list()] == ["reviews", "reviews@1"]
    assert client.models.retrieve("reviews").owned_by == "perpetune"
    assert client.chat.completions.create(model="reviews@1", messages=HELLO).choices
    for model in ("gpt-4o", "reviews@2", "reviews@", "Reviews", ""):
        with pytest.raises(openai.NotFoundError) as caught:
            client.chat.completions.create(model=model, messages=HELLO)
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_the_instruction_comes_first_unless_the_request_has_its_own(start: Start) -> None:
    def on_delta(version: str, messages: Any) -> str:
        return " | ".join(f"{message.role}={message.content}" for message in messages)

    gateway = start(FakeEngine(on_delta))

    def answer(*messages: Any) -> str:
        body = {"model": "reviews", "messages": messages, "max_tokens": 16}
        return str(gateway.post("/v1/chat/completions", body).json()["choices"][0]["message"]["content"])

    user = {"role": "user", "content": [{"type": "text", "text": "two "}, {"type": "text", "text": "parts"}]}
    assert answer(user) == "system=Judge it. | user=two parts"
    assert answer({"role": "developer", "content": "Mine."}, user) == "system=Mine. | user=two parts"
    assert answer({"role": "system", "content": ""}, user) == "system=Judge it. | user=two parts"
    turn = {"role": "assistant", "content": "ok"}
    assert answer(user, turn, user).endswith("user=two parts | assistant=ok | user=two parts")


def test_answers_are_as_long_as_asked_but_never_longer_than_allowed(start: Start) -> None:
    gateway = start(FakeEngine(lambda version, messages: "word " * 99))
    for asked, tokens in (
        ({}, 16),
        ({"max_tokens": 3}, 3),
        ({"max_completion_tokens": 4}, 4),
        ({"max_tokens": 99}, 16),
    ):
        body = gateway.ask("hello", **asked).json()
        assert body["usage"]["completion_tokens"] == tokens
        assert body["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("logit_bias", {"1": 5}),
        ("functions", [{"name": "f"}]),
        ("function_call", {"name": "f"}),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "alloy", "format": "wav"}),
        ("web_search_options", {}),
    ],
)
def test_what_is_not_supported_is_refused_by_name(standing: Any, option: str, value: object) -> None:
    error = error_of(standing.ask("hello", **{option: value}), 400)
    assert (error["param"], error["code"], error["type"]) == (option, "unsupported_parameter", "invalid_request_error")


def test_harmless_options_are_accepted(start: Start) -> None:
    harmless: dict[str, Any] = {
        "temperature": 0,
        "top_p": 1,
        "seed": 1,
        "n": 1,
        "stop": None,
        "tools": [],
        "logprobs": False,
        "response_format": {"type": "text"},
        "parallel_tool_calls": False,
        "tool_choice": "none",
        "store": True,
        "logit_bias": {},
        "metadata": {"a": "b"},
        "a_new_option": True,
    }
    assert start().ask("hello", **harmless).status_code == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "model"),
        ([], None),
        (None, None),
        ({"model": "reviews"}, "messages"),
        ({"model": "reviews", "messages": []}, "messages"),
        ({"model": "reviews", "messages": "hello"}, "messages"),
        ({"model": "reviews", "messages": [{"role": "user"}]}, "messages[0].content"),
        ({"model": "reviews", "messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"model": "reviews", "messages": [{"role": "user", "content": " \n"}]}, "messages"),
        ({"model": "reviews", "messages": [{"role": "system", "content": "x"}]}, "messages"),
        ({"model": "reviews", "messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        (
            {"model": "reviews", "messages": [*HELLO, {"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[1].content",
        ),
        ({"model": "reviews", "messages": [{"content": "x"}]}, "messages[0].role"),
        ({"model": "reviews", "messages": [*HELLO, {"role": "tool", "content": "x"}]}, "messages[1].tool_call_id"),
        ({"model": "reviews", "messages": HELLO, "n": 0}, "n"),
        ({"model": "reviews", "messages": HELLO, "n": 9}, "n"),
        ({"model": "reviews", "messages": HELLO, "stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"model": "reviews", "messages": HELLO, "stop": ""}, "stop"),
        ({"model": "reviews", "messages": HELLO, "temperature": 2.1}, "temperature"),
        ({"model": "reviews", "messages": HELLO, "top_p": -1}, "top_p"),
        ({"model": "reviews", "messages": HELLO, "presence_penalty": 3}, "presence_penalty"),
        ({"model": "reviews", "messages": HELLO, "seed": 2**63}, "seed"),
        ({"model": "reviews", "messages": HELLO, "top_logprobs": 2}, "top_logprobs"),
        ({"model": "reviews", "messages": HELLO, "logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"model": "reviews", "messages": HELLO, "response_format": {"type": "xml"}}, "response_format.type"),
        (
            {"model": "reviews", "messages": HELLO, "response_format": {"type": "json_schema", "json_schema": {}}},
            "response_format.json_schema.name",
        ),
        ({"model": "reviews", "messages": HELLO, "tools": [{"type": "function"}]}, "tools[0].function"),
        ({"model": "reviews", "messages": HELLO, "tool_choice": "required"}, "tool_choice"),
        (
            {"model": "reviews", "messages": HELLO, "tool_choice": {"type": "function", "function": {"name": "f"}}},
            "tool_choice",
        ),
        ({"model": "reviews", "messages": HELLO, "max_tokens": 0}, "max_tokens"),
        ({"model": "reviews", "messages": HELLO, "max_tokens": "many"}, "max_tokens"),
        ({"model": "reviews", "messages": HELLO, "stream": "perhaps"}, "stream"),
        ({"model": 7, "messages": HELLO}, "model"),
        ({"model": "x" * 513, "messages": HELLO}, "model"),
        ({"model": "reviews", "messages": HELLO, "user": "x" * 513}, "user"),
        ({"model": "reviews", "messages": HELLO, "stop": ["x" * 513]}, "stop[0]"),
        ({"model": "reviews", "messages": HELLO, "metadata": {f"key {n}": "x" for n in range(17)}}, "metadata"),
        ({"model": "reviews", "messages": HELLO, "metadata": {"x" * 65: "x"}}, "metadata"),
        ({"model": "reviews", "messages": HELLO, "metadata": {"x": "x" * 513}}, "metadata"),
        ({"model": "reviews", "messages": HELLO, "metadata": {"x": ["x" * 10_000]}}, "metadata"),
        ({"model": "reviews", "messages": HELLO, "tools": [tool("f")] * 129}, "tools"),
        ({"model": "reviews", "messages": HELLO, "tools": [tool("x" * 1001)]}, "tools"),
        ({"model": "reviews", "messages": HELLO, "response_format": schema("x" * 1001)}, "response_format"),
        ({"model": "reviews", "messages": [*HELLO, result("x" * 513)]}, "messages[1].tool_call_id"),
    ],
)
def test_bad_requests_name_the_field(standing: Any, body: object, param: str | None) -> None:
    assert error_of(standing.post("/v1/chat/completions", body), 400)["param"] == param
    assert recent_predictions(standing.log, "reviews", limit=None) == []


def test_bad_bodies_and_addresses(standing: Any) -> None:
    def send(content: bytes, kind: str = "application/json") -> httpx.Response:
        url = standing.url + "/v1/chat/completions"
        return httpx.post(url, content=content, headers={"content-type": kind}, timeout=10)

    assert error_of(send(b"{"), 400)["code"] == "invalid_json"
    error_of(send(b""), 400)
    error_of(send(b"\xff\xfe"), 400)
    error_of(send(b"[" * 50_000), 400)
    error_of(send(b'{"model": ' + b"9" * 5000 + b"}"), 400)
    error_of(send(b"{}", "text/plain"), 400)
    error_of(standing.get("/v1/chat/completions"), 405)
    assert error_of(standing.get("/v1/nothing"), 404)["code"] == "unknown_url"


def test_characters_that_cannot_be_stored_are_replaced_before_the_model_reads_them(start: Start) -> None:
    gateway = start()
    reply = gateway.ask("a\0b\ud83d", user="\udfff").json()
    assert reply["choices"][0]["message"]["content"] == "1: a\ufffdb\ufffd"
    assert recent_predictions(gateway.log, "reviews", limit=None)[0].input == "a\ufffdb\ufffd"
    said = {"request_id": reply["id"], "label": "\0", "comment": "\0"}
    assert gateway.post("/v1/feedback", said).status_code == 200
    assert recent_predictions(gateway.log, "reviews", limit=None)[0].label == "\ufffd"
    assert error_of(gateway.ask("hello", model="\ud800"), 404)["code"] == "model_not_found"
    assert gateway.ask("hello", metadata="\ud800").status_code == 200
    error_of(gateway.ask("hello", **{"\ud800": 1}), 400)


def test_requests_that_are_too_large(start: Start, params: ServeParams) -> None:
    gateway = start()
    assert gateway.ask("x" * params.max_request_chars).status_code == 200
    assert gateway.ask("\U0001f600" * params.max_request_chars).status_code == 200
    assert error_of(gateway.ask("x" * (params.max_request_chars + 1)), 413)["param"] == "messages"
    assert error_of(gateway.ask("x" * 1_000_000), 413)["code"] == "request_too_large"

    def endless() -> Iterator[bytes]:
        yield from (b" " * 1000 for _ in range(1000))

    response = httpx.post(gateway.url + "/v1/chat/completions", content=endless(), timeout=10)
    error_of(response, 413)


def test_feedback(start: Start) -> None:
    gateway = start()
    first, second = (gateway.ask(text).json()["id"] for text in ("one", "two"))
    for body in (
        {"request_id": first, "label": "good"},
        {"request_id": first, "score": 0.25, "comment": "close"},
        {"request_id": second, "comment": "thanks"},
    ):
        response = gateway.post("/v1/feedback", body)
        assert (response.status_code, response.json()["request_id"]) == (200, body["request_id"])
    one, two = recent_predictions(gateway.log, "reviews", limit=None)
    assert (one.label, one.score, two.label, two.score) == ("good", 0.25, None, None)


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"request_id": "chatcmpl-unknown", "label": "good"}, 404, "request_id"),
        ({"request_id": "chatcmpl-\0", "label": "good"}, 404, "request_id"),
        ({"request_id": "chatcmpl-unknown"}, 400, None),
        ({"request_id": "chatcmpl-unknown", "label": ""}, 400, "label"),
        ({"request_id": "\udfff", "label": "good"}, 404, "request_id"),
        ({"request_id": "chatcmpl-unknown", "label": "\udfff"}, 400, "label"),
        ({"request_id": "chatcmpl-unknown", "score": "high"}, 400, "score"),
        ({"label": "good"}, 400, "request_id"),
    ],
)
def test_bad_feedback(standing: Any, body: object, status: int, param: str | None) -> None:
    assert error_of(standing.post("/v1/feedback", body), status)["param"] == param


def test_a_score_must_be_a_number(standing: Any) -> None:
    content = b'{"request_id": "x", "score": NaN}'
    response = httpx.post(standing.url + "/v1/feedback", content=content, headers={"content-type": "application/json"})
    assert error_of(response, 400)["param"] == "score"


def test_health_readiness_and_metrics(start: Start) -> None:
    gateway = start()
    gateway.ask("hello")
    gateway.get("/nowhere")
    assert gateway.get("/healthz").json() == {"status": "ok"}
    assert gateway.get("/readyz").json() == {
        "ready": True,
        "task": "reviews",
        "serving": "1",
        "champion": "1",
        "trial": None,
        "release": "ok",
        "registry": "ok",
        "log": "ok",
    }
    text = gateway.get("/metrics").text
    assert 'perpetune_http_requests_total{path="/v1/chat/completions",status="200"} 1.0' in text
    assert 'perpetune_http_requests_total{path="other",status="404"} 1.0' in text
    assert 'perpetune_release_serving{version="1"} 1.0' in text
    assert 'perpetune_tokens_total{kind="prompt"} 3.0' in text


def test_before_there_is_a_release(start: Start, release: Callable[..., Release]) -> None:
    source = FakeSource([release("1")])
    gateway = start(source=source, ready=False)
    assert gateway.get("/healthz").status_code == 200
    ready = gateway.get("/readyz")
    assert (ready.status_code, ready.json()["release"]) == (503, "no release is loaded yet")
    response = gateway.ask("hello")
    assert error_of(response, 503)["type"] == "server_error"
    assert response.headers["retry-after"] == "2"
    source.champion_version = "1"
    assert gateway.post("/v1/release/check", {}).json() == {
        "serving": "1",
        "champion": "1",
        "trial": None,
        "release": "ok",
    }
    assert gateway.ask("hello").status_code == 200


def test_trouble_with_registry_and_release_is_shown_while_serving_goes_on(start: Start) -> None:
    gateway = start(FakeEngine(broken=frozenset({"2"})))
    gateway.source.champion_version = "2"
    checked = gateway.post("/v1/release/check", {}).json()
    assert (checked["serving"], checked["champion"]) == ("1", "2")
    assert "does not fit" in checked["release"]
    gateway.source.down = True
    gateway.post("/v1/release/check", {})
    ready = gateway.get("/readyz")
    assert ready.status_code == 200
    assert "does not fit" in ready.json()["release"]
    assert "the registry does not answer" in ready.json()["registry"]
    assert gateway.ask("hello").status_code == 200


def test_a_swap_under_load_drops_nothing(start: Start) -> None:
    gateway = start(FakeEngine(seconds=0.01))
    stop = threading.Event()

    def keep_asking(number: int) -> list[str]:
        answers = []
        with httpx.Client(timeout=10) as client:
            while not stop.is_set():
                body = {"model": "reviews", "messages": HELLO, "stream": number % 2 == 0}
                response = client.post(gateway.url + "/v1/chat/completions", json=body)
                assert response.status_code == 200, response.text
                answers.append(response.text)
        return answers

    with ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(keep_asking, number) for number in range(8)]
        try:
            for version in ("2", "1", "2", "1", "2"):
                time.sleep(0.1)
                gateway.source.champion_version = version
                assert gateway.post("/v1/release/check", {}).json()["serving"] == version
                assert gateway.ask("hello").json()["perpetune"]["version"] == version
        finally:
            stop.set()
        answers = [answer for asked in asking for answer in asked.result()]
    rows = recent_predictions(gateway.log, "reviews", limit=None)
    assert len(rows) == len(answers) + 5 > 20
    assert all(row.output == f"{row.version}: hello" for row in rows)
    assert {row.version for row in rows} == {"1", "2"}
    assert list(gateway.engine.loaded) == ["2"]


def test_a_full_queue_is_429_with_retry_after(start: Start, params: ServeParams, client_of: Any) -> None:
    gate = threading.Event()
    asked = threading.Event()

    def wait_for_gate() -> None:
        if asked.is_set():  # and not while the release is warmed
            gate.wait(10)

    small = params.model_copy(update={"max_queue": 2, "max_batch": 1})
    gateway = start(TransformersEngine(FakeModel(wait_for_gate), BASE, small), params=small)
    asked.set()
    with ThreadPoolExecutor(6) as pool:
        asking = [pool.submit(gateway.ask, "hello") for _ in range(6)]
        time.sleep(0.3)
        with pytest.raises(openai.RateLimitError) as caught:
            client_of(gateway).chat.completions.create(model="reviews", messages=HELLO)
        gate.set()
        statuses = sorted(future.result().status_code for future in asking)
    assert caught.value.response.headers["retry-after"] == "1"
    assert statuses == [200] * 3 + [429] * 3


def test_an_answer_that_takes_too_long_is_504(start: Start, params: ServeParams) -> None:
    hasty = params.model_copy(update={"timeout_seconds": 0.05})
    seconds = iter([0.0])

    class SlowEngine(FakeEngine):
        async def answer(self, *arguments: Any) -> Any:
            await asyncio.sleep(next(seconds, 1.0))
            return await super().answer(*arguments)

    gateway = start(SlowEngine(), params=hasty)
    assert error_of(gateway.ask("hello"), 504)["code"] == "timeout"
    assert recent_predictions(gateway.log, "reviews", limit=None) == []


def test_an_engine_that_fails_is_500_without_its_insides(start: Start, params: ServeParams) -> None:
    gateway = start(TransformersEngine(FakeModel(), BASE, params))
    error = error_of(gateway.ask("break"), 500)
    assert (error["type"], error["code"]) == ("server_error", "internal_error")
    assert "0xdeadbeef" not in error["message"]
    assert gateway.ask("hello").status_code == 200


def test_answers_go_out_while_the_log_is_gone(start: Start, log: sqlalchemy.Engine) -> None:
    gateway = start()
    path = Path(str(log.url.database))
    before = gateway.ask("before").json()["id"]
    gateway.app.state.recorder.flush()
    files = list(path.parent.glob("predictions.db*"))
    for file in files:
        file.rename(file.with_name("away-" + file.name))
    during = [gateway.ask("during").json()["id"] for _ in range(3)]
    deadline = time.monotonic() + 5
    while gateway.get("/readyz").json()["log"] != "3 rows waiting, unable to open database file":
        assert time.monotonic() < deadline, gateway.get("/readyz").text
        time.sleep(0.05)
    assert gateway.post("/v1/feedback", {"request_id": during[0], "label": "good"}).status_code == 200
    refused = gateway.post("/v1/feedback", {"request_id": before, "label": "good"})
    assert error_of(refused, 503)["code"] == "log_unavailable"
    for file in files:
        file.with_name("away-" + file.name).rename(file)
    deadline = time.monotonic() + 5
    while gateway.get("/readyz").json()["log"] != "ok":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    rows = recent_predictions(gateway.log, "reviews", limit=None)
    assert [(row.id, row.label) for row in rows] == [
        (before, None),
        (during[0], "good"),
        (during[1], None),
        (during[2], None),
    ]
