"""A connection whose requests learn that it is lost, and whose responses are written in as few calls as possible."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from perpetune.gateway.api.request.disconnect import WHEN_LOST
from perpetune.gateway.middleware.head_limit import HeadLimitProtocol


class ConnectionProtocol(HeadLimitProtocol):
    """Calls what a request has put into `scope[WHEN_LOST]` when the connection is lost, and joins writes."""

    def connection_made(self, transport: Any) -> None:
        self.when_lost: set[Callable[[], None]] = set()
        super().connection_made(JoinedWrites(transport, self.loop))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]  # uvicorn knows only the keys of ASGI
        scope[WHEN_LOST] = self.when_lost

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for call in tuple(self.when_lost):
            call()


class JoinedWrites:
    """A transport that sends what is written during one turn of the event loop at once.

    uvicorn writes a response's head and body separately, and uvloop sends each write as its own packet, which also wakes
    the client twice.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._waiting: list[bytes] = []
        self.is_closing = transport.is_closing
        self.get_extra_info = transport.get_extra_info
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def write(self, data: bytes) -> None:
        if not self._waiting:
            self._loop.call_soon(self._send)
        self._waiting.append(data)

    def close(self) -> None:
        self._send()
        self._transport.close()

    def abort(self) -> None:
        self._waiting.clear()
        self._transport.abort()

    def _send(self) -> None:
        data, self._waiting = self._waiting, []
        if data and not self._transport.is_closing():
            self._transport.write(data[0] if len(data) == 1 else b"".join(data))
