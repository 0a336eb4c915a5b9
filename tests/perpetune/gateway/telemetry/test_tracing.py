from __future__ import annotations

import asyncio
import gzip
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
import sqlalchemy
from fastapi import FastAPI
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from perpetune.gateway.telemetry.tracing import Tracing, TracingMiddleware, note, note_answer, span
from perpetune.prediction_log.api_keys import add_key
from perpetune.records import Message
from perpetune.testing.fake_engine import FakeEngine

Start = Callable[..., Any]

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector:
    """What a collector received over OTLP, as protobuf over HTTP."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[ExportTraceServiceRequest] = []
        self.bodies: list[bytes] = []

    @property
    def spans(self) -> list[Span]:
        scopes = [scope for sent in self.requests for group in sent.resource_spans for scope in group.scope_spans]
        return [span for scope in scopes for span in scope.spans]

    def server_spans(self) -> list[Span]:
        return [span for span in self.spans if span.kind == Span.SPAN_KIND_SERVER]

    def wait_for(self, name: str) -> Span:
        deadline = time.monotonic() + 10
        while True:
            found = [span for span in self.spans if span.name == name]
            if found:
                return found[0]
            assert time.monotonic() < deadline, [span.name for span in self.spans]
            time.sleep(0.05)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    class Receive(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            if self.path == "/v1/traces":
                receiver.bodies.append(body)
                receiver.requests.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receive)
    receiver = Collector(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    yield receiver
    server.shutdown()
    thread.join()
    server.server_close()


def attributes(span: Span) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


def test_a_chat_is_one_span_of_the_clients_trace_with_the_engine_in_it(start: Start, collector: Collector) -> None:
    gateway = start()
    body = {"model": "reviews", "messages": [{"role": "user", "content": "a-very-secret-question"}]}
    answer = httpx.post(
        f"{gateway.url}/v1/chat/completions", json=body, headers={"traceparent": f"00-{TRACE}-{PARENT}-01"}, timeout=10
    )
    chat = collector.wait_for("chat reviews")
    assert chat.trace_id.hex() == TRACE
    assert chat.parent_span_id.hex() == PARENT
    assert chat.kind == Span.SPAN_KIND_SERVER
    said = attributes(chat)
    assert said["gen_ai.operation.name"] == "chat"
    assert said["gen_ai.response.id"] == answer.json()["id"]
    assert said["http.route"] == "/v1/chat/completions"
    assert said["http.request.method"] == "POST"
    assert said["http.response.status_code"] == 200
    engine = collector.wait_for("engine")
    assert (engine.trace_id, engine.parent_span_id) == (chat.trace_id, chat.span_id)
    assert attributes(engine)["perpetune.version"] == "1"
    assert chat.start_time_unix_nano <= engine.start_time_unix_nano
    assert engine.end_time_unix_nano <= chat.end_time_unix_nano
    resource = {
        each.key: each.value.string_value for each in collector.requests[0].resource_spans[0].resource.attributes
    }
    assert resource["service.name"] == "perpetune-gateway"
    assert not any(b"a-very-secret-question" in sent for sent in collector.bodies)


def test_refusals_are_traced_and_keys_are_not(start: Start, log: sqlalchemy.Engine, collector: Collector) -> None:
    key = add_key(log, "shop", ["ask"])
    gateway = start()
    headers = {"authorization": f"Bearer {key}"}
    assert httpx.post(f"{gateway.url}/v1/release/check", headers=headers).status_code == 403
    assert httpx.get(f"{gateway.url}/v1/models", headers=headers).status_code == 200
    assert attributes(collector.wait_for("POST /v1/release/check"))["http.response.status_code"] == 403
    assert attributes(collector.wait_for("GET /v1/models"))["http.response.status_code"] == 200
    assert len(collector.server_spans()) == 2  # probes are no spans
    assert not any(key.encode() in sent for sent in collector.bodies)


def test_a_failure_is_an_error_without_the_words_of_the_fault(start: Start, collector: Collector) -> None:
    def say(version: str, messages: Sequence[Message]) -> str:
        if messages[-1].content.startswith("private"):
            raise RuntimeError(f"cannot read {messages[-1].content}")
        return "fine"

    gateway = start(FakeEngine(say))
    assert gateway.ask("private words").status_code == 500
    chat, engine = collector.wait_for("chat reviews"), collector.wait_for("engine")
    assert chat.status.code == engine.status.code == Status.STATUS_CODE_ERROR
    assert attributes(chat)["error.type"] == "500"
    assert attributes(engine)["error.type"] == "RuntimeError"
    assert not any(b"private words" in sent for sent in collector.bodies)


def test_what_is_noted_of_an_answer(collector: Collector) -> None:
    app = FastAPI()
    tracing = Tracing()
    assert tracing.tracer
    app.add_middleware(TracingMiddleware, tracer=tracing.tracer, task="reviews")

    @app.post("/v1/chat/completions")
    async def answer() -> str:
        with span("record"):
            note_answer(model="reviews@2", version="2", route="pinned", prompt_tokens=7, completion_tokens=3)
        return "fine"

    async def ask() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            assert (await client.post("/v1/chat/completions")).status_code == 200

    asyncio.run(ask())
    tracing.close()  # sends what is left, without waiting for the next batch
    record, chat = collector.spans
    assert (record.name, chat.name) == ("record", "chat reviews")
    assert record.parent_span_id == chat.span_id
    said = attributes(chat)
    assert said["gen_ai.request.model"] == "reviews@2"
    assert (said["gen_ai.usage.input_tokens"], said["gen_ai.usage.output_tokens"]) == (7, 3)
    assert (said["perpetune.version"], said["perpetune.route"]) == ("2", "pinned")


def test_closing_sends_the_last_spans(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
    tracing = Tracing()
    assert tracing.tracer
    tracing.tracer.start_span("last").end()
    assert collector.spans == []
    tracing.close()
    assert [span.name for span in collector.spans] == ["last"]


def test_off_without_an_endpoint(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    tracing = Tracing()
    assert tracing.tracer is None
    tracing.close()
    assert isinstance(span("engine"), nullcontext)
    note({"a": 1})
    assert start().ask("hello").status_code == 200


def test_a_collector_that_is_down_does_not_hold_up_answers(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:9/v1/traces")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    gateway = start()
    began = time.monotonic()
    assert all(gateway.ask("hello").status_code == 200 for _ in range(10))
    assert time.monotonic() - began < 5
