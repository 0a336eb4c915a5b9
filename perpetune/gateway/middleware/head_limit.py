"""Limits on a request's head (request line and headers), which uvicorn has only with its h11 parser."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from perpetune.gateway.api.errors import ApiError

MAX_BYTES = 64 * 1024


class HeadLimitProtocol(HttpToolsProtocol):
    """uvicorn's httptools protocol with 431 for a head that is too large and 408 for one that does not arrive.

    Bytes are counted per read, so a head may exceed the limit by one read.
    """

    seconds = 15.0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._head_bytes = 0
        self._in_head = True
        self._timer: asyncio.TimerHandle | None = self.loop.call_later(self.seconds, self._too_slow)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_BYTES:
                self._end(ApiError(431, f"The headers are larger than {MAX_BYTES} bytes.", code="headers_too_large"))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes, self._in_head = 0, True
        if self._timer is None:
            self._timer = self.loop.call_later(self.seconds, self._too_slow)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_timer()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def _too_slow(self) -> None:
        self._end(ApiError(408, f"The headers did not arrive within {self.seconds:g} s.", code="request_timeout"))

    def _end(self, problem: ApiError) -> None:
        self._stop_timer()
        if self.transport.is_closing():
            return
        under_way = self.cycle is not None and not self.cycle.response_complete
        if self._head_bytes and not under_way:  # otherwise the bytes would end up inside another response
            response = problem.response()
            head = f"HTTP/1.1 {problem.status} \r\nconnection: close\r\n"
            lines = b"".join(b"%b: %b\r\n" % header for header in response.raw_headers)
            self.transport.write(head.encode() + lines + b"\r\n" + bytes(response.body))
        self.transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
