"""The replies that came back on a connection, and what is wrong with them."""

from __future__ import annotations

import http.client
import io
import json
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from hostile_requests import HostileRequest

_DUE_SECONDS = 60.0
_ELSE_SECONDS = 0.25  # for a request that may never get an answer
_ERROR = {"message", "type", "param", "code"}


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes
    method: str = "POST"


@dataclass(frozen=True)
class Received:
    """All replies to a request, and what is wrong with what came back as a whole."""

    replies: tuple[Reply, ...]
    fault: str | None = None


def send(address: tuple[str, int], request: HostileRequest) -> Received:
    """Send the bytes on a connection of their own, and read until the gateway closes it."""
    with socket.create_connection(address, timeout=10) as connection:
        _send_chunks(connection, request)
        received, closed = _read(connection, _DUE_SECONDS if request.is_due else _ELSE_SECONDS)
    if request.is_due and not closed:
        return Received((), f"no end of the answer in {_DUE_SECONDS:g} s: {received[-200:]!r}")
    if not closed and received.startswith(b"HTTP/1.1 5"):
        return Received((), f"a fault of the server: {received[:300]!r}")
    if not closed:
        return Received(())  # perhaps in the midst of an answer
    replies = _parsed(received, request.methods)
    if isinstance(replies, str):
        return Received((), replies)
    if request.is_due and not replies:
        return Received((), "closed without an answer")
    return Received(tuple(replies))


def fault_of(reply: Reply) -> str | None:
    """What is wrong with a reply: a fault of the server, or an error in another shape than OpenAI's."""
    if reply.status >= 500:
        return f"status {reply.status}: {reply.body[:300]!r}"
    if reply.headers.get("content-type", "").startswith("text/event-stream") and b'"server_error"' in reply.body:
        return f"an error of the server in a stream: {reply.body[-300:]!r}"
    if odd := _odd_json(reply):
        return odd
    if "x-request-id" not in reply.headers:
        return f"status {reply.status} without x-request-id"
    if reply.status >= 400 and reply.method != "HEAD" and not _is_error(reply):
        return f"status {reply.status} in another shape than OpenAI's: {reply.body[:300]!r}"
    return None


def _odd_json(reply: Reply) -> str | None:
    """What is wrong with the JSON of a body or of events: Python writes NaN, which is none."""
    kind = reply.headers.get("content-type", "").partition(";")[0]
    texts = [reply.body] if kind == "application/json" and reply.body else []
    if kind == "text/event-stream":
        texts = [line[6:] for line in reply.body.splitlines() if line.startswith(b"data: {")]
    for text in texts:
        try:
            json.loads(text, parse_constant=_refuse)
        except ValueError as fault:
            return f"status {reply.status}, no JSON: {fault}: {text[:300]!r}"
    return None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _is_error(reply: Reply) -> bool:
    try:
        body = json.loads(reply.body)
    except ValueError:
        return False
    if isinstance(body, dict) and body.get("object") == "list":  # feedback in a batch: an error for each row
        return all(set(row["error"]) == _ERROR for row in body["data"])
    error = body.get("error") if isinstance(body, dict) else None
    return isinstance(error, dict) and set(error) == _ERROR and isinstance(error["message"], str)


def _send_chunks(connection: socket.socket, request: HostileRequest) -> None:
    try:
        for number, chunk in enumerate(request.chunks):
            time.sleep(request.pause if number else 0)
            connection.sendall(chunk)
    except (BrokenPipeError, ConnectionResetError):
        pass  # refused before it was sent whole: the answer is there


def _read(connection: socket.socket, seconds: float) -> tuple[bytes, bool]:
    """The bytes that came, and whether the gateway closed the connection."""
    received, deadline = bytearray(), time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        connection.settimeout(left)
        try:
            piece = connection.recv(65536)
        except TimeoutError:
            break
        except ConnectionResetError:
            return bytes(received), True  # closed, while bytes of ours were unread
        if not piece:
            return bytes(received), True
        received += piece
    return bytes(received), False


class _Kept(io.BytesIO):
    """Bytes that the reader of one reply leaves open for that of the next."""

    def close(self) -> None:
        pass

    def makefile(self, mode: str) -> _Kept:
        return self


def _unasked(stream: _Kept, received: bytes, method: str) -> bytes:
    """The body behind the answer to a HEAD that could not be parsed, so that its method was not known."""
    rest = received[stream.tell() :]
    return stream.read() if method == "HEAD" and not rest.startswith(b"HTTP/1.") else b""


def _parsed(received: bytes, methods: Sequence[str]) -> list[Reply] | str:
    """The replies to these methods, or why the bytes are none."""
    stream = _Kept(received)
    replies: list[Reply] = []
    while stream.tell() < len(received):
        method = methods[min(len(replies), len(methods) - 1)]
        reply = http.client.HTTPResponse(cast(Any, stream), method=method)
        try:
            reply.begin()
            body = reply.read() or _unasked(stream, received, method)
        except (http.client.HTTPException, ValueError) as fault:
            return f"not HTTP ({fault!r}): {received[:300]!r}"
        replies.append(Reply(reply.status, {name.lower(): value for name, value in reply.getheaders()}, body, method))
    return replies
