from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import sqlalchemy
from gateways import PARAMS

from perpetune.audit.entry import Event
from perpetune.audit.store import entries
from perpetune.model.release import Release
from perpetune.prediction_log.api_keys import add_key
from perpetune.prediction_log.queries import recent_predictions
from perpetune.records import Message
from perpetune.testing.fake_engine import FakeEngine
from perpetune.testing.fake_registry import FakeSource

Make = Callable[..., Release]
Start = Callable[..., Any]  # a Gateway of conftest.py


def test_check_and_rollback_over_http(start: Start) -> None:
    gateway = start()
    gateway.source.promote("2")
    checked = gateway.post("/v1/release/check", None).json()
    assert checked == {"serving": "2", "champion": "2", "trial": None, "release": "ok"}
    done = gateway.post("/v1/release/rollback", {"task": "reviews", "reason": "it swears"}).json()
    assert (done["from"], done["to"]) == ("2", "1")
    assert gateway.ask("hello").json()["model"] == "reviews@1"
    again = gateway.post("/v1/release/rollback", {"task": "reviews"})
    assert (again.status_code, again.json()["error"]["code"]) == (409, "nothing_to_roll_back")
    [recorded] = entries(gateway.log)
    assert recorded.event == Event(
        "address 127.0.0.1", "rolled back over the API", "reviews version 2", {"to": "version 1"}
    )


def test_a_rollback_is_recorded_under_the_name_of_its_key(start: Start, log: sqlalchemy.Engine) -> None:
    secret = add_key(log, "oncall", ["admin"])
    gateway = start()
    gateway.source.promote("2")
    for path in ("check", "rollback"):
        body, headers = {"task": "reviews"}, {"authorization": f"Bearer {secret}"}
        assert httpx.post(f"{gateway.url}/v1/release/{path}", json=body, headers=headers).status_code == 200
    assert [each.event.actor for each in entries(log)] == ["key oncall"]


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/x-www-form-urlencoded", ""])
@pytest.mark.parametrize("origin", ["https://evil.example", "null", "own", "http://localhost:1"])
def test_no_page_in_a_browser_rolls_back(start: Start, kind: str, origin: str) -> None:
    """Nor one that DNS rebinding makes one of the gateway's own."""
    gateway = start()
    gateway.source.promote("2")
    assert gateway.post("/v1/release/check", None).json()["serving"] == "2"
    headers = {"origin": gateway.url if origin == "own" else origin, "content-type": kind}
    for path in ("rollback", "check", "answers"):
        sent = httpx.post(
            f"{gateway.url}/v1/release/{path}", content='{"task": "reviews"}', headers=headers, timeout=10
        )
        assert sent.status_code == 403, sent.text
    assert gateway.post("/v1/release/check", None).json()["serving"] == "2"


def test_pages_that_are_named_may(start: Start) -> None:
    gateway = start(params=PARAMS.model_copy(update={"cors_origins": ("https://app.example.com",)}))
    headers = {"origin": "https://app.example.com"}
    assert httpx.post(f"{gateway.url}/v1/release/check", json={}, headers=headers, timeout=10).status_code == 200


def test_a_loaded_version_is_asked_without_a_row_in_the_log(start: Start) -> None:
    def say(version: str, messages: Sequence[Message]) -> str:
        if "trap" in messages[-1].content:
            raise RuntimeError("it fails on this one")
        return f"{version}: {messages[-1].content}"

    gateway = start(FakeEngine(say))
    gateway.source.promote("2")
    gateway.post("/v1/release/check", None)
    asked = [[{"role": "user", "content": text}] for text in ("one", "trap", "three")]
    reply = gateway.post("/v1/release/answers", {"version": "previous", "conversations": asked}).json()
    assert (reply["version"], reply["serving"]) == ("1", "2")
    assert [each["output"] for each in reply["answers"]] == ["1: one", None, "1: three"]
    assert reply["answers"][1]["error"] == "RuntimeError"
    assert recent_predictions(gateway.log, "reviews", limit=None) == []
    missing = gateway.post("/v1/release/answers", {"version": "9", "conversations": []})
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_loaded")
    gateway.post("/v1/release/rollback", {"task": "reviews"})
    none = gateway.post("/v1/release/answers", {"conversations": []})
    assert (none.status_code, none.json()["error"]["code"]) == (409, "no_previous")


def test_samples_of_answers_are_drawn_at_a_temperature(start: Start) -> None:
    gateway = start(FakeEngine(lambda version, messages: f"{version}: {messages[-1].content}"))
    asked = {"version": "1", "conversations": [[{"role": "user", "content": "one"}]], "n": 3, "temperature": 0.7}
    reply = gateway.post("/v1/release/answers", asked).json()
    assert reply["answers"] == [{"output": "1: one", "outputs": ["1: one"] * 3, "error": None}]
    version, generation = gateway.engine.asked[-1]
    assert (version, generation.n, generation.temperature) == ("1", 3, 0.7)
    assert recent_predictions(gateway.log, "reviews", limit=None) == []
    for wrong in ({"n": 0}, {"n": 100}, {"temperature": -1}):
        assert gateway.post("/v1/release/answers", asked | wrong).status_code in (400, 422)


def test_ten_swaps_and_two_rollbacks_under_load_fail_no_request(start: Start, release: Make) -> None:
    engine = FakeEngine(seconds=0.002)
    source = FakeSource([release(str(number)) for number in range(1, 12)], champion="1")
    gateway = start(engine, source=source)
    stop = threading.Event()

    def ask_until_stopped(client: int) -> list[tuple[int, str, str]]:
        answers = []
        while not stop.is_set():
            reply = gateway.ask(f"hello from {client}")
            body = reply.json()
            text = body["choices"][0]["message"]["content"] if reply.status_code == 200 else reply.text
            answers.append((reply.status_code, str(body.get("model")), text))
        return answers

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask_until_stopped, client) for client in range(4)]
        for number in range(2, 12):
            source.promote(str(number))
            assert gateway.post("/v1/release/check", None).json()["serving"] == str(number)
            if number in (5, 9):
                assert gateway.post("/v1/release/rollback", {"task": "reviews"}).json()["to"] == str(number - 1)
        stop.set()
        answered = [answer for each in asking for answer in each.result()]
    assert {status for status, _, _ in answered} == {200}
    # FakeEngine says the version that it answered with, and fails if it was unloaded.
    assert all(text.startswith(f"{model.removeprefix('reviews@')}: ") for _, model, text in answered)
    assert len({model for _, model, _ in answered}) > 3
