"""A remote model: another gateway, and a server that rejects parameters as OpenAI's newest models do."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from gateways import Gateway

from perpetune.engines.engine import ContextExceeded, EngineDown, NotLoaded, Unsupported
from perpetune.engines.remote_engine import RemoteEngine, remote_answers
from perpetune.errors import PerpetuneError
from perpetune.generation.parameters import Delta, GenerationConfig
from perpetune.model.release import Release
from perpetune.params import RemoteModel
from perpetune.prediction_log.queries import recent_predictions
from perpetune.records import Message
from perpetune.testing.fake_engine import FakeEngine
from perpetune.testing.fake_registry import FakeSource

Start = Callable[..., Gateway]
Remote = Callable[..., Release]
Reply = Callable[[dict[str, Any]], tuple[int, dict[str, Any]]]

SHORT = GenerationConfig(max_tokens=8)
LABELS = ("delivery", "money")
ASKED = (Message(role="system", content="Sort it."), Message(role="user", content="where is my parcel"))


def sorts(version: str, messages: Sequence[Message]) -> str:
    """What a chatty model says if it was told the labels."""
    told = messages[0].content
    if not (told.startswith("Sort it.\n\n") and told.endswith("delivery\nmoney")):
        return "what labels?"
    return ' "Delivery". ' if "parcel" in messages[-1].content else "I cannot say"


@pytest.fixture
def remote(release: Callable[..., Release]) -> Callable[..., Release]:
    def make(url: str, labels: tuple[str, ...] | None = None) -> Release:
        return replace(release("9", labels), system="remote", remote=RemoteModel(url=f"{url}/v1", model="reviews"))

    return make


def test_labels_are_told_to_the_model_and_found_in_what_it_says(start: Start, remote: Remote) -> None:
    far = start(FakeEngine(sorts))
    deltas: list[Delta] = []

    async def run() -> None:
        engine = RemoteEngine()
        await engine.load(remote(far.url, LABELS))
        answers = await engine.answer("9", ASKED, replace(SHORT, n=2), deltas.append)
        assert [(each.text, each.confidence, each.finish_reason) for each in answers] == [
            ("delivery", None, "stop")
        ] * 2
        assert [(each.index, each.text) for each in deltas] == [(0, "delivery"), (1, "delivery")]
        assert answers[0].prompt_tokens > 0
        with pytest.raises(EngineDown, match="'I cannot say', which is none of the 2 labels"):
            await engine.answer("9", (ASKED[0], Message(role="user", content="hello")), SHORT)
        await engine.unload("9")
        with pytest.raises(NotLoaded):
            await engine.answer("9", ASKED, SHORT)
        await engine.close()

    asyncio.run(run())


def test_free_text_is_passed_on_whole_and_in_pieces(start: Start, remote: Remote) -> None:
    far = start(FakeEngine(lambda _, messages: f"you said {messages[-1].content}"))
    deltas: list[str] = []

    async def run() -> None:
        engine = RemoteEngine()
        await engine.load(remote(far.url))
        [whole] = await engine.answer("9", ASKED, SHORT)
        [streamed] = await engine.answer("9", ASKED, SHORT, lambda delta: deltas.append(delta.text))
        assert whole.text == streamed.text == "".join(deltas) == "you said where is my parcel"
        await engine.close()

    asyncio.run(run())
    assert len(deltas) > 1


def test_many_rows_are_asked_and_a_model_that_is_away_is_one_clear_error(start: Start, remote: Remote) -> None:
    far = start(FakeEngine(sorts))
    answers = remote_answers(remote(far.url, LABELS), [ASKED] * 20, 8, None)
    assert [answer.text for answer in answers] == ["delivery"] * 20
    with pytest.raises(PerpetuneError, match=r"(?s)version 9 cannot be evaluated.*PERPETUNE_REMOTE_API_KEY"):
        remote_answers(remote("http://127.0.0.1:9", LABELS), [ASKED], 8, None)


@pytest.fixture
def picky(json_server: Callable[[Reply], str]) -> tuple[str, list[dict[str, Any]]]:
    """It takes `max_completion_tokens` and no temperature, and says so, one at a time; and what it has taken."""
    taken: list[dict[str, Any]] = []

    def reply(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        unwanted = next((name for name in ("max_tokens", "temperature") if name in body), None)
        if unwanted:
            return 400, {"error": {"message": f"unsupported: {unwanted}", "param": unwanted}}
        if body["model"] != "reviews":
            return 400, {"error": {"message": "no such model", "param": "model"}}
        taken.append(body)
        choice = {"index": 0, "message": {"role": "assistant", "content": "money"}, "finish_reason": "stop"}
        return 200, {"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 1}}

    return json_server(reply), taken


def test_a_parameter_that_the_model_refuses_is_named_otherwise_or_left_out(
    picky: tuple[str, list[dict[str, Any]]], remote: Remote
) -> None:
    url, taken = picky
    assert [each.text for each in remote_answers(remote(url, LABELS), [ASKED, ASKED], 8, None)] == ["money", "money"]
    assert all(body["max_completion_tokens"] == 8 and "temperature" not in body for body in taken)
    other = replace(remote(url), remote=RemoteModel(url=f"{url}/v1", model="other"))
    with pytest.raises(PerpetuneError, match="no such model"):
        remote_answers(other, [ASKED], 8, None)


OVERFLOWS: list[dict[str, Any]] = [
    {"message": "This model's maximum context length is 8192 tokens. However, ...", "code": "context_length_exceeded"},
    {"message": "Your input exceeds the context window of this model.", "code": "context_length_exceeded"},
    {"message": "This model's maximum context length is 8192 tokens. However, ...", "code": 400, "param": None},
]


@pytest.mark.parametrize("error", OVERFLOWS)
@pytest.mark.parametrize("stream", [False, True])
def test_an_overflow_there_is_an_overflow_here(
    json_server: Callable[[Reply], str], start: Start, remote: Remote, error: dict[str, Any], stream: bool
) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "fine"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 5, "completion_tokens": 1}

    def reply_to(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if "parcel" in body["messages"][-1]["content"]:
            return 400, {"error": error}
        return 200, {"choices": [choice], "usage": usage}

    there = remote(json_server(reply_to))
    engine = RemoteEngine()

    async def run() -> None:
        await engine.load(there)
        with pytest.raises(ContextExceeded, match="context"):
            await engine.answer("9", ASKED, SHORT, (lambda delta: None) if stream else None)
        await engine.close()

    asyncio.run(run())
    gateway = start(RemoteEngine(), source=FakeSource([there], champion="9"))
    reply = gateway.ask("where is my parcel", stream=stream)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert reply.json()["error"]["message"] == f"{error['message']} The prompt is too long."


def with_log_probabilities(*values: float | None) -> Callable[[dict[str, Any]], tuple[int, dict[str, Any]]]:
    """A server that gives the log-probabilities of tokens to whoever asks for them."""
    content: list[dict[str, Any]] = [
        {"token": "fine", "logprob": value, "bytes": None, "top_logprobs": []} for value in values
    ]

    def reply(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": "fine" * len(values)},
            "finish_reason": "stop",
        }
        given = {"logprobs": {"content": content}} if body.get("logprobs") else {}
        return 200, {"choices": [{**choice, **given}], "usage": {"prompt_tokens": 5, "completion_tokens": 1}}

    return reply


@pytest.mark.parametrize(
    ("values", "likelihood"),
    [((-0.2, -0.4), math.exp(-0.3)), ((0.0,), 1.0), ((), None), ((-0.2, None), None), ((-9999.0,), 0.0)],
)
def test_the_likelihood_of_a_text_is_that_of_its_tokens(
    json_server: Callable[[Reply], str], remote: Remote, values: tuple[float | None, ...], likelihood: float | None
) -> None:
    [answer] = remote_answers(remote(json_server(with_log_probabilities(*values))), [ASKED], 8, None)
    assert answer.likelihood == (None if likelihood is None else pytest.approx(likelihood))
    assert answer.logprobs is None, "they were not asked for"
    [label] = remote_answers(remote(json_server(with_log_probabilities(-0.2)), ("fine",)), [ASKED], 8, None)
    assert label.likelihood is None, "of a label it is none"


@pytest.mark.parametrize(
    "error",
    [
        {"message": "unsupported parameter", "param": "logprobs"},
        {"message": "Logprobs is not enabled for this model.", "param": None},
    ],
)
def test_a_model_without_log_probabilities_answers_all_the_same(
    json_server: Callable[[Reply], str], remote: Remote, error: dict[str, Any]
) -> None:
    bodies: list[dict[str, Any]] = []

    def reply(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        bodies.append(body)
        return (400, {"error": error}) if "logprobs" in body else with_log_probabilities()(body)

    async def run() -> None:
        engine = RemoteEngine()
        await engine.load(remote(json_server(reply)))
        for _ in range(2):
            [answer] = await engine.answer("9", ASKED, SHORT)
            assert answer.likelihood is None
        with pytest.raises(Unsupported, match="rejects the request"):
            await engine.answer("9", ASKED, replace(SHORT, top_logprobs=2))
        await engine.close()

    asyncio.run(run())
    assert ["logprobs" in body for body in bodies] == [True, False, False, True], (
        "it is asked once, or if a client asks"
    )


def test_the_likelihood_of_remote_answers_is_in_the_prediction_log_and_not_in_the_reply(
    start: Start, remote: Remote
) -> None:
    """The remote model is another gateway, in process and streamed."""
    far = start(FakeEngine(lambda _, messages: f"you said {messages[-1].content}"))
    there = remote(far.url)
    gateway = start(RemoteEngine(), source=FakeSource([there], champion="9"))
    for stream in (False, True):
        assert '"logprobs":{' not in gateway.ask("hello", stream=stream).text.replace(" ", "")
    logged = recent_predictions(gateway.log, "reviews", limit=None)
    assert [row.likelihood for row in logged if row.version == "9"] == [pytest.approx(0.5)] * 2
