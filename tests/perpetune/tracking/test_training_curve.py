"""MLflow's own client against a server that counts, keeps what it is sent, and can be away."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import mlflow
import pytest

from perpetune.tracking.runs import MlflowError, Run, connect
from perpetune.tracking.training_curve import training_curve

pytestmark = pytest.mark.slow

RUN = Run("0" * 32, "1", "http://mlflow/run")


@dataclass
class Server:
    """The requests that it answered, each the metrics that it brought."""

    away: bool = False
    requests: list[list[dict[str, Any]]] = field(default_factory=list)

    def points(self, metric: str) -> list[tuple[int, float]]:
        return [(each["step"], each["value"]) for each in self.metrics() if each["key"] == metric]

    def metrics(self) -> list[dict[str, Any]]:
        found = [metric for request in self.requests for metric in request]
        return [each | {"step": int(each["step"]), "timestamp": int(each["timestamp"])} for each in found]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({} if "get-history" not in self.path else {"metrics": state.metrics()})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not state.away:
                state.requests.append(body["metrics"])
            self._answer({})

        def _answer(self, answer: object) -> None:
            self.send_response(503 if state.away else 200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    before = mlflow.get_tracking_uri()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        connect(f"http://127.0.0.1:{http.server_port}")
        yield state
        mlflow.set_tracking_uri(before)
        http.shutdown()


def metrics(step: int) -> dict[str, float]:
    return {"loss": 1 / step, "rate": 0.1} | ({"checked": 0.5} if step % 100 == 0 else {})


def test_many_steps_go_in_few_requests_each_with_its_own_step_and_time(server: Server, tmp_path: Path) -> None:
    with training_curve(RUN, tmp_path / "curve", "loss") as draw:
        for step in range(1, 801):
            draw(step, metrics(step))
        assert server.requests == [], "nothing within the first seconds"
    assert [len(request) for request in server.requests] == [669, 669, 270]
    assert server.points("loss") == [(step, 1 / step) for step in range(1, 801)]
    assert [step for step, _ in server.points("checked")] == list(range(100, 801, 100))
    times = [each["timestamp"] for each in server.metrics()]
    assert times == sorted(times)
    assert len(set(times)) > 1, "they say when a step was made, not when it was sent"


def test_points_are_sent_after_an_outage_without_delaying_the_training(server: Server, tmp_path: Path) -> None:
    with training_curve(RUN, tmp_path / "curve", "loss", every_seconds=0) as draw:
        draw(1, metrics(1))
        server.away = True
        for step in (2, 3, 4):
            draw(step, metrics(step))
        server.away = False
    assert [step for step, _ in server.points("loss")] == [1, 2, 3, 4]


def test_points_not_sent_at_the_end_are_an_error_and_are_sent_by_the_next_run(server: Server, tmp_path: Path) -> None:
    def train() -> None:
        with training_curve(RUN, tmp_path / "curve", "loss") as draw:
            draw(1, metrics(1))
            server.away = True

    with pytest.raises(MlflowError):
        train()
    server.away = False
    with training_curve(RUN, tmp_path / "curve", "loss"):
        pass
    assert server.points("loss") == [(1, 1.0)]


def test_the_error_of_training_is_not_hidden_and_its_steps_are_sent(server: Server, tmp_path: Path) -> None:
    def train(step: int, *, away: bool) -> None:
        with training_curve(RUN, tmp_path / "curve", "loss") as draw:
            draw(step, metrics(step))
            server.away = away
            raise MemoryError

    for step, away in ((1, False), (2, True)):
        with pytest.raises(MemoryError):
            train(step, away=away)
    server.away = False
    assert server.points("loss") == [(1, 1.0)]


def test_steps_made_again_after_a_kill_stand_there_once(server: Server, tmp_path: Path) -> None:
    journal = tmp_path / "curve"
    with training_curve(RUN, journal, "loss", every_seconds=0) as draw:
        for step in (1, 2, 3):
            draw(step, metrics(step))
    # What was on disk and not yet in MLflow when the process was killed, and a line that it broke off in.
    with journal.open("a") as file:
        file.write('\n{"step": 4, "time": 1, "metrics": {"loss": 0.25, "rate": 0.1}}\n{"step": 5, "time"')
    with training_curve(RUN, journal, "loss") as draw:
        for step in (3, 4, 5, 6):
            draw(step, metrics(step))
    with training_curve(RUN, journal, "loss") as draw:
        draw(7, metrics(7))
    assert server.points("loss") == [(step, 1 / step) for step in range(1, 8)]


def test_without_its_journal_it_still_repeats_nothing(server: Server, tmp_path: Path) -> None:
    for journal in ("here", "elsewhere"):
        with training_curve(RUN, tmp_path / journal, "loss") as draw:
            for step in (1, 2):
                draw(step, metrics(step))
    assert server.points("loss") == [(1, 1.0), (2, 0.5)]
