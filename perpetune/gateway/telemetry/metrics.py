"""Prometheus metrics of the gateway. Every app has its own registry."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version as version_of
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from perpetune.generation.answer import Answer

Kind = TypeVar("Kind", Counter, Histogram)

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)


class Metrics:
    """All metrics. Label cardinality is small: the gateway's paths and routes, and loaded versions (see `forget`)."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "perpetune_http_requests", "Requests answered", ["path", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "perpetune_http_request_seconds",
            "Seconds from request to the end of its answer",
            ["path"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.tokens = Counter("perpetune_tokens", "Tokens read and written", ["kind"], registry=self.registry)
        self.shadows_skipped = Counter(
            "perpetune_shadows_skipped",
            "Shadow answers skipped because too many were in flight",
            registry=self.registry,
        )
        self.feedback = Counter("perpetune_feedback", "Feedback accepted", registry=self.registry)
        self.swaps = Counter(
            "perpetune_release_swaps", "Times another version became the serving one", registry=self.registry
        )
        self.release_failures = Counter(
            "perpetune_release_failures", "Times a version could not be loaded", registry=self.registry
        )
        self.serving = Gauge(
            "perpetune_release_serving", "1 for the version that serves", ["version"], registry=self.registry
        )
        self.log_waiting = Gauge(
            "perpetune_log_rows_waiting", "Rows not yet in the prediction log", registry=self.registry
        )
        self.log_in_memory = Gauge(
            "perpetune_log_rows_in_memory",
            "Waiting rows held only in memory because the spool cannot be written",
            registry=self.registry,
        )
        self.log_failures = Counter(
            "perpetune_log_write_failures", "Failed writes to the prediction log", registry=self.registry
        )
        self.log_lost = Counter(
            "perpetune_log_rows_lost", "Rows that never reached the prediction log", registry=self.registry
        )
        # Plain numbers, because a gauge's lock and checks take longer than all else about counting.
        self.in_flight = self.engine_in_flight = 0
        in_flight = Gauge("perpetune_http_requests_in_flight", "Requests in flight", registry=self.registry)
        in_flight.set_function(lambda: self.in_flight)
        self.answers = Counter(
            "perpetune_answers",
            "Answers by version and route",
            ["version", "route"],
            registry=self.registry,
        )
        self.cut_off = Counter(
            "perpetune_answers_cut_off",
            "Streamed answers that ended early, by version and reason: cancelled by the client, or failed",
            ["version", "reason"],
            registry=self.registry,
        )
        self.confidence = Histogram(
            "perpetune_answer_confidence",
            "Confidence of answers that have one",
            ["version"],
            buckets=_SHARES,
            registry=self.registry,
        )
        self.first_token_seconds = Histogram(
            "perpetune_first_token_seconds",
            "Seconds from the engine request to the first chunk of a streamed answer",
            ["version"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.engine_seconds = Histogram(
            "perpetune_engine_seconds",
            "Seconds from the engine request to its complete answer, queueing included",
            ["version"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        engine_in_flight = Gauge(
            "perpetune_engine_requests_in_flight", "Requests that the engine computes or queues", registry=self.registry
        )
        engine_in_flight.set_function(lambda: self.engine_in_flight)
        self.engine_refusals = Counter(
            "perpetune_engine_refusals", "Requests that the engine did not answer", ["reason"], registry=self.registry
        )
        self.release_refusals = Counter(
            "perpetune_release_refusals",
            "Versions refused because they failed the parity check",
            registry=self.registry,
        )
        self.release_rollbacks = Counter(
            "perpetune_release_rollbacks", "Rollbacks to the previous champion", registry=self.registry
        )
        self.trial = Gauge(
            "perpetune_release_trial", "1 for the version on trial", ["version", "strategy"], registry=self.registry
        )
        self.unauthorized = Counter(
            "perpetune_unauthorized", "Requests without a valid API key or role", ["code"], registry=self.registry
        )
        self.rate_limited = Counter(
            "perpetune_rate_limited", "Requests over the caller's rate limit", registry=self.registry
        )
        Info("perpetune_build", "Versions of perpetune and Python", registry=self.registry).info(
            {"version": version_of("perpetune"), "python": platform.python_version()}
        )
        self.join: Callable[[bytes], bytes] = lambda own: own
        self._series: dict[tuple[object, ...], Any] = {}

    def series(self, metric: Kind, *labels: str) -> Kind:
        """`metric.labels(*labels)`, remembered, because looking it up takes longer than counting."""
        found: Kind | None = self._series.get((metric, labels))
        if found is None:
            found = self._series[metric, labels] = metric.labels(*labels)
        return found

    def answered(self, version: str, route: str, answers: Sequence[Answer]) -> None:
        """Count the answers of one request."""
        self.series(self.answers, version, route).inc(len(answers))
        for answer in answers:
            if answer.confidence is not None:
                self.series(self.confidence, version).observe(answer.confidence)

    def forget(self, version: str) -> None:
        """Drop the series of an unloaded version, so that their number does not grow with every release."""
        self._series.clear()  # of the other versions too: they are looked up again
        for metric in (
            self.answers,
            self.cut_off,
            self.confidence,
            self.first_token_seconds,
            self.engine_seconds,
            self.trial,
        ):
            metric.remove_by_labels({"version": version})

    def text(self) -> bytes:
        """All metrics in Prometheus' text format, those of the gateway's other processes included."""
        return self.join(self.own_text())

    def own_text(self) -> bytes:
        """The metrics of this process."""
        return generate_latest(self.registry)


class MetricsMiddleware:
    """ASGI middleware that counts and times HTTP requests by route path."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 500

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self.metrics.in_flight += 1
        try:
            await self.app(scope, receive, note_status)
        finally:
            self.metrics.in_flight -= 1
            path = path_of(scope)
            self.metrics.series(self.metrics.requests, path, str(status)).inc()
            self.metrics.series(self.metrics.seconds, path).observe(time.perf_counter() - began)


def path_of(scope: Scope) -> str:
    """The path of the request's route, or "other"; also for requests refused before routing."""
    if "route" in scope:
        return str(getattr(scope["route"], "path", "other"))
    known = {getattr(route, "path", None) for route in scope["app"].routes}
    return scope["path"] if scope["path"] in known else "other"
