from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy
from gateways import PARAMS
from postgres_server import Postgres, gateway, postgres_server
from sqlalchemy import select
from waiting import eventually

from perpetune.audit.entry import Event
from perpetune.audit.store import append
from perpetune.errors import PerpetuneError
from perpetune.prediction_log import moving
from perpetune.prediction_log.answers.embeddings import store_embeddings
from perpetune.prediction_log.answers.values import add_cost, store_values
from perpetune.prediction_log.api_keys import add_key
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.labels.admission import admit
from perpetune.prediction_log.labels.requests import Drawn, request_labels
from perpetune.prediction_log.moving import move_log
from perpetune.prediction_log.queries import counts, recent_predictions
from perpetune.prediction_log.tables import metadata
from perpetune.prediction_log.writes import add_feedback, record_rows
from perpetune.records import Failure, Feedback, Prediction, Shadow

Make = Callable[..., Prediction]


def fill(log: sqlalchemy.Engine, prediction: Make) -> None:
    """Rows of all tables; the newest feedback has been deleted, so its number must not be given again."""
    asked = [prediction(number, input=f"{number}: 😀 ä\n", other_outputs=("a", "b")) for number in range(7)]
    shadow = Shadow(request_id=asked[0].id, time=asked[0].time, task="reviews", version="2", output="x", latency_ms=1.5)
    failed = Failure(
        id="f", time=asked[0].time, task="reviews", version="1", route="canary", code="timeout", latency_ms=2
    )
    record_rows(log, [*asked, shadow, failed])
    request_labels(log, [Drawn(asked[1].id, "lot", 0.5, 1.0)], asked[1].time, urgent=True, undrawn={asked[2].id: 0.25})
    for number in (1, 2, 1, 6):
        when = asked[number].time + timedelta(minutes=number)
        add_feedback(log, Feedback(request_id=asked[number].id, time=when, label="bad", score=0.5, propensity=0.3))
    admit(log, "reviews", "1", asked[6].time + timedelta(days=90), unasked=True)
    add_key(log, "shop", ["ask"])
    append(log, Event("ana@host", "added the key", "shop", {"roles": "ask"}), once="a key")
    store_embeddings(log, "an encoder", {asked[0].id: np.eye(1, 4)[0]})
    store_values(log, "judge", "a judge", {asked[0].id: 0.75})
    add_cost(log, "reviews", "judge", asked[0].time, 1, 0.001)
    with log.begin() as connection:
        connection.exec_driver_sql("DELETE FROM predictions WHERE id = 'chatcmpl-6'")


def content(log: sqlalchemy.Engine) -> dict[str, list[dict[str, Any]]]:
    with log.connect() as connection:
        return {
            table.name: [
                dict(row) for row in connection.execute(select(table).order_by(*table.primary_key.columns)).mappings()
            ]
            for table in metadata.sorted_tables
        }


def check_move(source_url: str, target_url: str, prediction: Make) -> None:
    source = open_log(source_url)
    before = content(source)
    assert all(before.values()), "no table without rows"
    source.dispose()
    lines: list[str] = []
    moved = move_log(source_url, target_url, lines.append)
    assert moved.rows["predictions"] == 6 and "predictions: 6 rows, done" in lines

    target = open_log(target_url)
    assert content(target) == before
    record_rows(target, [prediction(9)])
    add_feedback(target, Feedback(request_id="chatcmpl-9", time=prediction(9).time, label="new"))
    with target.connect() as connection:
        number = connection.exec_driver_sql("SELECT max(id) FROM feedback").scalar_one()
    assert number > 3, "the number of feedback that was deleted is not given again"
    with target.begin() as connection:
        connection.exec_driver_sql("DELETE FROM predictions WHERE id = 'chatcmpl-9'")
    target.dispose()
    with pytest.raises(PerpetuneError, match="moved to"):
        open_log(source_url)


def test_to_another_file(log: sqlalchemy.Engine, prediction: Make, tmp_path: Path) -> None:
    fill(log, prediction)
    check_move(str(log.url), f"sqlite:///{tmp_path / 'new.db'}", prediction)


def test_a_log_with_rows_is_refused(log: sqlalchemy.Engine, prediction: Make, tmp_path: Path) -> None:
    fill(log, prediction)
    target = f"sqlite:///{tmp_path / 'new.db'}"
    used = open_log(target)
    add_key(used, "other", ["ask"])
    used.dispose()
    with pytest.raises(PerpetuneError, match="rows already, in api_keys"):
        move_log(str(log.url), target, print)
    with pytest.raises(PerpetuneError, match="api_keys has 2 rows, and the log 1"):
        move_log(str(log.url), target, print, resume=True)
    with pytest.raises(PerpetuneError, match="the log itself"):
        move_log(str(log.url), str(log.url), print)
    record_rows(log, [prediction(11)])  # it stays in use


def test_an_interrupted_copy_is_resumed(
    log: sqlalchemy.Engine, prediction: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(log, prediction)
    monkeypatch.setattr(moving, "BATCH", 2)
    before, target = content(log), f"sqlite:///{tmp_path / 'new.db'}"

    def interrupt(line: str) -> None:
        if line.startswith("predictions"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        move_log(str(log.url), target, interrupt)
    record_rows(log, [])
    with pytest.raises(PerpetuneError, match="--resume"):
        move_log(str(log.url), target, print)
    move_log(str(log.url), target, print, resume=True)
    assert content(open_log(target)) == before


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with postgres_server() as postgres:
        yield postgres


@pytest.mark.slow
def test_to_postgresql_and_back(log: sqlalchemy.Engine, prediction: Make, tmp_path: Path, postgres: Postgres) -> None:
    fill(log, prediction)
    check_move(str(log.url), postgres.url, prediction)
    check_move(postgres.url, f"sqlite:///{tmp_path / 'back.db'}", prediction)


@pytest.mark.slow
def test_what_a_gateway_answers_meanwhile_reaches_the_new_log(
    log: sqlalchemy.Engine, prediction: Make, tmp_path: Path
) -> None:
    target = f"sqlite:///{tmp_path / 'new.db'}"
    answered: list[str] = []

    with gateway(tmp_path, str(log.url), PARAMS) as (process, client):

        def ask(line: str = "") -> None:
            reply = client.post(
                "/v1/chat/completions", json={"model": "killed", "messages": [{"role": "user", "content": "hello"}]}
            )
            assert reply.status_code == 200
            answered.append(reply.json()["id"])

        for _ in range(5):
            ask()
        eventually(lambda: counts(log, "killed").predictions == 5)
        move_log(str(log.url), target, ask)  # asks as it reports
        ask()
        eventually(lambda: "rows waiting" in client.get("/readyz").json()["log"], 20)
        process.kill()
    assert len(answered) > 10
    new = open_log(target)
    with gateway(tmp_path, target, PARAMS) as (_, client):
        eventually(lambda: client.get("/readyz").json()["log"] == "ok")
        eventually(lambda: {row.id for row in recent_predictions(new, "killed", limit=None)} >= set(answered))
    new.dispose()
