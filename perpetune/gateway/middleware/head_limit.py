"""Limits on a request's head (request line and headers), which uvicorn has only with its h11 parser."""

from __future__ import annotations

import asyncio
from typing import Any

from perpetune.gateway.api.errors import ApiError
from perpetune.gateway.api.request.request_id import HEADER, new_request_id
from perpetune.gateway.middleware.upgrades import NoUpgradeProtocol

MAX_BYTES = 64 * 1024


class HeadLimitProtocol(NoUpgradeProtocol):
    """HTTP/1.1 with 431 for a head that is too large and 408 for one that does not arrive.

    A connection without any byte is idle, and closed as one between two requests: proxies open some in advance. Bytes
    are counted per read, so a head may exceed the limit by one read.
    """

    seconds = 15.0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if self.client:  # an IPv4 address on an IPv6 socket is that address, for limits and trusted proxies
            self.client = (self.client[0].removeprefix("::ffff:"), self.client[1])
        self._head_bytes = 0
        self._in_head = True
        self._timer: asyncio.TimerHandle | None = None
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def data_received(self, data: bytes) -> None:
        if not self.is_answering:
            self._start_timer()  # also for an empty line, before which no message begins
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_BYTES:
                self._refuse(ApiError(431, f"The headers are larger than {MAX_BYTES} bytes.", code="headers_too_large"))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes, self._in_head = 0, True
        self._start_timer()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._stop_timer()  # which ran if the body of a request that was refused went on arriving
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        self._refuse(ApiError(400, msg, code="invalid_http"))

    @property
    def is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def is_receiving_head(self) -> bool:
        return self._timer is not None

    def _too_slow(self) -> None:
        self._refuse(ApiError(408, f"The headers did not arrive within {self.seconds:g} s.", code="request_timeout"))

    def _refuse(self, problem: ApiError) -> None:
        """Send an error and close the connection."""
        self._stop_timer()
        if self.transport.is_closing():
            return
        if not self.is_answering:  # otherwise the bytes would end up inside another response
            response = problem.response({HEADER: new_request_id()})
            head = f"HTTP/1.1 {problem.status} \r\nconnection: close\r\n"
            lines = b"".join(b"%b: %b\r\n" % header for header in response.raw_headers)
            self.transport.write(head.encode() + lines + b"\r\n" + bytes(response.body))
        self.transport.close()

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self.seconds, self._too_slow)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
