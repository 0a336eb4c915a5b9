from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from perpetune.gateway.middleware.head_limit import MAX_BYTES, HeadLimitProtocol
from perpetune.gateway.server import listen


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("fine")(scope, receive, send)


class Impatient(HeadLimitProtocol):
    seconds = 0.5


@pytest.fixture(params=[HeadLimitProtocol, Impatient])
def server(request: pytest.FixtureRequest) -> Iterator[int]:
    with listen("127.0.0.1", 0) as address:
        config = uvicorn.Config(app, loop="uvloop", http=request.param, ws="none", lifespan="off", log_level="error")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [address]})
        thread.start()
        yield address.getsockname()[1]
        server.should_exit = True
        thread.join(timeout=10)
        assert not thread.is_alive()


def read_all(connection: socket.socket) -> bytes:
    received = b""
    with suppress(ConnectionResetError):  # what was still on its way when the server closed
        while piece := connection.recv(4096):
            received += piece
    return received


def test_requests_as_they_are(server: int) -> None:
    with httpx.Client() as client:
        for size in (0, 1000, 30_000):
            answer = client.get(f"http://127.0.0.1:{server}/", headers={"x": "y" * size})
            assert (answer.status_code, answer.text) == (200, "fine")
    assert httpx.post(f"http://127.0.0.1:{server}/", content=b"x" * 5_000_000).status_code == 200


@pytest.mark.parametrize("part", [b"x: " + b"y" * 1000 + b"\r\n", b"y" * 1000])
def test_headers_without_end(server: int, part: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nz: ")
        sent = 0
        with suppress(ConnectionError):
            while sent < 100 * MAX_BYTES:
                connection.sendall(part)
                sent += len(part)
        assert sent < 100 * MAX_BYTES  # it was cut off
        answer = read_all(connection)
    assert not answer or answer.startswith(b"HTTP/1.1 431")


def test_the_answer_to_headers_that_are_too_large(server: int) -> None:
    with socket.create_connection(("127.0.0.1", server), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nz: " + b"y" * (MAX_BYTES - 30))
        connection.sendall(b"y" * 100)
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 431")
    assert b'"code":"headers_too_large"' in answer


@pytest.mark.parametrize("server", [Impatient], indirect=True)
@pytest.mark.parametrize(
    ("begun", "answered"),
    [(b"", b""), (b"GET / HT", b"HTTP/1.1 408"), (b"GET / HTTP/1.1\r\nx: y\r\n", b"HTTP/1.1 408")],
)
def test_headers_that_do_not_arrive(server: int, begun: bytes, answered: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server), timeout=10) as connection:
        connection.sendall(begun)
        answer = read_all(connection)
    assert answer.startswith(answered)
    assert bool(answer) is bool(answered)


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="this machine has no IPv6")
def test_an_ipv4_address_on_an_ipv6_socket_is_that_address() -> None:
    """All of them would share one /64 network, and with it one bucket of the rate limit."""
    seen: list[str] = []

    async def note_client(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["client"][0])
        await PlainTextResponse("fine")(scope, receive, send)

    with socket.socket(socket.AF_INET6) as address:
        address.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        address.bind(("::", 0))
        server = uvicorn.Server(uvicorn.Config(note_client, http=HeadLimitProtocol, lifespan="off", log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [address]})
        thread.start()
        for host in ("127.0.0.1", "[::1]"):
            assert httpx.get(f"http://{host}:{address.getsockname()[1]}/", timeout=10).status_code == 200
        server.should_exit = True
        thread.join(timeout=10)
    assert seen == ["127.0.0.1", "::1"]
