"""OpenTelemetry traces over OTLP: a server span per request, with child spans for the engine and the log.

Tracing is off unless OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is set; OpenTelemetry's other
variables (OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, ...) apply too. Names follow the semantic conventions for HTTP and
generative AI. Prompts and answers are never in a span.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from perpetune.gateway.telemetry.metrics import path_of

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

Attributes = Mapping[str, str | int | float | bool]

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_CHAT = "/v1/chat/completions"
_NOTHING = nullcontext()


@dataclass(frozen=True)
class _Request:
    """The traced request of the current context."""

    tracer: Tracer
    span: Span
    context: Context  # that of a child of the span


_request: ContextVar[_Request | None] = ContextVar("perpetune_traced_request", default=None)


def span(name: str, attributes: Attributes | None = None) -> AbstractContextManager[None]:
    """A child span of the current request; a no-op if it is not traced."""
    request = _request.get()
    return _NOTHING if request is None else _child(request, name, attributes)


def note(attributes: Attributes) -> None:
    """Add attributes to the current request's span."""
    request = _request.get()
    if request is not None:
        request.span.set_attributes(dict(attributes))


def note_answer(*, model: str, version: str, route: str, prompt_tokens: int, completion_tokens: int) -> None:
    """Record in the request's span which version answered, and its token counts; `model` is the requested one."""
    note(
        {
            "gen_ai.request.model": model,
            "gen_ai.usage.input_tokens": prompt_tokens,
            "gen_ai.usage.output_tokens": completion_tokens,
            "perpetune.version": version,
            "perpetune.route": route,
        }
    )


class Tracing:
    """The tracer of one gateway; spans are exported in batches by a background thread."""

    def __init__(self) -> None:
        self._provider = _provider() if any(os.environ.get(name) for name in _ENDPOINTS) else None
        self.tracer = self._provider.get_tracer("perpetune") if self._provider else None

    def close(self) -> None:
        """Export the remaining spans, within the exporter's timeout."""
        if self._provider:
            self._provider.shutdown()


class TracingMiddleware:
    """ASGI middleware: a server span for every request under /v1, in the client's trace if there is one."""

    def __init__(self, app: ASGIApp, tracer: Tracer, task: str) -> None:
        self.app = app
        self.tracer = tracer
        self.task = task

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self.app(scope, receive, send)
            return
        from opentelemetry.trace import set_span_in_context

        span = _server_span(self.tracer, scope, self.task)
        status = 500

        async def note_response(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                for name, value in message.get("headers", ()):
                    if name.lower() == b"x-request-id":
                        span.set_attribute("gen_ai.response.id", value.decode("latin-1"))
            await send(message)

        before = _request.set(_Request(self.tracer, span, set_span_in_context(span)))
        try:
            await self.app(scope, receive, note_response)
        finally:
            _request.reset(before)
            span.set_attributes({"http.route": path_of(scope), "http.response.status_code": status})
            if status >= 500:
                _failed(span, str(status))
            span.end()


@contextmanager
def _child(request: _Request, name: str, attributes: Attributes | None) -> Iterator[None]:
    # Started and ended explicitly: a stream may be closed in another context than the one it was opened in.
    child = request.tracer.start_span(name, request.context, attributes=attributes)
    try:
        yield
    except BaseException as fault:
        _failed(child, type(fault).__name__)  # its message may quote the request
        raise
    finally:
        child.end()


def _server_span(tracer: Tracer, scope: Scope, task: str) -> Span:
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    parent = TraceContextTextMapPropagator().extract(carrier)
    attributes = {"http.request.method": scope["method"]}
    name = f"{scope['method']} {path_of(scope)}"
    if scope["path"] == _CHAT:
        name = f"chat {task}"
        attributes |= {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "perpetune"}
    return tracer.start_span(name, parent, SpanKind.SERVER, attributes)


def _failed(span: Span, kind: str) -> None:
    from opentelemetry.trace import StatusCode

    span.set_status(StatusCode.ERROR)
    span.set_attribute("error.type", kind)


def _provider() -> TracerProvider:
    # Late, so that a gateway without tracing does not import these.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    resource = Resource.create({} if named else {"service.name": "perpetune-gateway"})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
