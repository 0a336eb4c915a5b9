"""The prediction log on a real PostgreSQL server, if this machine has one."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread

import httpx
import pytest
from gateways import PARAMS
from label_readings import check_every_reading
from older_logs import check_provenance_of_older_labels, downgrade
from postgres_server import Postgres, gateway, postgres_server
from sqlalchemy.exc import IntegrityError
from waiting import eventually

from perpetune.errors import PerpetuneError
from perpetune.prediction_log.answers.trial_outcomes import outcomes_of, shadow_outcomes
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.labels.requests import Drawn, count_open, request_labels
from perpetune.prediction_log.queries import counts, labelled_examples, newly_labelled, recent_predictions
from perpetune.prediction_log.writes import add_feedback, delete_older, record_rows
from perpetune.prediction_log.writes import record_rows as record
from perpetune.records import Failure, Feedback, Prediction, Shadow

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with postgres_server() as postgres:
        yield postgres


@pytest.fixture
def server(postgres: Postgres) -> str:
    return postgres.url


def ask_often(client: httpx.Client, count: int) -> list[str]:
    """The ids of as many answers, each with feedback."""
    body = {"model": "killed", "messages": [{"role": "user", "content": "hello"}]}
    answered = []
    for _ in range(count):
        reply = client.post("/v1/chat/completions", json=body)
        assert reply.status_code == 200
        answered.append(reply.json()["id"])
        said = client.post("/v1/feedback", json={"request_id": answered[-1], "label": "good"})
        assert said.status_code in (200, 503), "the answer's row may be in the database, which is stopped"
    return answered


def test_the_log(server: str, prediction: Callable[..., Prediction]) -> None:
    with ThreadPoolExecutor(4) as pool:
        log, *others = pool.map(open_log, [server] * 4)
    for other in others:
        other.dispose()
    asked = [prediction(1), prediction(2, input="a\0b", group="\0"), prediction(3)]
    record(log, asked)
    record(log, asked)
    for minutes, label in ((1, "good"), (2, "b\0d\ud800"), (3, "good"), (1, "good")):
        when = asked[0].time + timedelta(minutes=minutes)
        add_feedback(log, Feedback(request_id=asked[0].id, time=when, label=label))

    found = recent_predictions(log, "reviews", limit=2)
    assert [row.input for row in found] == ["a\ufffdb", "question 3"]
    assert [example.output for example in labelled_examples(log, "reviews")] == ["good"]
    assert recent_predictions(log, "reviews", limit=None)[0] == asked[0].model_copy(
        update={"label": "good", "chosen": "unasked"}
    )
    assert counts(log, "reviews").newest == asked[2].time
    log.dispose()


@pytest.mark.parametrize("revision", ["0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009", "0012"])
def test_an_older_log_keeps_its_rows(postgres: Postgres, prediction: Callable[..., Prediction], revision: str) -> None:
    log = open_log(postgres.url)
    delete_older(log, "reviews", datetime.now(UTC))
    record(log, [prediction(1)])
    downgrade(log, revision)
    log.dispose()
    upgraded = open_log(postgres.url)
    assert counts(upgraded, "reviews").versions == {"1": 1}
    add_feedback(upgraded, Feedback(request_id="chatcmpl-1", time=datetime.now(UTC), label="good"))
    assert recent_predictions(upgraded, "reviews", limit=None) == [prediction(1, label="good", chosen="unasked")]
    record(upgraded, [prediction(2, client_id="mine", other_outputs=("a", "b\0"))])
    said = Feedback(request_id="mine", time=datetime.now(UTC), score=1, choice=2)
    assert add_feedback(upgraded, said) == "chatcmpl-2"
    newest = recent_predictions(upgraded, "reviews", limit=1)[0]
    assert (newest.client_id, newest.other_outputs, newest.score) == ("mine", ("a", "b\ufffd"), None)
    upgraded.dispose()


def test_labels_that_cannot_be_right_are_in_no_reading(
    postgres: Postgres, prediction: Callable[..., Prediction]
) -> None:
    log = open_log(postgres.url)
    delete_older(log, "reviews", datetime.now(UTC))
    check_every_reading(log, prediction)
    log.dispose()


def test_a_gateway_killed_while_the_database_is_stopped_loses_nothing(postgres: Postgres, tmp_path: Path) -> None:
    with gateway(tmp_path, postgres.url, PARAMS) as (killed, client):
        answered = ask_often(client, 40)
        postgres.stop()
        try:
            answered += ask_often(client, 40)
            eventually(lambda: "rows waiting" in client.get("/readyz").json()["log"])
        finally:
            killed.kill()
            postgres.start()
    assert list((tmp_path / "spool").glob("*.jsonl"))
    log = open_log(postgres.url)

    def stored() -> list[Prediction]:
        return recent_predictions(log, "killed", limit=None)

    try:
        with gateway(tmp_path, postgres.url, PARAMS) as (_, client):
            answered += ask_often(client, 5)
            eventually(lambda: client.get("/readyz").json()["log"] == "ok")
            eventually(lambda: len(stored()) == len(answered))
            # What is said of an answer is stored after it.
            eventually(lambda: {row.id for row in stored() if row.label == "good"} >= set(answered[41:]))
            assert {row.id for row in stored()} == set(answered)
            unseen = shadow_outcomes(log, "killed", "2", min(row.time for row in stored()), 1000)
            # A shadow answers in the background: of the last request before the kill there may be none yet.
            assert len(unseen) >= len(answered) - 2
            assert {shadow.output for _, shadow in unseen} == {"2: hello"}
    finally:
        log.dispose()


def test_all_kinds_of_rows_and_their_deletion(server: str, prediction: Callable[..., Prediction]) -> None:
    log = open_log(server)
    rows = [prediction(number, id=f"old-{number}", task="kept", route="canary") for number in range(5)]
    times = [row.time for row in rows]
    unseen = [
        Shadow(request_id=row.id, time=row.time, task="kept", version="2", output="a\0b", latency_ms=1) for row in rows
    ]
    failed = [
        Failure(id=f"f{n}", time=times[n], task="kept", version="1", route="canary", code="timeout", latency_ms=2)
        for n in range(5)
    ]
    said = Feedback(request_id="old-4", time=times[4], label="good")
    for _ in range(2):
        record_rows(log, [said, *failed, *unseen, *rows])

    found = outcomes_of(log, "kept", "1", "canary", times[0], 100)
    assert [each.output for each in found] == [None, "good"] * 5, "a failure and an answer at each time"
    pairs = shadow_outcomes(log, "kept", "2", times[0], 3)
    assert [(given.id, shadow.output) for given, shadow in pairs] == [(f"old-{n}", "a\ufffdb") for n in range(3)]
    with pytest.raises(IntegrityError):
        record_rows(log, [unseen[0].model_copy(update={"request_id": "nobody"})])

    assert delete_older(log, "kept", times[4], limit=3) == 6
    assert delete_older(log, "kept", times[4], limit=3) == 2
    assert delete_older(log, "kept", times[4], limit=3) == 0
    [left] = recent_predictions(log, "kept", limit=None)
    assert (left.id, left.label) == ("old-4", "good")
    assert len(shadow_outcomes(log, "kept", "2", times[0], 100)) == 1
    log.dispose()


def test_labels_of_an_older_log_judge_as_before(postgres: Postgres, prediction: Callable[..., Prediction]) -> None:
    log = open_log(postgres.url)
    check_provenance_of_older_labels(log, lambda: open_log(postgres.url), prediction)


KEEPALIVES = ("SO_KEEPALIVE", "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")


@contextmanager
def forwarded(path: Path) -> Iterator[int]:
    """A TCP port whose connections go on to PostgreSQL's socket."""

    def pump(source: socket.socket, target: socket.socket) -> None:
        while block := source.recv(65_536):
            target.sendall(block)
        target.close()

    def serve() -> None:
        with suppress(OSError):  # closed
            while True:
                client, server = listener.accept()[0], socket.socket(socket.AF_UNIX)
                server.connect(str(path))
                for pair in ((client, server), (server, client)):
                    Thread(target=pump, args=pair, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    ("more", "expected"),
    [("", [1, 10, 5, 3, 10_000]), ("&keepalives_idle=60&tcp_user_timeout=7000", [1, 60, 5, 3, 7000])],
)
def test_a_host_that_vanishes_is_noticed(postgres: Postgres, more: str, expected: list[int]) -> None:
    """While a query waits for its answer, the kernel asks the host whether it is still there: see tcp(7)."""
    with forwarded(postgres.data.parent / ".s.PGSQL.5432") as port:
        log = open_log(f"postgresql://ann@127.0.0.1:{port}/postgres?sslmode=disable&gssencmode=disable{more}")
        with log.connect() as connection:
            number = connection.connection.dbapi_connection.fileno()  # type: ignore[union-attr]
            with socket.socket(fileno=os.dup(number)) as used:
                found = [
                    used.getsockopt(
                        socket.SOL_SOCKET if name.startswith("SO") else socket.IPPROTO_TCP, getattr(socket, name)
                    )
                    for name in KEEPALIVES
                ]
        log.dispose()
    assert found == expected


def test_a_host_that_answers_nothing_is_given_up_in_seconds() -> None:
    """It takes connections, as a proxy does whose server has vanished, and sends nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(PerpetuneError, match="cannot be opened"):
            open_log(f"postgresql://ann@127.0.0.1:{silent.getsockname()[1]}/postgres?connect_timeout=2")
        assert time.monotonic() - began < 20


def test_plans_are_not_compiled_unless_the_url_says_so(server: str) -> None:
    for more, expected in (("", "off"), ("&options=-c%20jit%3Don", "on")):
        log = open_log(server + more)
        with log.connect() as connection:
            assert connection.exec_driver_sql("SHOW jit").scalar_one() == expected
        log.dispose()


def test_a_wrong_database_is_one_clear_error(server: str) -> None:
    with pytest.raises(PerpetuneError, match='database "nowhere" does not exist'):
        open_log(server.replace("/postgres?", "/nowhere?"))


def test_label_requests(server: str, prediction: Callable[..., Prediction]) -> None:
    log = open_log(server)
    asked = [prediction(number, task="asked") for number in (11, 12)]
    record(log, asked)
    chosen: tuple[Drawn, ...] = (
        Drawn("chatcmpl-11", "lot", weight=1.0),
        Drawn("chatcmpl-12", "doubt"),
        Drawn("unknown", "lot", weight=1.0),
    )
    assert [request_labels(log, chosen, asked[1].time) for _ in range(2)] == [2, 0]
    assert count_open(log, "asked") == 2
    for row in asked:
        add_feedback(log, Feedback(request_id=row.id, time=row.time, label="good"))
    assert [row.id for row in newly_labelled(log, "asked", "1", 0)[0]] == ["chatcmpl-11"]
    assert count_open(log, "asked") == 0
    log.dispose()
