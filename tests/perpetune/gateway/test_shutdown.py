"""A gateway in a process of its own, and signals to it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from waiting import eventually

from perpetune.params import ServeParams
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.queries import recent_predictions

pytestmark = pytest.mark.slow

Begin = Callable[..., "Process"]

SCRIPT = textwrap.dedent("""
    import sys
    from pathlib import Path

    from perpetune.errors import PerpetuneError
    from perpetune.params import BaseParams, ServeParams
    from perpetune.model.release import Release
    from perpetune.testing.fake_engine import FakeEngine
    from perpetune.testing.fake_registry import FakeSource
    from perpetune.gateway.app import create_app
    from perpetune.prediction_log.database import open_log
    from perpetune.gateway.server import listen, run

    folder, params = Path(sys.argv[1]), sys.argv[2]
    seconds, grace, notice = (float(text) for text in sys.argv[3:])
    log = open_log(f"sqlite:///{folder / 'predictions.db'}")
    release = Release("reviews", "1", folder, "Judge it.", None, BaseParams(model="path:tiny", revision=None))
    app = create_app(
        "reviews",
        engine=FakeEngine(seconds=seconds),
        source=FakeSource([release], champion="1"),
        log=log,
        params=ServeParams.model_validate_json(params),
        max_new_tokens=16,
    )
    with listen("127.0.0.1", 0) as address:
        print(address.getsockname()[1], flush=True)
        try:
            run(app, address, grace_seconds=grace, drain_seconds=notice)
        except PerpetuneError as fault:
            sys.exit(str(fault))
""")


@dataclass(frozen=True)
class Process:
    child: subprocess.Popen[str]
    url: str

    def ask(self, text: str, *, stream: bool) -> int:
        """The status; a stream counts only if it is complete."""
        body = {"model": "reviews", "messages": [{"role": "user", "content": text}], "stream": stream}
        answer = httpx.post(f"{self.url}/v1/chat/completions", json=body, timeout=30)
        if stream:
            assert answer.text.rstrip().endswith("data: [DONE]"), answer.text
        return answer.status_code

    def refuses(self) -> bool:
        try:
            httpx.get(f"{self.url}/healthz", timeout=5)
        except httpx.ConnectError:
            return True
        return False


@pytest.fixture
def begin(tmp_path: Path, params: ServeParams) -> Iterator[Begin]:
    """Start a gateway whose engine takes `seconds`, and wait until it is ready."""
    children: list[subprocess.Popen[str]] = []

    def start(seconds: float, *, grace: float, notice: float) -> Process:
        arguments = [str(tmp_path), json.dumps(params.model_dump()), str(seconds), str(grace), str(notice)]
        child = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        children.append(child)
        assert child.stdout
        process = Process(child, f"http://127.0.0.1:{int(child.stdout.readline())}")
        eventually(lambda: is_ready(process), 60)
        return process

    yield start
    for child in children:
        child.kill()
        child.communicate()


def is_ready(process: Process) -> bool:
    try:
        return httpx.get(f"{process.url}/readyz", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def under_way(process: Process) -> int:
    text = httpx.get(f"{process.url}/metrics", timeout=5).text
    [line] = [line for line in text.splitlines() if line.startswith("perpetune_engine_requests_in_flight ")]
    return int(float(line.split()[1]))


def test_requests_under_way_end_well_and_the_log_holds_them(begin: Begin, tmp_path: Path) -> None:
    process = begin(4.0, grace=20, notice=2)
    with ThreadPoolExecutor(9) as pool:
        asked = [pool.submit(process.ask, f"question {n}", stream=n % 2 == 0) for n in range(8)]
        eventually(lambda: under_way(process) == 8, 10)
        process.child.send_signal(signal.SIGTERM)
        eventually(lambda: not is_ready(process), 1.5)
        ready = httpx.get(f"{process.url}/readyz", timeout=5)
        assert (ready.status_code, ready.json()["draining"]) == (503, True)
        assert ready.headers["connection"] == "close"
        late = pool.submit(process.ask, "question 8", stream=False)  # from where the notice has not come yet
        eventually(process.refuses, 5)
        assert process.child.poll() is None  # it accepts no more, and goes on with what it has
        assert [answer.result() for answer in [*asked, late]] == [200] * 9
    assert process.child.wait(timeout=10) == 0
    log = open_log(f"sqlite:///{tmp_path / 'predictions.db'}")
    assert {row.input for row in recent_predictions(log, "reviews", limit=None)} == {f"question {n}" for n in range(9)}
    log.dispose()


BODY = b'{"model": "reviews", "messages": [{"role": "user", "content": "hello"}]}'
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
REQUEST = HEAD + b"content-length: %d\r\n\r\n" % len(BODY) + BODY


def connect(process: Process) -> socket.socket:
    host, port = process.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


@pytest.mark.parametrize("sent_before", [0, 30], ids=["none", "part"])
def test_a_request_on_its_way_when_connections_are_refused_is_answered(begin: Begin, sent_before: int) -> None:
    process = begin(0.1, grace=20, notice=0.5)
    with connect(process) as connection:
        process.child.send_signal(signal.SIGTERM)
        connection.sendall(REQUEST[:sent_before])
        eventually(process.refuses, 5)
        connection.sendall(REQUEST[sent_before:])
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in answer
    assert process.child.wait(timeout=10) == 0


def test_a_connection_without_a_request_does_not_hold_up_the_end(begin: Begin) -> None:
    process = begin(0.1, grace=20, notice=0.2)
    with connect(process) as connection:
        process.child.send_signal(signal.SIGTERM)
        assert connection.recv(1) == b""
    assert process.child.wait(timeout=10) == 0


@contextmanager
def one_under_way(process: Process) -> Iterator[None]:
    with connect(process) as connection:
        connection.sendall(REQUEST)
        eventually(lambda: under_way(process) == 1, 10)
        yield


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_it_at_once(begin: Begin, number: signal.Signals) -> None:
    process = begin(3.0, grace=30, notice=0.2)
    with one_under_way(process):
        process.child.send_signal(number)
        time.sleep(0.8)
        assert process.child.poll() is None
        process.child.send_signal(number)
        assert process.child.wait(timeout=5) == 1
    assert process.child.stderr
    assert "a second signal stopped the gateway" in process.child.stderr.read()


def test_the_grace_period_ends_too(begin: Begin) -> None:
    process = begin(4.5, grace=1, notice=0.2)
    with one_under_way(process):
        began = time.monotonic()
        process.child.send_signal(signal.SIGTERM)
        assert process.child.wait(timeout=10) == 0
        assert 1.0 < time.monotonic() - began < 3.5
