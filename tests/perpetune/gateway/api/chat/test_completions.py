from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import httpx
import openai
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from perpetune.engines.engine import EngineDown, Overloaded, Unsupported
from perpetune.gateway.api.chat.completions import Completions
from perpetune.gateway.releases.follower import Follower, UnknownVersion
from perpetune.gateway.telemetry.metrics import Metrics
from perpetune.generation.answer import PromptTooLong
from perpetune.model.release import Release, RoutedRelease, ServingFacts
from perpetune.params import ServeParams
from perpetune.prediction_log.queries import recent_predictions
from perpetune.records import Failure, Message, Prediction, Shadow
from perpetune.testing.fake_engine import FakeEngine
from perpetune.testing.fake_registry import FakeSource

Start = Callable[..., Any]
HELLO: Any = [{"role": "user", "content": "hello there"}]
BODY = {"model": "reviews", "messages": HELLO}


def events_of(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


class Log:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.predictions: list[Prediction] = []
        self.failures: list[Failure] = []
        self.shadows: list[Shadow] = []

    async def record(self, prediction: Prediction) -> None:
        self.predictions.append(prediction)

    def failed(self, failure: Failure) -> None:
        self.failures.append(failure)

    def shadow(self, said: Shadow) -> None:
        self.shadows.append(said)


class Routes:
    """A follower with a fixed route; `open` counts for each version the requests that keep it loaded."""

    def __init__(self, routed: RoutedRelease) -> None:
        self.routed = routed
        self.keys: list[str] = []
        self.open: dict[str, int] = {}

    @contextmanager
    def using(self, version: str | None = None, key: str = "") -> Iterator[RoutedRelease]:
        known = {release.version: release for release in (self.routed.release, self.routed.shadow) if release}
        if version is not None and version not in known:
            raise UnknownVersion(version)
        routed = self.routed if version is None else RoutedRelease(known[version], "pinned")
        self.keys.append(key)
        self.open[routed.release.version] = self.open.get(routed.release.version, 0) + 1
        try:
            yield routed
        finally:
            self.open[routed.release.version] -= 1


def run(
    engine: FakeEngine,
    routed: RoutedRelease,
    params: ServeParams,
    *bodies: dict[str, object],
    headers: dict[str, str] | None = None,
    log: Log | None = None,
    routes: Routes | None = None,
    settle: float = 0.02,
) -> list[httpx.Response]:
    """The replies to these requests, sent at once, after `settle` seconds for what goes on in the background."""

    async def ask() -> list[httpx.Response]:
        for release in (routed.release, routed.shadow):
            if release:
                await engine.load(release)
        completions = Completions(
            "reviews",
            engine=engine,
            follower=cast(Follower, routes or Routes(routed)),
            log=log or Log(),
            metrics=Metrics(),
            params=params,
            max_new_tokens=16,
        )
        app = Starlette(routes=[Route("/v1/chat/completions", completions.respond, methods=["POST"])])
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            asking = (client.post("/v1/chat/completions", json=body, headers=headers) for body in bodies)
            replies = await asyncio.gather(*asking)
        await asyncio.sleep(settle)
        await completions.close()
        return list(replies)

    return asyncio.run(ask())


@pytest.fixture
def champion(release: Callable[..., Release]) -> RoutedRelease:
    return RoutedRelease(release("1"), "champion")


def test_several_answers(start: Start) -> None:
    gateway = start(FakeEngine(lambda version, messages: "one two END three"))
    body = gateway.ask("hello", n=3, stop="END").json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert {choice["message"]["content"] for choice in body["choices"]} == {"one two "}
    words = body["choices"][0]["message"]["content"].split(" ")
    assert body["usage"] == {"prompt_tokens": 3, "completion_tokens": 9, "total_tokens": 12}
    assert len(words) == 3
    [row] = recent_predictions(gateway.log, "reviews", limit=None)
    assert (row.output, row.prompt_tokens, row.completion_tokens) == ("one two ", 3, 9)


def test_parameters_reach_the_engine(start: Start) -> None:
    engine = FakeEngine()
    gateway = start(engine)
    gateway.ask("hello")
    assert (engine.asked[-1][1].temperature, engine.asked[-1][1].top_p, engine.asked[-1][1].n) == (0.0, 1.0, 1)
    sent: dict[str, Any] = {"temperature": 0.7, "top_p": 0.9, "presence_penalty": 1, "frequency_penalty": -1, "seed": 7}
    gateway.ask("hello", **sent)
    assert {name: getattr(engine.asked[-1][1], name) for name in sent} == sent
    gateway.ask("hello", temperature=1, top_p=0)
    assert (engine.asked[-1][1].temperature, engine.asked[-1][1].top_p) == (0.0, 1.0), "the likeliest token alone"
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    gateway.ask("hello", tools=[tool], tool_choice="required", response_format={"type": "json_object"})
    asked = engine.asked[-1][1]
    assert json.loads(asked.tools or "") == [tool]
    assert (json.loads(asked.tool_choice or ""), json.loads(asked.json_schema or "")) == (
        "required",
        {"type": "object"},
    )
    gateway.ask("hello", tools=[tool], tool_choice="none")
    assert (engine.asked[-1][1].tools, engine.asked[-1][1].tool_choice) == (None, None)


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities(start: Start, stream: bool) -> None:
    gateway = start()
    reply = gateway.ask("h\u00e9", logprobs=True, top_logprobs=2, stream=stream)
    if stream:
        choices = [event["choices"][0] for event in events_of(reply.text)]
        tokens = [token for choice in choices if choice["logprobs"] for token in choice["logprobs"]["content"]]
    else:
        assert reply.json()["choices"][0]["logprobs"]["refusal"] is None
        tokens = reply.json()["choices"][0]["logprobs"]["content"]
    assert [token["token"] for token in tokens] == ["1:", " h\u00e9"]
    assert bytes(tokens[1]["bytes"]).decode() == " h\u00e9"
    assert [top["token"] for top in tokens[1]["top_logprobs"]] == [" h\u00e9", " other1"]
    assert tokens[0]["logprob"] == pytest.approx(-0.6931, abs=1e-4)


def test_chunks_are_sent_as_they_are_generated(start: Start) -> None:
    gateway = start(FakeEngine(lambda version, messages: "a b c", pause=0.15))
    came: list[tuple[float, dict[str, str]]] = []
    with httpx.stream("POST", f"{gateway.url}/v1/chat/completions", json={**BODY, "stream": True}) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        for line in reply.iter_lines():
            if '"content"' in line:
                came.append((time.monotonic(), json.loads(line.removeprefix("data: "))["choices"][0]["delta"]))
    assert [delta["content"] for _, delta in came] == ["", "a", " b", " c"]
    assert came[0][1]["role"] == "assistant"
    assert all(later - sooner > 0.1 for (sooner, _), (later, _) in itertools.pairwise(came[1:]))


def test_the_chunks_of_several_answers(start: Start) -> None:
    gateway = start(FakeEngine(lambda version, messages: "a b"))
    events = events_of(gateway.ask("hello", n=2, stream=True, stream_options={"include_usage": True}).text)
    for index in (0, 1):
        mine = [event["choices"][0] for event in events if event["choices"] and event["choices"][0]["index"] == index]
        assert mine[0]["delta"] == {"role": "assistant", "content": ""}
        assert "".join(choice["delta"].get("content", "") for choice in mine) == "a b"
        assert [choice["finish_reason"] for choice in mine] == [None, None, None, "stop"]
    assert events[-1]["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    assert [event["usage"] for event in events[:-1]] == [None] * (len(events) - 1)
    assert [event["perpetune"]["version"] for event in events if "perpetune" in event] == ["1"]


def test_feedback_finds_a_streamed_answer_at_its_end(start: Start) -> None:
    gateway = start()
    with httpx.stream("POST", f"{gateway.url}/v1/chat/completions", json={**BODY, "stream": True}) as reply:
        for line in reply.iter_lines():
            if '"finish_reason":"stop"' in line:
                said = {"request_id": reply.headers["x-request-id"], "label": "good"}
                assert gateway.post("/v1/feedback", said).status_code == 200
    [row] = recent_predictions(gateway.log, "reviews", limit=None)
    assert (row.output, row.label) == ("1: hello there", "good")


def test_an_error_before_the_first_piece_is_an_ordinary_one(champion: RoutedRelease, params: ServeParams) -> None:
    for fault, status, code in (
        (Overloaded(3, 2.0), 429, "overloaded"),
        (EngineDown(), 503, "engine_unavailable"),
        (PromptTooLong(900, 512), 400, "context_length_exceeded"),
        (Unsupported("tools", "this model calls none"), 400, "unsupported_parameter"),
        (RuntimeError("0xdeadbeef"), 500, "internal_error"),
    ):
        for stream in (False, True):
            log = Log()
            engine = FakeEngine(fault=fault, fails_after=0)
            [reply] = run(engine, champion, params, {**BODY, "stream": stream}, log=log)
            assert reply.status_code == status, reply.text
            assert "deadbeef" not in reply.text
            assert (reply.json()["error"]["code"], log.predictions) == (code, [])
            assert reply.headers["x-request-id"].startswith("chatcmpl-")
            assert ("retry-after" in reply.headers) == (status in (429, 503))
            blamed = [failure.code for failure in log.failures]
            assert blamed == ([] if status in (400, 429) else [code])


def test_an_error_during_a_stream_is_an_event(champion: RoutedRelease, params: ServeParams) -> None:
    log = Log()
    canary = replace(champion, route="canary")
    for fault, code in ((EngineDown(), "engine_unavailable"), (RuntimeError("0xdeadbeef"), "internal_error")):
        engine = FakeEngine(lambda version, messages: "a b c", fault=fault, fails_after=2)
        [reply] = run(engine, canary, params, {**BODY, "stream": True}, log=log)
        events = events_of(reply.text)
        assert reply.status_code == 200
        assert [event["choices"][0]["delta"].get("content") for event in events[:-1]] == ["", "a", " b"]
        assert events[-1]["error"]["code"] == code
        assert "deadbeef" not in reply.text
    assert [(row.output, row.finish_reason) for row in log.predictions] == [("a b", "failed")] * 2
    assert [(failure.code, failure.route, failure.version) for failure in log.failures] == [
        ("engine_unavailable", "canary", "1"),
        ("internal_error", "canary", "1"),
    ]


def test_the_openai_client_sees_an_error_amid_a_stream(start: Start) -> None:
    engine = FakeEngine(lambda version, messages: "a b c")
    gateway = start(engine)
    engine.fault, engine.fails_after = EngineDown(), 1
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
        stream = client.chat.completions.create(model="reviews", messages=HELLO, stream=True)
        with pytest.raises(openai.APIError, match="engine does not answer"):
            list(stream)


def test_time_runs_out_before_and_amid_a_stream(champion: RoutedRelease, params: ServeParams) -> None:
    hasty = params.model_copy(update={"timeout_seconds": 0.1})
    log = Log()
    [late] = run(FakeEngine(seconds=1), champion, hasty, {**BODY, "stream": True}, log=log)
    assert (late.status_code, late.json()["error"]["code"]) == (504, "timeout")
    slow = FakeEngine(lambda version, messages: "a b c", pause=0.08)
    [amid] = run(slow, champion, hasty, {**BODY, "stream": True}, log=log)
    assert events_of(amid.text)[-1]["error"]["code"] == "timeout"
    assert slow.cancelled == 1
    assert [failure.code for failure in log.failures] == ["timeout", "timeout"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_cancels_the_work(start: Start, stream: bool) -> None:
    engine = FakeEngine(lambda version, messages: "word " * 10, seconds=0 if stream else 0.4, pause=0.2)
    gateway = start(engine)
    if stream:
        with httpx.stream("POST", f"{gateway.url}/v1/chat/completions", json={**BODY, "stream": True}) as reply:
            next(reply.iter_lines())
    else:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{gateway.url}/v1/chat/completions", json=BODY, timeout=0.1)
    deadline = time.monotonic() + 5
    while engine.cancelled == 0:
        assert time.monotonic() < deadline, "the engine still works on a cancelled request"
        time.sleep(0.01)
    assert gateway.ask("hello", max_tokens=1).status_code == 200
    assert len(recent_predictions(gateway.log, "reviews", limit=None)) == 1


def test_confidence_is_calibrated(start: Start, release: Callable[..., Release]) -> None:
    warm = replace(release("1", ("good", "bad")), evaluated=ServingFacts(temperature=2.0))
    gateway = start(FakeEngine(lambda version, messages: "bad", sure=0.9), source=FakeSource([warm], champion="1"))
    told = gateway.ask("hello").json()["perpetune"]
    assert told["probabilities"] == pytest.approx({"good": 0.25, "bad": 0.75})
    assert told["confidence"] == pytest.approx(0.75)
    [row] = recent_predictions(gateway.log, "reviews", limit=None)
    assert row.output == "bad"
    assert row.confidence == pytest.approx(0.75)


def test_requests_are_kept_together_by_user_then_session(champion: RoutedRelease, params: ServeParams) -> None:
    routes = Routes(champion)
    session = {"x-session-id": "s1"}
    run(FakeEngine(), champion, params, {**BODY, "user": "ann"}, headers=session, routes=routes)
    run(FakeEngine(), champion, params, BODY, headers=session, routes=routes)
    [alone] = run(FakeEngine(), champion, params, BODY, routes=routes)
    assert routes.keys == ["ann", "s1", alone.json()["id"]]


def test_a_shadow_answers_unseen(release: Callable[..., Release], params: ServeParams) -> None:
    tried = replace(release("2", ("good", "bad")), evaluated=ServingFacts(temperature=2.0))
    routed = RoutedRelease(release("1", ("good", "bad")), "champion", tried)
    routes, log = Routes(routed), Log()
    engine = FakeEngine(lambda version, messages: "good" if version == "1" else "bad", sure=0.9)
    for stream in (False, True):
        [reply] = run(engine, routed, params, {**BODY, "stream": stream}, routes=routes, log=log)
        assert '"good"' in reply.text and '"version":"1"' in reply.text
        assert '"version":"2"' not in reply.text
    assert [row.id for row in log.predictions] == [said.request_id for said in log.shadows]
    said = log.shadows[0]
    assert (said.version, said.output, said.error) == ("2", "bad", None)
    assert said.confidence == pytest.approx(0.75)
    assert routes.open == {"1": 0, "2": 0}, "and nothing keeps it loaded afterwards"


def test_a_failing_shadow_does_not_affect_the_answer(release: Callable[..., Release], params: ServeParams) -> None:
    routed = RoutedRelease(release("1"), "champion", release("2"))

    def say(version: str, messages: Any) -> str:
        if version == "2":
            raise EngineDown
        return "fine"

    log = Log()
    [reply] = run(FakeEngine(say), routed, params, BODY, log=log)
    assert reply.json()["choices"][0]["message"]["content"] == "fine"
    assert [(said.output, said.error) for said in log.shadows] == [("", "EngineDown")]
    assert log.failures == []


def test_shadows_are_bounded(release: Callable[..., Release], params: ServeParams) -> None:
    class SlowShadow(FakeEngine):
        async def answer(self, version: str, *rest: Any) -> Any:
            if version == "2":
                await asyncio.sleep(0.1)
            return await super().answer(version, *rest)

    log = Log()
    routed = RoutedRelease(release("1"), "champion", release("2"))
    replies = run(SlowShadow(), routed, params, *[BODY] * 10, log=log, settle=0.4)
    assert [reply.status_code for reply in replies] == [200] * 10
    assert len(log.shadows) == params.max_batch


def test_the_gateway_tells_its_own_share_of_the_time(start: Start) -> None:
    timing = start(FakeEngine(seconds=0.05)).ask("hello").headers["server-timing"]
    engine, total = (float(part.partition(";dur=")[2]) for part in timing.split(", "))
    assert 45 <= engine <= total < 1000


def test_a_conversation_with_tools(start: Start) -> None:
    call: dict[str, object] = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city": "Bonn"}'},
    }
    on_delta: list[Message] = []

    def say(version: str, messages: Any) -> str:
        on_delta[:] = messages
        return "It rains."

    engine = FakeEngine(say, call=lambda messages: () if messages[-1].role == "tool" else (call,))
    gateway = start(engine)
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    choice = gateway.ask("How is it in Bonn?", tools=tools).json()["choices"][0]
    assert (choice["message"]["content"], choice["message"]["tool_calls"]) == (None, [call])
    assert choice["finish_reason"] == "tool_calls"
    [row] = recent_predictions(gateway.log, "reviews", limit=None)
    assert json.loads(row.output) == [call]
    conversation = [
        {"role": "user", "content": "How is it in Bonn?"},
        choice["message"],
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
    ]
    done = gateway.post("/v1/chat/completions", {"model": "reviews", "messages": conversation, "tools": tools})
    assert done.json()["choices"][0]["message"]["content"] == "It rains."
    assert on_delta[2] == Message(role="assistant", content="", tool_calls=(call,))
    assert on_delta[3] == Message(role="tool", content="rain", tool_call_id="call_1")
    rows = recent_predictions(gateway.log, "reviews", limit=None)
    assert [row.input for row in rows] == ["How is it in Bonn?"] * 2


def test_ten_streams_at_once(start: Start) -> None:
    gateway = start(FakeEngine(pause=0.02))
    texts: list[str] = []

    def ask(number: int) -> None:
        body = {"model": "reviews", "messages": [{"role": "user", "content": f"it is {number}"}], "stream": True}
        events = events_of(gateway.post("/v1/chat/completions", body).text)
        texts.append("".join(event["choices"][0]["delta"].get("content", "") for event in events))

    asking = [threading.Thread(target=ask, args=(number,)) for number in range(10)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert sorted(texts) == sorted(f"1: it is {number}" for number in range(10))
