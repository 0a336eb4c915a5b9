from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from perpetune.gateway.telemetry.metrics import Metrics
from perpetune.generation.answer import Answer
from perpetune.params import ServeParams
from perpetune.testing.fake_engine import FakeEngine

Start = Callable[..., Any]

ANSWER = Answer("good", 0.75, {"good": 0.75, "bad": 0.25}, 3, 1, "stop", 0.01)


def value(text: str, series: str) -> float | None:
    """The value of the series with exactly this name and these labels."""
    found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else None


def test_what_an_answer_counts() -> None:
    metrics = Metrics()
    metrics.answered("1", "canary", (ANSWER, replace(ANSWER, confidence=None)))
    text = metrics.text().decode()
    assert value(text, 'perpetune_answers_total{route="canary",version="1"}') == 2
    assert value(text, 'perpetune_answer_confidence_count{version="1"}') == 1
    assert value(text, 'perpetune_answer_confidence_bucket{le="0.8",version="1"}') == 1
    assert value(text, 'perpetune_answer_confidence_bucket{le="0.7",version="1"}') == 0


def test_a_version_that_is_gone_leaves_no_series() -> None:
    metrics = Metrics()
    for version in ("1", "2"):
        metrics.answered(version, "champion", (ANSWER,))
        metrics.engine_seconds.labels(version).observe(1)
        metrics.first_token_seconds.labels(version).observe(1)
        metrics.trial.labels(version, "canary").set(1)
    metrics.forget("1")
    metrics.forget("never seen")
    text = metrics.text().decode()
    assert 'version="1"' not in text
    assert value(text, 'perpetune_answers_total{route="champion",version="2"}') == 1


def test_what_runs_here() -> None:
    assert re.search(r'perpetune_build_info\{python="3[.0-9]+",version="\d[^"]*"\} 1.0', Metrics().text().decode())


def test_a_scrape_that_takes_long_holds_up_no_request(start: Start) -> None:
    """With several workers it adds up what all of them have counted, which takes tens of milliseconds."""
    gateway = start()
    scraping, go_on = threading.Event(), threading.Event()

    def join(own: bytes) -> bytes:
        scraping.set()
        assert go_on.wait(30)
        return own

    gateway.app.state.metrics.join = join
    scrape = threading.Thread(target=lambda: gateway.get("/metrics"))
    scrape.start()
    try:
        assert scraping.wait(30)
        assert gateway.ask("hello").status_code == 200
    finally:
        go_on.set()
        scrape.join()


def test_a_gateway_measures_its_engine_and_forgets_versions(start: Start) -> None:
    gateway = start()
    assert gateway.ask("hello").status_code == 200
    text = gateway.get("/metrics").text
    asked = value(text, 'perpetune_engine_seconds_count{version="1"}')
    assert asked is not None and asked >= 2  # the answer, and the one that warmed it up
    assert value(text, "perpetune_engine_requests_in_flight") == 0
    assert value(text, "perpetune_http_requests_in_flight") == 1  # the one that reads this
    gateway.source.champion_version = "2"
    assert gateway.post("/v1/release/check", {}).status_code == 200
    deadline = time.monotonic() + 10
    while value(gateway.get("/metrics").text, 'perpetune_engine_seconds_count{version="1"}') is not None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert value(gateway.get("/metrics").text, 'perpetune_engine_seconds_count{version="2"}') is not None


def test_what_an_engine_refuses_is_counted_by_its_reason(start: Start, params: ServeParams) -> None:
    gateway = start(FakeEngine(seconds=0.5), params=params.model_copy(update={"timeout_seconds": 2}))
    gateway.engine.loaded.clear()
    assert gateway.ask("hello").status_code == 404
    assert value(gateway.get("/metrics").text, 'perpetune_engine_refusals_total{reason="NotLoaded"}') == 1


@pytest.mark.parametrize(
    ("path", "label"),
    [("/v1/models/nobody", "/v1/models/{model}"), ("/v1/nothing", "other"), ("/%00", "other")],
)
def test_paths_are_those_of_routes(start: Start, path: str, label: str) -> None:
    gateway = start()
    assert gateway.get(path).status_code == 404
    text = gateway.get("/metrics").text
    assert value(text, f'perpetune_http_requests_total{{path="{label}",status="404"}}') == 1
