"""A connection to a server: a request, its response, and then the next request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import cast

import httptools

LONGEST_LINE = 1 << 20  # bytes, of a response that is read by lines
_MOST_UNREAD = 1 << 18  # bytes of a body, after which the server has to wait
_OF_LENGTH = (b"content-length", b"transfer-encoding")


class Disconnected(ConnectionError):
    """The connection ended before the response did, or what came is no HTTP."""


class Connection(asyncio.Protocol):
    """HTTP/1.1 for one request at a time; llhttp, by httptools, parses the responses.

    `lost` is called when the connection has ended. Until a response is complete, what reads it raises Disconnected.
    """

    def __init__(self, lost: Callable[[Connection], None]) -> None:
        self._lost = lost
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._fault: Disconnected | None = None
        self._keeps_alive = True
        self._complete = True
        self.idle_since = 0.0  # by the event loop's clock

    def send(self, request: bytes) -> None:
        """Send a whole request; the response to the one before must be complete."""
        self.status = 0  # until the head has arrived
        self._parts: list[bytes] = []
        self._unread = 0
        self._has_length = self._complete = False
        self._transport.write(request)

    async def head(self) -> int:
        """The status of the response."""
        while not self.status:
            await self._news()
        return self.status

    async def read(self) -> bytes:
        """The rest of the body."""
        found: list[bytes] = []
        while self._parts or not self._complete:
            if self._parts:
                found += self._take_parts()
            else:
                await self._news()
        return found[0] if len(found) == 1 else b"".join(found)

    async def lines(self) -> AsyncIterator[bytes]:
        """The lines of the body, without their ends. Raises Disconnected if one is longer than `LONGEST_LINE`."""
        rest = b""
        async for part in self.parts():
            *whole, rest = (rest + part).split(b"\n")
            for line in whole:
                yield line
            if len(rest) > LONGEST_LINE:
                raise Disconnected(f"a line of its response is longer than {LONGEST_LINE} bytes")
        if rest:
            yield rest

    async def parts(self) -> AsyncIterator[bytes]:
        """The body as it arrives."""
        while self._parts or not self._complete:
            if self._parts:
                yield b"".join(self._take_parts())
            else:
                await self._news()

    @property
    def is_reusable(self) -> bool:
        return self._complete and self._keeps_alive and not self._parts and not self._transport.is_closing()

    def close(self) -> None:
        """End the connection; a server stops what it computes for a response that is not complete."""
        self._transport.abort()

    def _take_parts(self) -> list[bytes]:
        """What of the body has arrived and was not read."""
        found, self._parts = self._parts, []
        if self._unread > _MOST_UNREAD:
            self._transport.resume_reading()
        self._unread = 0
        return found

    async def _news(self) -> None:
        """Wait until more of the response has arrived."""
        if self._fault:
            raise self._fault
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, what: str, cause: BaseException | None) -> None:
        self._fault = Disconnected(what)
        self._fault.__cause__ = cause
        self._wake()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as fault:
            self._fail(f"its response is no HTTP: {fault}", fault)
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._keeps_alive = False
        if not self._complete:
            if self.status and not self._has_length and exc is None:  # such a body ends with the connection
                self._complete = True
                self._wake()
            else:
                self._fail(str(exc or "it closed the connection"), exc)
        self._lost(self)

    # What the parser calls; what is raised ends the connection.

    def on_message_begin(self) -> None:
        if self._complete:
            raise ValueError("a response that nobody asked for, behind another")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._has_length = self._has_length or name.lower() in _OF_LENGTH

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:  # others only announce the response
            self.status = status
            self._wake()

    def on_body(self, body: bytes) -> None:
        was = self._unread
        self._parts.append(body)
        self._unread += len(body)
        if was <= _MOST_UNREAD < self._unread:
            self._transport.pause_reading()
        self._wake()

    def on_message_complete(self) -> None:
        if self.status:
            self._complete = True
            self._keeps_alive = self._parser.should_keep_alive()
            self._wake()
