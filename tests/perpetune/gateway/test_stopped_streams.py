"""Streams that end early: what the user saw is in the log, counted, and can be judged, but is no answer of the version."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import sqlalchemy
from gateways import Gateway
from waiting import eventually

from perpetune.engines.engine import EngineDown
from perpetune.model.release import Release, Trial
from perpetune.params import ServeParams
from perpetune.prediction_log.answers.trial_outcomes import outcomes_of
from perpetune.prediction_log.queries import (
    counts,
    labelled_examples,
    labelled_history,
    newly_labelled,
    recent_predictions,
)
from perpetune.prediction_log.tables import failures, feedback, predictions, shadows
from perpetune.testing.fake_engine import FakeEngine
from perpetune.testing.fake_registry import FakeSource

Start = Callable[..., Gateway]
WORDS = " ".join(f"word{number}" for number in range(16))


def watch(gateway: Gateway, words: int, **more: object) -> tuple[str, str]:
    """The id and the text that a user saw who stopped a stream after so many words; 0 stops at once."""
    body = {"model": "reviews", "messages": [{"role": "user", "content": "tell me"}], "stream": True, **more}
    text = ""
    with httpx.stream("POST", f"{gateway.url}/v1/chat/completions", json=body, timeout=20) as reply:
        request_id = reply.headers["x-request-id"]
        for line in reply.iter_lines() if words else ():
            if line.startswith("data: {"):
                for choice in json.loads(line[6:]).get("choices", []):
                    text += choice["delta"].get("content") or ""
            if len(text.split()) >= words:
                break
    return request_id, text


def rows(gateway: Gateway) -> Sequence[Any]:
    with gateway.log.connect() as connection:
        return connection.execute(sqlalchemy.select(predictions)).all()


def writing(**more: Any) -> FakeEngine:
    return FakeEngine(lambda version, messages: WORDS, **{"pause": 0.01, **more})


@pytest.mark.parametrize("words", [0, 1, 5])
def test_what_was_sent_is_in_the_log(start: Start, words: int) -> None:
    engine = writing()
    gateway = start(engine)
    request_id, text = watch(gateway, words)
    [row] = eventually(lambda: rows(gateway), 5)
    assert (row.id, row.finish_reason, row.version, row.route) == (request_id, "cancelled", "1", "champion")
    assert row.output.startswith(text) and WORDS.startswith(row.output) and row.output != WORDS
    assert row.completion_tokens == len(row.output.split())  # one token a word
    assert row.prompt_tokens == (len(["Judge", "it.", "tell", "me"]) if row.output else 0)
    metrics = gateway.get("/metrics").text
    assert f'perpetune_tokens_total{{kind="completion"}} {row.completion_tokens}.0' in metrics
    assert f'perpetune_tokens_total{{kind="prompt"}} {row.prompt_tokens}.0' in metrics
    assert 'perpetune_answers_cut_off_total{reason="cancelled",version="1"} 1.0' in metrics
    assert "perpetune_answers_total{" not in metrics
    assert engine.cancelled == 1


def test_feedback_finds_it_at_once(start: Start) -> None:
    gateway = start(writing())
    for number in range(5):
        request_id, _ = watch(gateway, 2)
        said = gateway.post("/v1/feedback", {"request_id": request_id, "score": 0, "comment": f"too long {number}"})
        assert said.status_code == 200, said.text
    with gateway.log.connect() as connection:
        assert len(connection.execute(sqlalchemy.select(feedback)).all()) == 5


def test_all_answers_of_one_request_count(start: Start) -> None:
    gateway = start(writing())
    watch(gateway, 6, n=3)
    [row] = eventually(lambda: rows(gateway), 5)
    assert row.completion_tokens >= 6
    assert WORDS.startswith(row.output)
    assert "} 3.0" in next(line for line in gateway.get("/metrics").text.splitlines() if "cut_off_total{" in line)


def test_a_stream_that_the_engine_fails_is_one_failure(start: Start) -> None:
    engine = writing()
    gateway = start(engine)
    engine.fault, engine.fails_after = EngineDown("gone"), 3
    request_id, text = watch(gateway, 99)
    assert text.split() == WORDS.split()[:3]
    [row] = eventually(lambda: rows(gateway), 5)
    assert (row.id, row.output, row.finish_reason) == (request_id, text, "failed")
    with gateway.log.connect() as connection:
        assert [one.id for one in connection.execute(sqlalchemy.select(failures)).all()] == [request_id]
    since = datetime.now(UTC) - timedelta(hours=1)
    [outcome] = outcomes_of(gateway.log, "reviews", "1", "champion", since, 10)
    assert outcome.output is None
    assert gateway.post("/v1/feedback", {"request_id": request_id, "score": 0}).status_code == 200


def test_a_label_that_was_read_is_a_whole_answer(start: Start, release: Callable[..., Release]) -> None:
    """A client needs no more of a stream than the label."""
    source = FakeSource([release("1", ("good", "bad"))], champion="1")
    gateway = start(FakeEngine(lambda version, messages: "bad", pause=0.05), source=source)
    request_id, text = watch(gateway, 1)
    [row] = eventually(lambda: rows(gateway), 5)
    assert (row.id, row.output, row.finish_reason, text) == (request_id, "bad", "stop", "bad")
    assert row.confidence == 1.0
    assert 'perpetune_answers_total{route="champion",version="1"} 1.0' in gateway.get("/metrics").text


def test_tool_calls_so_far(start: Start) -> None:
    call: dict[str, object] = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    gateway = start(FakeEngine(call=lambda messages: (call,), pause=5.0))
    tools = [{"type": "function", "function": {"name": "f"}}]
    body = {"model": "reviews", "messages": [{"role": "user", "content": "x"}], "stream": True, "tools": tools}
    with httpx.stream("POST", f"{gateway.url}/v1/chat/completions", json=body, timeout=20) as reply:
        assert next(line for line in reply.iter_lines() if '"name":"f"' in line)
    [row] = eventually(lambda: rows(gateway), 5)
    assert json.loads(row.output)[0]["function"] == {"name": "f", "arguments": "{}"}


def test_it_does_not_count_as_an_answer_of_the_version(start: Start, release: Callable[..., Release]) -> None:
    shadow = Trial("2", "shadow", 1.0)
    source = FakeSource([release("1"), release("2")], champion="1", trial=shadow)
    gateway = start(writing(), source=source)
    whole = gateway.ask("tell me").json()["id"]
    eventually(lambda: len(_all(gateway, shadows)) == 1, 5)
    stopped, _ = watch(gateway, 2)
    eventually(lambda: len(rows(gateway)) == 2, 5)
    for request_id in (whole, stopped):
        assert gateway.post("/v1/feedback", {"request_id": request_id, "label": "good"}).status_code == 200
    log = gateway.log
    since = datetime.now(UTC) - timedelta(hours=1)
    assert [one.id for one in recent_predictions(log, "reviews", limit=None)] == [whole]
    assert [one.id for one in newly_labelled(log, "reviews", "1", 0)[0]] == [whole]
    assert [one.id for one, _, _ in labelled_history(log, "reviews")] == [whole]
    assert [one.id for one in outcomes_of(log, "reviews", "1", "champion", since, 10)] == [whole]
    assert len(_all(gateway, shadows)) == 1
    # What a person said is right for the input, whatever was sent.
    assert {one.id for one in labelled_examples(log, "reviews")} == {whole, stopped}
    assert (counts(log, "reviews").predictions, counts(log, "reviews").labelled) == (2, 2)


def _all(gateway: Gateway, table: sqlalchemy.Table) -> Sequence[Any]:
    with gateway.log.connect() as connection:
        return connection.execute(sqlalchemy.select(table)).all()


def test_a_whole_answer_says_why_it_ended(start: Start, params: ServeParams) -> None:
    gateway = start(FakeEngine(lambda version, messages: WORDS))
    for stream in (False, True):
        gateway.ask("tell me", stream=stream, max_tokens=4)
        gateway.ask("tell me", stream=stream)
    assert [row.finish_reason for row in rows(gateway)] == ["length", "stop"] * 2
