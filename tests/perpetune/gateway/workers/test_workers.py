"""A gateway of several processes, whose registry is a file."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from waiting import eventually

from perpetune.params import ServeParams
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.queries import recent_predictions

pytestmark = [pytest.mark.slow, pytest.mark.integration]

SCRIPT = textwrap.dedent("""
    import json
    import logging
    import os
    import sys
    from pathlib import Path

    from perpetune.gateway.app import create_app
    from perpetune.gateway.server import listen, run
    from perpetune.gateway.workers.seat import FOLLOW_SECONDS, Seat
    from perpetune.gateway.workers.supervisor import Supervisor
    from perpetune.model.release import DesiredReleases, Release
    from perpetune.params import BaseParams, ServeParams
    from perpetune.prediction_log.database import open_log
    from perpetune.testing.fake_engine import FakeEngine

    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    params = ServeParams.model_validate_json(sys.argv[3])
    registry = folder / "registry.json"

    class FileSource:
        def wanted(self):
            with open(folder / "reads", "a") as file:
                file.write(f"{os.getpid()}\\n")
            return DesiredReleases(**json.loads(registry.read_text()))

        def fetch(self, version):
            return Release("reviews", version, folder, "Judge it.", None, BaseParams(model="path:tiny", revision=None))

        def refuse(self, version, back_to, why):
            raise AssertionError

        def roll_back(self):
            now = json.loads(registry.read_text())
            registry.write_text(json.dumps({"champion": now["previous"], "registered": 1}))
            return now["champion"], now["previous"]

    def say(version, messages):
        return f"{version} {os.getpid()}"

    def work(number):
        if (folder / "refuse").exists():
            from perpetune.errors import PerpetuneError
            raise PerpetuneError("it cannot start")
        seat = Seat(number, folder / "board")
        log = open_log(f"sqlite:///{folder / 'predictions.db'}")
        app = create_app(
            "reviews",
            engine=FakeEngine(say, seconds=0.02),
            source=seat.source(FileSource()),
            log=log,
            params=params if seat.leads else params.model_copy(update={"poll_seconds": FOLLOW_SECONDS}),
            max_new_tokens=16,
            spool=folder / "spool",
        )
        run(app, address, grace_seconds=10, drain_seconds=float(sys.argv[4]), tick=seat.take(app))

    (folder / "board").mkdir()
    with listen("127.0.0.1", 0) as address:
        print(address.getsockname()[1], flush=True)
        Supervisor(count, work, address.close).run()
""")
WORKERS = 3
DRAIN_SECONDS = 0.3
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # without it each connection's client would read all certificates
BODY = {"model": "reviews", "messages": [{"role": "user", "content": "How is it?"}]}


@dataclass(frozen=True)
class Gateway:
    child: subprocess.Popen[str]
    url: str
    folder: Path

    def ask(self) -> tuple[str, int]:
        """The version and the process that answered, over a connection of its own."""
        answer = httpx.post(f"{self.url}/v1/chat/completions", json=BODY, timeout=30, verify=NO_TLS).raise_for_status()
        version, pid = answer.json()["choices"][0]["message"]["content"].split()
        return version, int(pid)

    def answers(self, count: int = 40) -> set[tuple[str, int]]:
        return {self.ask() for _ in range(count)}

    def workers(self) -> set[int]:
        return {pid for _, pid in self.answers()}

    def all_ready(self, serving: str) -> bool:
        reports = [json.loads(path.read_text()) for path in (self.folder / "board").glob("serving-*")]
        living = [report for report in reports if Path(f"/proc/{report['pid']}").exists()]
        return [report["serving"] for report in living] == [serving] * WORKERS

    def register(self, champion: str, previous: str | None = None) -> None:
        content = json.dumps({"champion": champion, "previous": previous, "registered": 1})
        (self.folder / "registry.new").write_text(content)
        (self.folder / "registry.new").rename(self.folder / "registry.json")

    def readers(self) -> set[int]:
        return set(map(int, (self.folder / "reads").read_text().split()))

    def counted(self) -> float:
        text = httpx.get(f"{self.url}/metrics", timeout=30, verify=NO_TLS).text
        rows = [line for line in text.splitlines() if line.startswith("perpetune_answers_total{")]
        return sum(float(row.rpartition(" ")[2]) for row in rows)


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    (tmp_path / "registry.json").write_text('{"champion": "1", "registered": 1}')
    open_log(f"sqlite:///{tmp_path / 'predictions.db'}").dispose()
    params = ServeParams(poll_seconds=3600).model_dump_json()
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(WORKERS), params, str(DRAIN_SECONDS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        found = Gateway(child, f"http://127.0.0.1:{child.stdout.readline().strip()}", tmp_path)
        try:
            eventually(lambda: found.all_ready("1"), seconds=120)
            yield found
        finally:
            child.terminate()
            child.wait(60)


def test_one_worker_reads_the_registry_and_all_follow_it_with_no_request_lost(gateway: Gateway) -> None:
    assert len(gateway.workers()) > 1, "the connections are shared out"
    seen: list[str] = []
    stopping = threading.Event()

    def ask_on() -> None:
        while not stopping.is_set():
            seen.append(gateway.ask()[0])

    clients = [threading.Thread(target=ask_on) for _ in range(4)]
    for client in clients:
        client.start()
    gateway.register("2", "1")
    state = httpx.post(f"{gateway.url}/v1/release/check", timeout=60).raise_for_status().json()
    after = gateway.answers()
    rolled = httpx.post(
        f"{gateway.url}/v1/release/rollback", json={"task": "reviews", "reason": "worse"}, timeout=60
    ).raise_for_status()
    restored = gateway.answers()
    stopping.set()
    for client in clients:
        client.join()

    assert state["serving"] == "2"
    assert {version for version, _ in after} == {"2"}, "no worker answers with the old one after the check"
    assert rolled.json()["to"] == "1"
    assert {version for version, _ in restored} == {"1"}
    assert set(seen) == {"1", "2"}
    assert len(gateway.readers()) == 1


def test_a_worker_that_is_killed_is_replaced_and_its_counts_and_rows_stay(gateway: Gateway) -> None:
    before = gateway.workers() | gateway.workers()
    leader = gateway.readers().pop()
    eventually(lambda: gateway.counted() >= 80, seconds=30)
    gateway.register("2", "1")
    for victim in before:
        os.kill(victim, signal.SIGKILL)
    eventually(lambda: gateway.all_ready("2"), seconds=120)

    assert {version for version, _ in gateway.answers()} == {"2"}
    assert leader not in gateway.workers()
    eventually(lambda: gateway.counted() >= 120, seconds=30)


def test_a_signal_ends_all_workers_after_their_answers(gateway: Gateway) -> None:
    pids, answered, refused = gateway.workers(), list[float](), list[float]()

    def ask_until_refused() -> None:
        while not refused:
            began = time.monotonic()
            try:
                gateway.ask()
                answered.append(began)
            except httpx.TransportError:
                refused.append(time.monotonic())  # a client takes a while to connect

    client = threading.Thread(target=ask_until_refused)
    client.start()
    eventually(lambda: len(answered) > 2, seconds=10)
    signalled = time.monotonic()
    gateway.child.send_signal(signal.SIGTERM)

    assert gateway.child.wait(60) == 0
    client.join()
    assert refused[0] > signalled + DRAIN_SECONDS, "it is answered while load balancers may not know yet"
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    log = open_log(f"sqlite:///{gateway.folder / 'predictions.db'}")
    stored = recent_predictions(log, "reviews", limit=10_000)
    log.dispose()
    assert len(stored) == 40 + len(answered)


def test_workers_end_with_a_parent_that_is_killed(gateway: Gateway) -> None:
    pids = gateway.workers()
    gateway.child.kill()
    eventually(lambda: not [pid for pid in pids if Path(f"/proc/{pid}").exists()], seconds=30)


def test_a_worker_that_refuses_at_the_start_ends_all(tmp_path: Path) -> None:
    (tmp_path / "refuse").touch()
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), "2", ServeParams().model_dump_json(), str(DRAIN_SECONDS)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert "it cannot start" in ended.stderr
    assert "a worker of the gateway could not start" in ended.stderr
