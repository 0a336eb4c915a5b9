"""The guard in front of a real uvicorn: what browsers send for pages of other sites is refused, all else is answered."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import httpx
import pytest
import uvicorn
import websockets

from perpetune.gateway.server import listen
from perpetune.runtime.browser_guard import BrowserGuard, Receive, Scope, Send

EVIL = "https://evil.example"


async def accepting(scope: Scope, receive: Receive, send: Send) -> None:
    """Accepts WebSockets, and answers every request with 200."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "hello"})
        await send({"type": "websocket.close"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    guarded = BrowserGuard(
        accepting,
        hosts=["prefect:4200", "Proxy.example"],
        origins=["https://pages.example"],
        health=["/health"],
        headers=[(b"x-owner", b"me")],
    )
    with listen("127.0.0.1", 0) as address:
        server = uvicorn.Server(uvicorn.Config(guarded, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [address]}, daemon=True)
        thread.start()
        yield address.getsockname()[1]
        server.should_exit = True
        thread.join(timeout=10)


def status(port: int, method: str = "POST", path: str = "/delete", **headers: str) -> int:
    return httpx.request(method, f"http://127.0.0.1:{port}{path}", headers=headers, timeout=10).status_code


@pytest.mark.parametrize("origin", [EVIL, "null", "http://localhost.evil.example", "file://", "http://127.0.0.1:1", ""])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
def test_pages_of_other_sites_are_refused(port: int, origin: str, method: str) -> None:
    assert status(port, method, origin=origin) == 403


def test_a_form_of_another_site_is_refused_although_it_needs_no_leave(port: int) -> None:
    sent = {"origin": EVIL, "content-type": "application/x-www-form-urlencoded", "sec-fetch-site": "cross-site"}
    answer = httpx.post(f"http://127.0.0.1:{port}/shutdown", data={"x": "1"}, headers=sent, timeout=10)
    assert (answer.status_code, answer.headers["x-owner"]) == (403, "me")
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "host", ["evil.example", "10.evil.example", "127.0.0.1.evil.example:80", "", "[", "localhost@x"]
)
def test_a_name_that_somebody_lets_point_here_is_refused(port: int, host: str) -> None:
    assert status(port, "GET", host=host) == 403
    assert status(port, "GET", "/health", host=host) == 200, "a probe names the address of a container"


@pytest.mark.parametrize(
    "host", ["localhost:9", "127.0.0.1", "[::1]:4200", "prefect:4200", "proxy.example", "PREFECT:4200"]
)
def test_clients_and_own_pages_are_answered(port: int, host: str) -> None:
    assert status(port, host=host) == 200, "no browser: without an Origin"
    assert status(port, host=host, origin=f"http://{host}") == 200, "a page of its own"
    assert status(port, host=host, origin="https://pages.example") == 200, "a page that is allowed"


def test_another_name_of_the_server_is_no_other_site(port: int) -> None:
    assert status(port, origin="http://prefect:4200") == 200
    assert status(port, origin="http://prefect:4201") == 403


@pytest.mark.parametrize(("origin", "answered"), [(None, True), ("own", True), (EVIL, False)])
def test_a_websocket_of_another_site_is_refused(port: int, origin: str | None, answered: bool) -> None:
    address = f"127.0.0.1:{port}"
    sent = {} if origin is None else {"origin": f"http://{address}" if origin == "own" else origin}

    async def hear() -> str:
        async with websockets.connect(f"ws://{address}/events", additional_headers=sent, proxy=None) as socket:
            return str(await socket.recv())

    if answered:
        assert asyncio.run(hear()) == "hello"
    else:
        with pytest.raises(websockets.InvalidStatus, match="403"):
            asyncio.run(hear())


def test_any_host_and_origin_may_be_allowed() -> None:
    guard = BrowserGuard(accepting, hosts=["*"], origins=["*"])
    sent: list[object] = []

    async def send(message: object) -> None:
        sent.append(message)

    async def receive() -> dict[str, object]:
        return {}

    headers = [(b"host", b"any.example"), (b"origin", EVIL.encode())]
    asyncio.run(guard({"type": "http", "path": "/", "headers": headers}, receive, send))
    assert sent[0] == {"type": "http.response.start", "status": 200, "headers": []}
