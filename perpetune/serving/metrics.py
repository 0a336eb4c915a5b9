"""What the gateway counts for Prometheus. Every app has a registry of its own."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
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
            "Answers of a shadow that were left out for want of room",
            registry=self.registry,
        )
        self.feedback = Counter("perpetune_feedback", "Feedback accepted", registry=self.registry)
        self.swaps = Counter("perpetune_release_swaps", "Times another version took over", registry=self.registry)
        self.release_failures = Counter(
            "perpetune_release_failures", "Times a version could not be loaded", registry=self.registry
        )
        self.serving = Gauge(
            "perpetune_release_serving", "1 for the version that answers", ["version"], registry=self.registry
        )
        self.log_waiting = Gauge(
            "perpetune_log_rows_waiting", "Rows that are not in the prediction log yet", registry=self.registry
        )
        self.log_failures = Counter(
            "perpetune_log_write_failures", "Failed writes to the prediction log", registry=self.registry
        )
        self.log_lost = Counter(
            "perpetune_log_rows_lost", "Rows that never reached the prediction log", registry=self.registry
        )

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)


class Measured:
    """ASGI middleware that counts and times every HTTP request under the path of its route."""

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

        try:
            await self.app(scope, receive, note_status)
        finally:
            path = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(path, str(status)).inc()
            self.metrics.seconds.labels(path).observe(time.perf_counter() - began)
