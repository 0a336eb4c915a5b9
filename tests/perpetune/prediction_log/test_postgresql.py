"""The prediction log on a real PostgreSQL server, if this machine has one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from gateways import PARAMS
from label_readings import check_every_reading
from older_logs import check_provenance_of_older_labels, downgrade
from sqlalchemy.exc import IntegrityError
from waiting import eventually

from perpetune.errors import PerpetuneError
from perpetune.params import ServeParams
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.label_requests import Drawn, count_open, request_labels
from perpetune.prediction_log.queries import counts, labelled_examples, newly_labelled, recent_predictions
from perpetune.prediction_log.trial_outcomes import outcomes_of, shadow_outcomes
from perpetune.prediction_log.writes import add_feedback, delete_older, record_rows
from perpetune.prediction_log.writes import record_rows as record
from perpetune.records import Failure, Feedback, Prediction, Shadow

pytestmark = pytest.mark.slow


def _programs() -> Path | None:
    found = shutil.which("initdb")
    positions = [Path(found).resolve().parent] if found else []
    positions += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next(
        (position for position in positions if (position / "initdb").exists() and (position / "postgres").exists()),
        None,
    )


def _as_somebody_else() -> list[str]:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return []
    return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]


class Postgres:
    """A server in `folder` that can be killed and started again."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.url = f"postgresql://ann@/postgres?host={folder}"
        self._run: list[str | Path] = [*_as_somebody_else(), programs / "postgres", "-D", folder / "data", "-k", folder]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = ["-c", "listen_addresses=", "-c", "fsync=off"]
        self._process = subprocess.Popen([*self._run, *options], stderr=subprocess.DEVNULL, cwd="/")
        eventually(self._answers, 20)

    def _answers(self) -> bool:
        try:
            open_log(self.url).dispose()
        except PerpetuneError:
            return False
        return True

    def stop(self) -> None:
        """At once, as its immediate shutdown does: SIGTERM would wait for pooled connections."""
        if self._process:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(timeout=20)
            self._process = None


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: `apt-get install postgresql` (initdb and postgres are enough)")
    if _as_somebody_else() and not shutil.which("setpriv"):
        pytest.skip("PostgreSQL does not run as root and setpriv is missing: `apt-get install util-linux`")
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    if _as_somebody_else():
        shutil.chown(folder, "nobody", "nogroup")
    make: list[str | Path] = [
        programs / "initdb",
        "-D",
        folder / "data",
        "-U",
        "ann",
        "--no-sync",
        "-E",
        "UTF8",
        "--locale=C",
    ]
    subprocess.run([*_as_somebody_else(), *make], check=True, capture_output=True, cwd="/")
    postgres = Postgres(programs, folder)
    try:
        postgres.start()
        yield postgres
    finally:
        postgres.stop()
        shutil.rmtree(folder)


@pytest.fixture
def server(postgres: Postgres) -> str:
    return postgres.url


GATEWAY = textwrap.dedent("""
    import sys
    from pathlib import Path

    from perpetune.params import BaseParams, ServeParams
    from perpetune.model.release import Release, Trial
    from perpetune.testing.fake_engine import FakeEngine
    from perpetune.testing.fake_registry import FakeSource
    from perpetune.gateway.app import create_app
    from perpetune.prediction_log.database import open_log
    from perpetune.gateway.server import listen, run

    folder, url, params = Path(sys.argv[1]), *sys.argv[2:]
    base = BaseParams(model="path:tiny", revision=None)
    releases = [Release("killed", version, folder, "Judge it.", None, base) for version in "12"]
    app = create_app(
        "killed",
        engine=FakeEngine(),
        source=FakeSource(releases, champion="1", trial=Trial("2", "shadow", 1.0)),
        log=open_log(url),
        params=ServeParams.model_validate_json(params),
        max_new_tokens=16,
        spool=folder / "spool",
    )
    with listen("127.0.0.1", 0) as address:
        print(address.getsockname()[1], flush=True)
        run(app, address, grace_seconds=5)
""")


@contextmanager
def gateway(folder: Path, url: str, params: ServeParams) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """A gateway in a process of its own, which is killed in the end."""
    command = [sys.executable, "-c", GATEWAY, str(folder), url, params.model_dump_json()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            with httpx.Client(base_url=f"http://127.0.0.1:{int(process.stdout.readline())}", timeout=20) as client:
                eventually(lambda: client.get("/readyz").json().get("trial") == "2")
                yield process, client
        finally:
            process.kill()


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
        time = asked[0].time + timedelta(minutes=minutes)
        add_feedback(log, Feedback(request_id=asked[0].id, time=time, label=label))

    found = recent_predictions(log, "reviews", limit=2)
    assert [row.input for row in found] == ["a\ufffdb", "question 3"]
    assert [example.output for example in labelled_examples(log, "reviews")] == ["good"]
    assert recent_predictions(log, "reviews", limit=None)[0] == asked[0].model_copy(
        update={"label": "good", "chosen": "unasked"}
    )
    assert counts(log, "reviews").newest == asked[2].time
    log.dispose()


def test_an_older_log_keeps_its_rows(postgres: Postgres, prediction: Callable[..., Prediction]) -> None:
    log = open_log(postgres.url)
    delete_older(log, "reviews", datetime.now(UTC))
    record(log, [prediction(1)])
    downgrade(log, "0004")
    log.dispose()
    upgraded = open_log(postgres.url)
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
