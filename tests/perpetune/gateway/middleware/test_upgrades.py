"""Offers of another protocol are ignored, as a byte stream shows that no client library smooths."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from gateways import Gateway

H2C = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n"
WEBSOCKET = (
    b"connection: keep-alive, Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: eA==\r\nsec-websocket-version: 13\r\n"
)
OFFERS = [
    H2C,
    WEBSOCKET,
    b"",
    b"upgrade: h2c\r\n",
    b"connection: Upgrade\r\nconnection: keep-alive\r\nupgrade: TLS/1.0, h2c\r\n",
]
CHAT = b"/v1/chat/completions"


def body(text: str) -> bytes:
    return json.dumps({"model": "reviews", "messages": [{"role": "user", "content": text}]}).encode()


def post(offer: bytes, text: str, *, head: bytes = b"") -> bytes:
    content = body(text)
    length = b"content-length: %d\r\n" % len(content)
    return _head(b"POST", CHAT, offer + head + length) + content


def chunked(offer: bytes, text: str) -> bytes:
    content = body(text)
    pieces = [content[:9], content[9:], b""]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return _head(b"POST", CHAT, offer + b"transfer-encoding: chunked\r\n") + framed


def _head(method: bytes, path: bytes, headers: bytes) -> bytes:
    return b"%b %b HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n%b\r\n" % (method, path, headers)


@pytest.fixture
def wire(standing: Gateway) -> Iterator[socket.socket]:
    port = int(standing.url.rpartition(":")[2])
    with closing(socket.create_connection(("127.0.0.1", port), timeout=5)) as connection:
        yield connection


def answers(wire: socket.socket, count: int) -> list[str]:
    """The contents of so many answers, each with a content-length."""
    received = b""
    found: list[str] = []
    while len(found) < count:
        head, end, rest = received.partition(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")), 0)
        if not end or len(rest) < length:
            piece = wire.recv(65536)
            assert piece, f"closed after {found} and {received!r}"
            received += piece
            continue
        assert head.startswith(b"HTTP/1.1 200"), (head, rest)
        found.append(json.loads(rest[:length])["choices"][0]["message"]["content"])
        received = rest[length:]
    assert not received
    return found


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("frame", [post, chunked])
def test_the_body_is_read_and_the_connection_stays_open(wire: socket.socket, offer: bytes, frame: object) -> None:
    assert callable(frame)
    for number in range(3):
        wire.sendall(frame(offer, f"number {number}"))
        assert answers(wire, 1) == [f"1: number {number}"]


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("frame", [post, chunked])
def test_in_pieces_of_any_size(wire: socket.socket, offer: bytes, frame: object) -> None:
    assert callable(frame)
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    request = frame(offer, "hello")
    for size in (1, 7, 100):
        for start in range(0, len(request), size):
            wire.sendall(request[start : start + size])
            if size > 1:
                time.sleep(0.001)
        assert answers(wire, 1) == ["1: hello"]


def test_pipelined_requests_with_and_without_an_offer(wire: socket.socket) -> None:
    texts = [f"number {number}" for number in range(12)]
    offers = [OFFERS[number % len(OFFERS)] for number in range(12)]
    frames = [(post, chunked)[number % 2] for number in range(12)]
    wire.sendall(b"".join(frame(offer, text) for frame, offer, text in zip(frames, offers, texts, strict=True)))
    assert answers(wire, 12) == [f"1: {text}" for text in texts]


def test_a_stream_to_a_client_that_offers(wire: socket.socket) -> None:
    content = json.dumps({**json.loads(body("one two")), "stream": True}).encode()
    wire.sendall(_head(b"POST", CHAT, H2C + b"content-length: %d\r\n" % len(content)) + content)
    received = b""
    while not received.endswith(b"0\r\n\r\n"):
        piece = wire.recv(65536)
        assert piece, received
        received += piece
    assert b"data: [DONE]" in received and received.count(b'"content":') >= 3
    wire.sendall(post(b"", "and on"))
    assert answers(wire, 1) == ["1: and on"]


def test_expect_continue_beside_an_offer(wire: socket.socket) -> None:
    whole = post(H2C, "hello", head=b"expect: 100-continue\r\n")
    head, _, content = whole.partition(b"\r\n\r\n")
    wire.sendall(head + b"\r\n\r\n")
    assert wire.recv(1000).startswith(b"HTTP/1.1 100")
    wire.sendall(content)
    assert answers(wire, 1) == ["1: hello"]


def test_close_is_kept_from_the_connection_header(wire: socket.socket) -> None:
    wire.sendall(post(b"connection: Upgrade, close\r\nupgrade: h2c\r\n", "hello"))
    assert answers(wire, 1) == ["1: hello"]
    assert wire.recv(100) == b""


def test_a_websocket_is_answered_and_the_connection_goes_on(wire: socket.socket) -> None:
    wire.sendall(_head(b"GET", b"/nowhere", WEBSOCKET))
    assert wire.recv(65536).startswith(b"HTTP/1.1 404")
    wire.sendall(post(b"", "hello"))
    assert answers(wire, 1) == ["1: hello"]


@pytest.mark.parametrize(
    "nonsense",
    [
        b"CONNECT example.org:443 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
    ],
)
def test_what_is_no_request_is_refused_in_json(wire: socket.socket, nonsense: bytes) -> None:
    wire.sendall(nonsense)
    received = b""
    while piece := wire.recv(65536):
        received += piece
    assert received.startswith(b"HTTP/1.1 400")
    assert b"\r\nx-request-id: req-" in received
    assert json.loads(received.partition(b"\r\n\r\n")[2])["error"]["code"] == "invalid_http"
