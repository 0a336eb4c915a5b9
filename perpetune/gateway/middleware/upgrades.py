"""Requests that offer another protocol (`Upgrade: h2c`, WebSocket) are answered as plain HTTP/1.1.

A server may ignore the offer (RFC 9110, section 7.8). uvicorn answers, but drops the body and whatever the client
pipelines behind it: its parser, llhttp, stops behind the head of such a request. Every stock JDK client makes the offer.
"""

from __future__ import annotations

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Headers that speak of the offer; the first two are in `Connection` as well.
_OF_THE_OFFER = frozenset({b"upgrade", b"http2-settings"})


class NoUpgradeProtocol(HttpToolsProtocol):
    """uvicorn's httptools protocol, which parses a request with an offer again without it: body and pipeline stay."""

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        try:
            while data and not self.transport.is_closing():
                data = self._feed(data)
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")

    def on_headers_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_headers_complete()
        elif self.parser.get_method() == b"CONNECT":
            raise ValueError("not a proxy")  # which the parser turns into a HttpParserError

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _feed(self, data: bytes) -> bytes:
        """Parse the data; returns what is to be parsed by the new parser, if the request made an offer."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            behind_head: int = offer.args[0]
            head = self._head_without_offer()
            self.parser = _new_parser(self)
            return head + data[behind_head:]
        return b""

    def _head_without_offer(self) -> bytes:
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        for name, value in self.headers:
            if name == b"connection":
                value = b", ".join(_other_options(value))
            if name not in _OF_THE_OFFER:
                lines.append(b"%b: %b" % (name, value))
        return b"\r\n".join([*lines, b"", b""])


def _other_options(connection: bytes) -> list[bytes]:
    options = [option.strip() for option in connection.split(b",")]
    return [option for option in options if option and option.lower() not in _OF_THE_OFFER]


def _new_parser(protocol: HttpToolsProtocol) -> httptools.HttpRequestParser:
    """A parser with uvicorn's leniency: a client may send more after `Connection: close`."""
    parser = httptools.HttpRequestParser(protocol)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser
