"""The connections to one server, which are kept for the next requests."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from urllib.parse import quote, unquote, urlsplit

import aiohappyeyeballs

from perpetune.engines.openai_api.http_client.connection import Connection, Disconnected
from perpetune.engines.openai_api.tls import Tls
from perpetune.errors import PerpetuneError

_CONNECT_SECONDS = 5.0  # TLS included
_NEXT_ADDRESS_SECONDS = 0.25  # after which another of the host's addresses is tried too (RFC 8305)
# Servers close idle connections, vLLM after 5 s. We close them earlier, so that none is closed during a request.
_IDLE_SECONDS = 2.0
_KEPT_IN_PATHS = "/%:@!$&'()*+,;="


class ConnectionPool:
    """Requests to the server at `url`, with these headers in each. Raises PerpetuneError if one cannot be sent."""

    def __init__(self, url: str, tls: Tls, headers: Mapping[str, str]) -> None:
        address = urlsplit(url)
        self._tls = tls if address.scheme == "https" else None
        self._host = address.hostname or ""
        self._port = address.port or (443 if self._tls else 80)
        self._path = address.path.rstrip("/")
        named = {"host": address.netloc.rpartition("@")[2], "accept": "*/*", "accept-encoding": "identity"}
        if address.username is not None and "authorization" not in headers:
            user = f"{unquote(address.username)}:{unquote(address.password or '')}"
            named["authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"
        self._head = _lines(named | dict(headers))
        self._open: set[Connection] = set()
        self._idle: list[Connection] = []  # the one that was used last is the last

    @asynccontextmanager
    async def response(
        self, path: str, body: bytes | None, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[Connection]:
        """POST a body, or GET without one: a connection whose `status` is known and whose body can be read.

        Raises OSError if the server cannot be reached, and Disconnected if it closes the connection. If the block ends
        before the response does, the server is disconnected.
        """
        connection = await self._asked(self._request(path, body, headers))
        try:
            yield connection
        finally:
            self._take_back(connection)

    async def reply(self, path: str, body: bytes | None, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        """The status and the whole body of the response; see `response`."""
        connection = await self._asked(self._request(path, body, headers))
        try:
            return connection.status, await connection.read()
        finally:
            self._take_back(connection)

    async def close(self) -> None:
        """End all connections."""
        ended = list(self._open)
        for connection in ended:
            connection.close()
        while self._open:
            await asyncio.sleep(0)

    def _request(self, path: str, body: bytes | None, headers: Mapping[str, str] | None) -> bytes:
        method = b"GET" if body is None else b"POST"
        target = quote(self._path + path, safe=_KEPT_IN_PATHS).encode()
        length = b"" if body is None else b"content-length: %d\r\n" % len(body)
        more = _lines(headers) if headers else b""
        return b"%b %b HTTP/1.1\r\n%b%b%b\r\n%b" % (method, target, self._head, more, length, body or b"")

    async def _asked(self, request: bytes) -> Connection:
        """A connection on which the head of the response to this request has arrived."""
        try:
            return await _ask(self._take_idle() or await self._connect(), request)
        except Disconnected:  # a kept connection, which the server closed before it answered: send again
            return await _ask(await self._connect(), request)

    def _take_idle(self) -> Connection | None:
        self._close_old()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_reusable:
                return connection
        return None

    def _take_back(self, connection: Connection) -> None:
        if connection.is_reusable:
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.append(connection)
        else:
            connection.close()

    def _close_old(self) -> None:
        before = asyncio.get_running_loop().time() - _IDLE_SECONDS
        while self._idle and self._idle[0].idle_since < before:
            self._idle.pop(0).close()

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(_CONNECT_SECONDS):
            found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
            reached = await aiohappyeyeballs.start_connection(found, happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS)
            try:
                _, connection = await loop.create_connection(
                    lambda: Connection(self._forget),
                    sock=reached,
                    ssl=_context(self._tls) if self._tls else None,
                    server_hostname=self._host if self._tls else None,
                )
            except BaseException:
                reached.close()
                raise
        self._open.add(connection)
        return connection

    def _forget(self, connection: Connection) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)


async def _ask(connection: Connection, request: bytes) -> Connection:
    try:
        connection.send(request)
        await connection.head()
    except BaseException:
        connection.close()
        raise
    return connection


def _lines(headers: Mapping[str, str]) -> bytes:
    for name, value in headers.items():
        if any(each in name + value for each in "\r\n\0"):
            raise PerpetuneError(
                f"the header {name} has a line break in it", do="correct the setting that it comes from"
            )
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("latin-1", "replace")


def _context(tls: Tls) -> ssl.SSLContext:
    return _of_the_system() if tls.context is True else tls.context


@cache
def _of_the_system() -> ssl.SSLContext:
    return ssl.create_default_context()
