from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy
from waiting import eventually_async

from perpetune.gateway.recording.recorder import LogUnavailable, NotStored, Recorder
from perpetune.gateway.telemetry.metrics import Metrics
from perpetune.params import LogParams
from perpetune.prediction_log.answers.trial_outcomes import outcomes_of, shadow_outcomes
from perpetune.prediction_log.queries import recent_predictions
from perpetune.prediction_log.tables import failures
from perpetune.prediction_log.writes import UnknownRequest
from perpetune.records import Failure, Feedback, Prediction, Shadow

Make = Callable[..., Prediction]
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


@contextmanager
def without_its_file(log: sqlalchemy.Engine) -> Iterator[None]:
    """The database is gone for a while."""
    path = Path(str(log.url.database))
    for file in path.parent.glob("predictions.db*"):
        file.rename(file.with_name("away-" + file.name))
    yield
    for file in path.parent.glob("away-*"):
        file.rename(file.with_name(file.name.removeprefix("away-")))


def say(request_id: str, label: str = "good") -> Feedback:
    return Feedback.model_validate({"request_id": request_id, "time": "2024-05-01T13:00:00Z", "label": label})


def failure(request_id: str) -> Failure:
    return Failure(id=request_id, time=NOON, task="reviews", version="2", route="canary", code="timeout", latency_ms=1)


def stored(log: sqlalchemy.Engine) -> list[str]:
    return [row.id for row in recent_predictions(log, "reviews", limit=None)]


def test_all_kinds_of_rows_arrive(log: sqlalchemy.Engine, prediction: Make, tmp_path: Path) -> None:
    one = prediction(1)
    shadow = Shadow(
        request_id=one.id, time=one.time, task="reviews", version="2", output="bad", latency_ms=1, confidence=0.5
    )

    async def run() -> None:
        recorder = Recorder(log, Metrics(), spool=tmp_path / "spool")
        recorder.start()
        await asyncio.gather(*(recorder.record(prediction(number)) for number in range(20)))
        await recorder.feedback(say("chatcmpl-7"))
        recorder.shadow(shadow)
        recorder.failed(failure("x"))
        await asyncio.to_thread(recorder.flush)
        assert len(stored(log)) == 20
        await recorder.feedback(say("chatcmpl-8"))
        with pytest.raises(UnknownRequest):
            await recorder.feedback(say("nobody"))
        assert str(recorder.state) == "ok"
        await recorder.close()

    asyncio.run(run())
    assert [row.label for row in recent_predictions(log, "reviews", limit=None)][7:9] == ["good", "good"]
    [failed] = outcomes_of(log, "reviews", "2", "canary", NOON, 10)
    assert (failed.id, failed.output) == ("x", None)
    [(given, unseen)] = shadow_outcomes(log, "reviews", "2", NOON, 10)
    assert (given.id, given.output, unseen.output) == (one.id, one.output, "bad")
    assert not list((tmp_path / "spool").glob("*.jsonl"))


def test_rows_wait_while_the_database_is_gone(log: sqlalchemy.Engine, prediction: Make, tmp_path: Path) -> None:
    async def run() -> None:
        metrics = Metrics()
        recorder = Recorder(log, metrics, retry_seconds=0.05, spool=tmp_path / "spool")
        recorder.start()
        await recorder.record(prediction(1))
        await asyncio.to_thread(recorder.flush)
        with without_its_file(log):
            for number in range(2, 5):
                await recorder.record(prediction(number))
            await recorder.feedback(say("chatcmpl-3"))
            with pytest.raises(LogUnavailable):
                await recorder.feedback(say("chatcmpl-1"))
            await eventually_async(lambda: str(recorder.state) == "4 rows waiting, unable to open database file")
            assert b"perpetune_log_rows_waiting 4.0" in metrics.text()
        await eventually_async(lambda: str(recorder.state) == "ok")
        assert len(stored(log)) == 4
        assert recent_predictions(log, "reviews", limit=None)[2].label == "good"
        await recorder.close()

    asyncio.run(run())


def test_a_locked_database_does_not_hold_up_answers(log: sqlalchemy.Engine, prediction: Make, tmp_path: Path) -> None:
    async def run() -> None:
        recorder = Recorder(log, Metrics(), spool=tmp_path / "spool")
        recorder.start()
        holder = sqlite3.connect(str(log.url.database), isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        for number in range(10):
            await recorder.record(prediction(number))
        assert time.monotonic() - began < 1
        await eventually_async(lambda: str(recorder.state) == "10 rows waiting, the database is slow to answer")
        holder.execute("ROLLBACK")
        await eventually_async(lambda: str(recorder.state) == "ok" and not recorder.state.waiting)
        assert len(stored(log)) == 10
        await recorder.close()

    asyncio.run(run())


def test_the_spool_is_bounded_and_says_what_it_lost(log: sqlalchemy.Engine, prediction: Make, tmp_path: Path) -> None:
    async def run() -> None:
        metrics = Metrics()
        recorder = Recorder(log, metrics, capacity=3, retry_seconds=0.05, spool=tmp_path / "spool")
        recorder.start()
        with without_its_file(log):
            for number in range(5):
                await recorder.record(prediction(number))
            await eventually_async(
                lambda: str(recorder.state) == "3 rows waiting, unable to open database file; 2 rows lost"
            )
        await eventually_async(lambda: str(recorder.state) == "2 rows lost")
        assert b"perpetune_log_rows_lost_total 2.0" in metrics.text()
        assert stored(log) == ["chatcmpl-0", "chatcmpl-1", "chatcmpl-2"]
        await recorder.close()

    asyncio.run(run())


def test_a_row_that_the_database_refuses_holds_up_no_other(log: sqlalchemy.Engine, prediction: Make) -> None:
    with log.begin() as connection:
        connection.exec_driver_sql(
            "create trigger refuse before insert on predictions when new.output = 'refused'"
            " begin select raise(abort, 'not this one'); end"
        )

    async def run() -> None:
        recorder = Recorder(log, Metrics())
        recorder.start()
        asked = [prediction(1), prediction(2, output="refused"), prediction(3)]
        await asyncio.gather(*map(recorder.record, asked))
        await asyncio.to_thread(recorder.flush)
        assert stored(log) == ["chatcmpl-1", "chatcmpl-3"]
        assert str(recorder.state) == "1 rows lost"
        await recorder.close()

    asyncio.run(run())


def test_what_is_not_written_at_the_end_is_written_by_the_next(
    log: sqlalchemy.Engine, prediction: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = tmp_path / "spool"

    async def run() -> None:
        first = Recorder(log, Metrics(), spool=spool)
        first.start()
        with without_its_file(log):
            await first.record(prediction(1, group="\udfff"))
            await first.close()
        [file] = spool.glob("*.jsonl")
        with file.open("ab") as torn:
            torn.write(b'{"prediction":{"id":"torn')
        second = Recorder(log, Metrics(), spool=spool)
        second.start()
        await second.feedback(say("chatcmpl-1"))
        await second.close()

    asyncio.run(run())
    assert "1 rows were not written to the prediction log" in caplog.text
    assert "is incomplete" in caplog.text
    [row] = recent_predictions(log, "reviews", limit=None)
    assert (row.id, row.label) == ("chatcmpl-1", "good")
    assert not list(spool.glob("*.jsonl"))


def test_what_a_gateway_leaves_is_written_by_one_that_lives(
    log: sqlalchemy.Engine, prediction: Make, tmp_path: Path
) -> None:
    async def run() -> None:
        lives = Recorder(log, Metrics(), spool=tmp_path / "spool", adopt_seconds=0.1, retry_seconds=0.05)
        lives.start()
        await lives.record(prediction(1))
        await asyncio.to_thread(lives.flush)
        dies = Recorder(log, Metrics(), spool=tmp_path / "spool")
        dies.start()
        with without_its_file(log):
            await dies.record(prediction(2))
            await dies.close()
        await eventually_async(lambda: len(list((tmp_path / "spool").glob("*.jsonl"))) == 1 and not lives.state.waiting)
        await lives.close()

    asyncio.run(run())
    assert stored(log) == ["chatcmpl-1", "chatcmpl-2"]
    assert not list((tmp_path / "spool").glob("*.jsonl"))


def test_a_live_gateways_rows_are_its_own(log: sqlalchemy.Engine, prediction: Make, tmp_path: Path) -> None:
    async def run() -> None:
        live = Recorder(log, Metrics(), spool=tmp_path / "spool")
        await live.record(prediction(1))
        other = Recorder(log, Metrics(), spool=tmp_path / "spool")
        other.start()
        assert other.state.waiting == 0
        await other.close()
        assert stored(log) == []
        await live.close()
        assert stored(log) == ["chatcmpl-1"]

    asyncio.run(run())


def test_a_spool_that_cannot_be_written(log: sqlalchemy.Engine, prediction: Make, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    async def run() -> None:
        recorder = Recorder(log, Metrics(), spool=tmp_path / "file" / "spool")
        await recorder.record(prediction(1))
        assert "the spool cannot be written (Not a directory), so rows wait in memory" in str(recorder.state)
        with pytest.raises(LogUnavailable):
            await recorder.feedback(say("chatcmpl-1"))
        recorder.start()
        await asyncio.to_thread(recorder.flush)
        await recorder.feedback(say("chatcmpl-1"))
        await recorder.close()

    asyncio.run(run())
    assert [(row.id, row.label) for row in recent_predictions(log, "reviews", limit=None)] == [("chatcmpl-1", "good")]


def test_a_share_of_the_requests_is_stored(log: sqlalchemy.Engine, prediction: Make) -> None:
    async def run() -> None:
        recorder = Recorder(log, Metrics(), params=LogParams(sample_rate=0.25, retention_days=None, redact=False))
        recorder.start()
        for number in range(400):
            await recorder.record(prediction(number))
        await asyncio.to_thread(recorder.flush)
        here = stored(log)
        assert 60 < len(here) < 140
        assert all(map(recorder.stores, here))
        missing = next(f"chatcmpl-{number}" for number in range(400) if f"chatcmpl-{number}" not in here)
        with pytest.raises(NotStored):
            await recorder.feedback(say(missing))
        for number in range(400):
            recorder.failed(failure(f"chatcmpl-{number}"))
        await asyncio.to_thread(recorder.flush)
        with log.connect() as connection:
            failed = connection.execute(sqlalchemy.select(failures.c.id)).scalars().all()
        assert set(failed) == set(here), "of failures the same share is stored, so that a trial compares like with like"
        await recorder.close()

    asyncio.run(run())


def test_old_rows_are_deleted(log: sqlalchemy.Engine, prediction: Make) -> None:
    async def run() -> None:
        keep_a_day = LogParams(sample_rate=1, retention_days=1, redact=False)
        recorder = Recorder(log, Metrics(), task="reviews", params=keep_a_day)
        await recorder.record(prediction(1))
        await recorder.feedback(say("chatcmpl-1"))
        await recorder.record(prediction(2, task="other"))
        recorder.start()
        await asyncio.to_thread(recorder.flush)
        await eventually_async(lambda: stored(log) == [])
        await recorder.close()

    asyncio.run(run())
    assert len(recent_predictions(log, "other", limit=None)) == 1
    with log.connect() as connection:
        assert connection.exec_driver_sql("select count(*) from feedback").scalar_one() == 0
