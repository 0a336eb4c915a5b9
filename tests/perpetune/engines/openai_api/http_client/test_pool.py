"""Requests over sockets to a server that says what a test gives it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from perpetune.engines.openai_api.http_client import pool as pool_module
from perpetune.engines.openai_api.http_client.connection import LONGEST_LINE, Disconnected
from perpetune.engines.openai_api.http_client.pool import ConnectionPool
from perpetune.engines.openai_api.tls import Tls, TlsFiles
from perpetune.errors import PerpetuneError

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood"
Says = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    found: Callable[[Coroutine[Any, Any, None]], None] = request.param
    return found


class Server:
    """Answers the requests of each connection with the next of `replies`; an empty one closes the connection."""

    def __init__(self, *replies: bytes) -> None:
        self.replies = list(replies)
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.connections = 0
        self.ended = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while self.replies:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next((int(line[16:]) for line in head.split(b"\r\n") if line.startswith(b"content-length")), 0)
                self.heads.append(head)
                self.bodies.append(await reader.readexactly(length))
                reply = self.replies.pop(0)
                writer.write(reply)
                if not reply or b"connection: close" in reply:
                    break
            else:
                await reader.read()
        self.ended.set()
        writer.close()


@asynccontextmanager
async def talking_to(server: Says, **headers: str) -> AsyncIterator[ConnectionPool]:
    listening = await asyncio.start_server(server, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    pool = ConnectionPool(f"http://127.0.0.1:{port}/base", Tls(TlsFiles("PERPETUNE_REMOTE")), headers)
    try:
        yield pool
    finally:
        await pool.close()
        listening.close()


async def asked(pool: ConnectionPool, body: bytes | None = b"{}") -> tuple[int, bytes]:
    return await pool.reply("/ask", body)


async def lines_of(pool: ConnectionPool) -> list[bytes]:
    async with pool.response("/ask", b"{}") as response:
        return [line async for line in response.lines()]


def test_requests_share_a_connection_and_carry_the_headers(run: Callable[..., None]) -> None:
    async def main() -> None:
        server = Server(OK, OK)
        async with talking_to(server, authorization="Bearer one") as pool:
            assert await asked(pool, b'{"a": 1}') == (200, b"good")
            assert await asked(pool, None) == (200, b"good")
        assert server.connections == 1 and server.bodies == [b'{"a": 1}', b""]
        assert [head.split(b" HTTP")[0] for head in server.heads] == [b"POST /base/ask", b"GET /base/ask"]
        assert all(b"\r\nauthorization: Bearer one\r\n" in head for head in server.heads)
        assert all(b"\r\nhost: 127.0.0.1:" in head for head in server.heads)

    run(main())


@pytest.mark.parametrize(
    ("reply", "shared"),
    [
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\ngo\r\n2\r\nod\r\n0\r\n\r\n", True),
        (b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood", True),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\ngood", False),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 4\r\n\r\ngood", False),
    ],
    ids=["chunks", "announced", "until its end", "closed"],
)
def test_every_form_of_a_body_is_read(run: Callable[..., None], reply: bytes, shared: bool) -> None:
    async def main() -> None:
        server = Server(reply, OK)
        async with talking_to(server) as pool:
            assert await asked(pool) == (200, b"good")
            assert await asked(pool) == (200, b"good")
        assert server.connections == (1 if shared else 2)

    run(main())


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 9\r\n\r\ngood",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n2\r\ngo\r\n",
    ],
)
def test_a_response_that_is_cut_off_is_no_answer(run: Callable[..., None], reply: bytes) -> None:
    async def main() -> None:
        async with talking_to(Server(reply)) as pool:
            with pytest.raises(Disconnected):
                await asked(pool)

    run(main())


def test_a_server_that_speaks_no_http_is_named_as_such(run: Callable[..., None]) -> None:
    async def main() -> None:
        async with talking_to(Server(b"220 mail ready\r\n", b"220 mail ready\r\n")) as pool:
            with pytest.raises(Disconnected, match="no HTTP"):
                await asked(pool)

    run(main())


def test_a_request_is_sent_again_if_a_kept_connection_was_closed(run: Callable[..., None]) -> None:
    async def main() -> None:
        server = Server(OK, b"", OK)
        async with talking_to(server) as pool:
            assert [await asked(pool), await asked(pool)] == [(200, b"good")] * 2
        assert server.connections == 2 and len(server.heads) == 3

    run(main())


def test_a_request_is_not_sent_a_third_time(run: Callable[..., None]) -> None:
    async def main() -> None:
        server = Server(b"", b"", OK)
        async with talking_to(server) as pool:
            with pytest.raises(Disconnected):
                await asked(pool)
        assert len(server.heads) == 2

    run(main())


def test_a_server_is_disconnected_when_nobody_waits_for_its_answer(run: Callable[..., None]) -> None:
    async def main() -> None:
        server = Server(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\ngood", OK)
        async with talking_to(server) as pool:
            asking = asyncio.create_task(asked(pool))
            while not server.heads:
                await asyncio.sleep(0.01)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await asyncio.wait_for(server.ended.wait(), 5)
            assert await asked(pool) == (200, b"good")

    run(main())


def test_what_nobody_asked_for_is_no_answer_to_the_next_request(run: Callable[..., None]) -> None:
    async def main() -> None:
        server = Server(OK + OK.replace(b"good", b"late"), OK)
        async with talking_to(server) as pool:
            assert await asked(pool) == (200, b"good")
            await asyncio.sleep(0.05)
            assert await asked(pool) == (200, b"good")

    run(main())


def test_idle_connections_are_closed_before_the_server_closes_them(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "_IDLE_SECONDS", 0.05)

    async def main() -> None:
        server = Server(OK, OK)
        async with talking_to(server) as pool:
            await asked(pool)
            await asyncio.sleep(0.1)
            await asked(pool)
        assert server.connections == 2

    run(main())


def test_a_body_is_read_by_lines_however_it_is_cut(run: Callable[..., None]) -> None:
    async def says(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        for part in (b"data: o", b"ne\n\nda", b"ta: two\nrest"):
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.01)
        writer.close()

    async def main() -> None:
        async with talking_to(says) as pool:
            assert await lines_of(pool) == [b"data: one", b"", b"data: two", b"rest"]

    run(main())


def test_a_line_without_an_end_does_not_fill_the_memory(run: Callable[..., None]) -> None:
    async def says(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()

    async def main() -> None:
        async with talking_to(says) as pool:
            with pytest.raises(Disconnected, match=f"longer than {LONGEST_LINE}"):
                await lines_of(pool)

    run(main())


def test_a_server_waits_while_its_answer_is_not_read(run: Callable[..., None]) -> None:
    whole = 64 << 20
    written = 0

    async def says(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % whole)
        while written < whole:
            writer.write(b"x" * 65536)
            written += 65536
            await writer.drain()
        writer.close()

    async def main() -> None:
        nonlocal written
        async with talking_to(says) as pool, pool.response("/ask", b"{}") as response:
            await asyncio.sleep(0.3)
            assert written < whole / 2
            assert sum([len(part) async for part in response.parts()]) == whole
        written = 0
        async with talking_to(says) as pool, pool.response("/ask", b"{}") as response:
            await asyncio.sleep(0.3)
            assert written < whole / 2
            assert (response.status, len(await response.read())) == (200, whole)

    run(main())


def test_a_server_that_is_not_there_is_an_error_of_the_system(run: Callable[..., None]) -> None:
    async def main() -> None:
        async with talking_to(Server()) as pool:
            pass
        with pytest.raises(ConnectionRefusedError):
            await asked(pool)

    run(main())


BASIC = f"Basic {base64.b64encode(b'one:PASSWORD').decode()}"


@pytest.mark.parametrize(
    ("url", "headers"), [("http://one:PASSWORD@localhost", {}), ("http://localhost", {"authorization": BASIC})]
)
def test_a_user_in_the_address_is_sent_as_basic_authentication(url: str, headers: dict[str, str]) -> None:
    pool = ConnectionPool(url, Tls(TlsFiles("PERPETUNE_REMOTE")), headers)
    assert f"\r\nauthorization: {BASIC}\r\n".encode() in pool._head and b"host: localhost\r\n" in pool._head


def test_a_key_with_a_line_break_is_refused() -> None:
    with pytest.raises(PerpetuneError, match="line break"):
        ConnectionPool("http://localhost", Tls(TlsFiles("PERPETUNE_REMOTE")), {"authorization": "Bearer a\nb: c"})
