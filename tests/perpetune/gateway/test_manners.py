"""How the gateway behaves on a network, whatever is asked: proxies, health checks, browsers, old and new clients."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import time
import zlib
from collections.abc import Callable
from contextlib import closing
from typing import Any

import httpx
import pytest
import sqlalchemy
from gateways import Gateway
from starlette.requests import Request
from starlette.responses import Response
from waiting import eventually

from perpetune.gateway.middleware.content_encoding import inflate
from perpetune.params import ServeParams
from perpetune.prediction_log.api_keys import add_key
from perpetune.testing.fake_engine import FakeEngine

Start = Callable[..., Gateway]
BODY = {"model": "reviews", "messages": [{"role": "user", "content": "hello"}]}
CHAT = "/v1/chat/completions"
READ = ["/healthz", "/readyz", "/metrics", "/v1/models", "/v1/models/reviews", "/openapi.json", "/docs"]


def send(gateway: Gateway, method: str, path: str, **more: Any) -> httpx.Response:
    return httpx.request(method, gateway.url + path, timeout=10, **more)


@pytest.mark.parametrize("path", [*READ, "/v1/nothing", CHAT])
def test_head_is_get_without_the_body(standing: Gateway, path: str) -> None:
    with httpx.Client(base_url=standing.url) as client:
        for _ in range(2):  # on one connection
            got, head = client.get(path), client.head(path)
            assert (head.status_code, head.content) == (got.status_code, b"")
            assert head.headers["content-type"] == got.headers["content-type"]
            assert "content-length" in head.headers


@pytest.mark.parametrize("path", [*READ, CHAT, "/v1/feedback"])
def test_no_redirect_to_whatever_the_host_header_says(standing: Gateway, path: str) -> None:
    for method in ("GET", "POST"):
        reply = send(standing, method, path + "/", headers={"host": "evil.example.com"})
        assert reply.status_code in (404, 405)
        assert "location" not in reply.headers and "evil" not in reply.text


def test_every_reply_has_a_request_id(start: Start, log: sqlalchemy.Engine, params: ServeParams) -> None:
    shop, judge = add_key(log, "shop", ["ask"]), add_key(log, "judge", ["feedback"])
    limited = {"requests_per_minute": 120, "cors_origins": ("https://app.example.com",)}
    gateway = start(params=params.model_copy(update=limited))
    ids: list[str] = []

    def ask(status: int, method: str, path: str, key: str = "", **more: Any) -> None:
        headers = {**({"authorization": f"Bearer {key}"} if key else {}), **more.pop("headers", {})}
        reply = send(gateway, method, path, headers=headers, **more)
        assert (reply.status_code, len(reply.headers.get_list("x-request-id"))) == (status, 1), reply.text
        ids.append(reply.headers["x-request-id"])

    for path in READ:
        ask(200, "GET", path, shop)
    ask(200, "POST", CHAT, shop, json=BODY)
    ask(200, "POST", CHAT, shop, json={**BODY, "stream": True})
    ask(400, "POST", CHAT, shop, json={})
    ask(401, "POST", CHAT, json=BODY)
    ask(401, "POST", CHAT, "wrong", json=BODY)
    ask(403, "POST", CHAT, judge, json=BODY)
    ask(404, "GET", "/nowhere")
    ask(404, "POST", "/v1/feedback", judge, json={"request_id": "none", "score": 1})
    ask(405, "POST", "/healthz")
    ask(413, "POST", CHAT, shop, content=b" " * 1_000_000)
    ask(415, "POST", CHAT, shop, content=b"x", headers={"content-encoding": "br"})
    preflight = {"origin": "https://app.example.com", "access-control-request-method": "POST"}
    ask(200, "OPTIONS", CHAT, headers=preflight)

    def refused() -> httpx.Response | None:
        reply = send(gateway, "POST", CHAT, headers={"authorization": f"Bearer {shop}"}, json=BODY)
        return reply if reply.status_code == 429 else None

    reply = eventually(refused, every=0)
    assert reply is not None
    ids += reply.headers.get_list("x-request-id")
    assert len(set(ids)) == len(ids) == 13 + len(READ)


def test_a_fault_of_the_server_has_a_request_id(start: Start) -> None:
    gateway = start()

    async def broken(request: Request) -> Response:
        raise ZeroDivisionError  # any fault that nothing expects

    gateway.app.add_route("/broken", broken)
    reply = gateway.get("/broken")
    assert (reply.status_code, reply.json()["error"]["code"]) == (500, "internal_error")
    assert reply.headers["x-request-id"].startswith("req-")


@pytest.mark.parametrize("headers", [{"content-encoding": "gzip"}, {"content-encoding": "x-gzip"}])
def test_a_gzip_body(standing: Gateway, headers: dict[str, str]) -> None:
    for content in (json.dumps(BODY).encode(), json.dumps(BODY).encode().ljust(70_000)):
        head = {**headers, "content-type": "application/json"}
        reply = send(standing, "POST", CHAT, content=gzip.compress(content), headers=head)
        assert reply.json()["choices"][0]["message"]["content"] == "1: hello"


@pytest.mark.parametrize("encoding", ["br", "zstd", "deflate", "gzip, gzip", "gzip, br", "x"])
def test_other_encodings_are_not_supported(standing: Gateway, encoding: str) -> None:
    reply = send(standing, "POST", CHAT, content=b"x", headers={"content-encoding": encoding})
    assert (reply.status_code, reply.json()["error"]["code"]) == (415, "unsupported_encoding")
    assert reply.headers["accept-encoding"] == "gzip"


def test_identity_is_no_encoding(standing: Gateway) -> None:
    assert send(standing, "POST", CHAT, json=BODY, headers={"content-encoding": "identity"}).status_code == 200


def test_broken_and_enormous_gzip(standing: Gateway) -> None:
    whole = gzip.compress(json.dumps(BODY).encode())
    head = {"content-encoding": "gzip", "content-type": "application/json"}
    for broken in (whole[:-9], whole[:-5] + b"\xff" + whole[-4:], b"not gzip", whole + b"x", zlib.compress(b"{}")):
        reply = send(standing, "POST", CHAT, content=broken, headers=head)
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_encoding"), broken
    bomb = gzip.compress(b" " * 50_000_000)
    assert len(bomb) < 60_000
    began = time.perf_counter()
    reply = send(standing, "POST", CHAT, content=bomb, headers=head)
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "request_too_large")
    assert time.perf_counter() - began < 2


def test_inflating_is_bounded() -> None:
    members = gzip.compress(b"a" * 60) + gzip.compress(b"b" * 60)
    assert inflate(members, 120) == b"a" * 60 + b"b" * 60
    assert len(inflate(members, 119)) == 120  # one more than allowed, which the caller refuses
    assert len(inflate(gzip.compress(b"c" * 10_000_000), 100)) == 101


def test_docs_load_nothing_from_another_host(standing: Gateway) -> None:
    page = standing.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "//" not in page.text and "<script" not in page.text
    assert 'href="openapi.json"' in page.text
    for path in ("/v1/chat/completions", "/v1/feedback", "/v1/release/rollback"):
        assert f"<code>{path}</code>" in page.text
    assert standing.get("/redoc").status_code == 404


@pytest.mark.parametrize("text", ["x" * 1001, "x" * 1_000_000])
def test_a_prompt_that_is_refused_unread(standing: Gateway, text: str) -> None:
    """LiteLLM and LangChain take it for an overflow by these words."""
    error = standing.ask(text)
    assert error.status_code == 413
    for words in ("prompt is too long", "exceeds the context window", "Please reduce the length of the messages"):
        assert words in error.json()["error"]["message"]


@pytest.mark.slow
@pytest.mark.parametrize(("first", "last"), [(b"", 2.0), (b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n", 2.0)])
def test_an_idle_connection_stays_open_as_long_as_the_setting_says(
    start: Start, params: ServeParams, first: bytes, last: float
) -> None:
    gateway = start(params=params.model_copy(update={"keep_alive_seconds": 2}))
    port = int(gateway.url.rpartition(":")[2])
    with closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as connection:
        if first:
            connection.sendall(first)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        began = time.monotonic()
        assert connection.recv(1) == b""
        assert last - 0.2 < time.monotonic() - began < last + 2


def test_the_default_outlives_the_idle_connections_of_common_proxies() -> None:
    assert ServeParams().keep_alive_seconds > 60  # nginx, AWS, Azure and Google keep theirs for 60 s


@pytest.mark.slow
def test_two_hundred_streams_at_once(start: Start, params: ServeParams) -> None:
    """Each gets its own text, in order and to the end."""
    gateway = start(
        FakeEngine(lambda version, messages: f"{messages[-1].content} one two three four", pause=0.02),
        params=params.model_copy(update={"timeout_seconds": 60}),
    )

    async def stream(client: httpx.AsyncClient, number: int) -> str:
        body = {"model": "reviews", "messages": [{"role": "user", "content": f"n{number}"}], "stream": True}
        text = ""
        async with client.stream("POST", gateway.url + CHAT, json=body) as reply:
            lines = [line async for line in reply.aiter_lines() if line]
        assert lines[-1] == "data: [DONE]"
        for line in lines[:-1]:
            text += json.loads(line[6:])["choices"][0]["delta"].get("content") or ""
        return text

    async def run() -> list[str]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(timeout=60, limits=limits) as client:
            return await asyncio.gather(*(stream(client, number) for number in range(200)))

    assert asyncio.run(run()) == [f"n{number} one two three four" for number in range(200)]
    assert "perpetune_http_requests_in_flight 1.0" in gateway.get("/metrics").text  # this one
