"""A short form of `make fuzz`: hostile bytes against a real gateway over each database, and what counts as a fault."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fuzz import after, attack, fuzzed_gateway, open_files, tracebacks
from hostile_requests import HostileRequest, hostile_request, request_bytes
from postgres_server import postgres_server
from replies import Reply, fault_of, send

ERROR = b'{"error": {"message": "no", "type": "invalid_request_error", "param": null, "code": "x"}}'
HEAD = {"x-request-id": "req-1", "content-type": "application/json"}


@contextmanager
def log_url(kind: str, folder: Path) -> Iterator[str]:
    if kind == "postgresql":
        with postgres_server() as postgres:
            yield postgres.url
    else:
        yield f"sqlite:///{folder / 'predictions.db'}"


@pytest.mark.slow
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_hostile_requests_break_nothing(database: str, tmp_path: Path) -> None:
    with log_url(database, tmp_path) as url, fuzzed_gateway(tmp_path, url) as gateway:
        files = open_files(gateway)
        findings = attack(gateway, seed=20, requests=120)
        assert [*findings.faults, *after(gateway, findings, files)] == []
        assert {200, 400, 401, 404, 405, 413, 415} <= set(findings.statuses)
        assert len(findings.answered) > 3, "the requests hardly come as far as the model"


def test_a_request_follows_from_its_number() -> None:
    assert hostile_request(1, 5, "key") == hostile_request(1, 5, "key")
    assert len({hostile_request(1, number, "key").chunks for number in range(200)}) > 150


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        (Reply(400, HEAD, ERROR), None),
        (Reply(404, HEAD, b"", "HEAD"), None),
        (Reply(500, HEAD, ERROR), "status 500"),
        (Reply(503, HEAD, ERROR), "status 503"),
        (Reply(400, HEAD, b'{"detail": "no"}'), "another shape"),
        (Reply(400, {"x-request-id": "1", "content-type": "text/plain"}, b"no"), "another shape"),
        (Reply(200, HEAD, b'{"a": NaN}'), "no JSON"),
        (Reply(200, {"content-type": "application/json"}, b"{}"), "without x-request-id"),
        (
            Reply(200, {**HEAD, "content-type": "text/event-stream"}, b'data: {"error": {"type": "server_error"}}'),
            "stream",
        ),
        (Reply(200, {**HEAD, "content-type": "text/event-stream"}, b'data: {"a": Infinity}'), "no JSON"),
    ],
)
def test_what_is_a_fault(reply: Reply, fault: str | None) -> None:
    found = fault_of(reply)
    assert found is None if fault is None else found is not None and fault in found


def test_tracebacks_are_counted() -> None:
    one = 'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    g()\nValueError: no\n'
    assert tracebacks("quiet\n") == {}
    assert tracebacks(f"ERROR: x\n{one}INFO: y\n{one}") == {'  File "a.py", line 1, in f\n    g()\nValueError: no': 2}


def test_a_closed_connection_is_no_answer(unanswered: tuple[str, int]) -> None:
    due = HostileRequest("due", (request_bytes("GET", "/", []),), ("GET",), is_due=True)
    assert send(unanswered, due).fault == "closed without an answer"


@pytest.fixture
def unanswered() -> Iterator[tuple[str, int]]:
    """A server that reads a request and closes the connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def close_one() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)

        thread = threading.Thread(target=close_one)
        thread.start()
        yield server.getsockname()
        thread.join()
