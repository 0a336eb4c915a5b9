from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from waiting import eventually

from perpetune.params import ServeParams

Start = Callable[..., Any]

HEAD = b"POST /v1/feedback HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n"


def connect(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def read_all(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(4096), b""))


def test_a_body_that_does_not_arrive_is_given_up(start: Start, params: ServeParams) -> None:
    gateway = start(params=params.model_copy(update={"timeout_seconds": 0.6}))
    began = time.monotonic()
    with connect(gateway.url) as connection:
        connection.sendall(HEAD + b"{")
        time.sleep(0.3)
        connection.sendall(b'"request_id"')  # a little now and then does not buy more time
        answer = read_all(connection)  # to the end: the connection is closed
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"code":"request_timeout"' in answer
    assert 0.5 < time.monotonic() - began < 5
    assert 'path="/v1/feedback",status="408"} 1.0' in gateway.get("/metrics").text


@pytest.mark.parametrize("path", ["/v1/feedback", "/v1/chat/completions", "/v1/completions", "/v1/release/check", "/x"])
def test_a_client_that_leaves_in_the_middle_is_no_failure(
    start: Start, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = start()
    with connect(gateway.url) as connection:
        connection.sendall(HEAD.replace(b"/v1/feedback", path.encode()) + b"{")
    route = "other" if path == "/x" else path
    eventually(lambda: f'path="{route}",status="499"}} 1.0' in gateway.get("/metrics").text)
    assert gateway.ask("hello").status_code == 200
    assert 'status="500"' not in gateway.get("/metrics").text
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
