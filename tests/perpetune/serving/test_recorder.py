from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy

from perpetune.records import Feedback, Prediction
from perpetune.serving.log import UnknownRequest, recent_predictions
from perpetune.serving.metrics import Metrics
from perpetune.serving.recorder import LogUnavailable, Recorder

Make = Callable[..., Prediction]


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


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not happened():
            await asyncio.sleep(0.01)


def stored(log: sqlalchemy.Engine) -> list[str]:
    return [row.id for row in recent_predictions(log, "reviews", limit=None)]


def test_a_row_is_there_once_record_returns(log: sqlalchemy.Engine, prediction: Make) -> None:
    async def run() -> None:
        recorder = Recorder(log, Metrics(), patience_seconds=5)
        recorder.start()
        await asyncio.gather(*(recorder.record(prediction(number)) for number in range(20)))
        assert len(stored(log)) == 20
        await recorder.feedback(say("chatcmpl-7"))
        assert recent_predictions(log, "reviews", limit=None)[7].label == "good"
        with pytest.raises(UnknownRequest):
            await recorder.feedback(say("nobody"))
        assert str(recorder.state) == "ok"
        await recorder.close()

    asyncio.run(run())


def test_rows_wait_while_the_database_is_gone(log: sqlalchemy.Engine, prediction: Make) -> None:
    async def run() -> None:
        metrics = Metrics()
        recorder = Recorder(log, metrics, retry_seconds=0.05)
        recorder.start()
        await recorder.record(prediction(1))
        with without_its_file(log):
            for number in range(2, 5):
                await recorder.record(prediction(number))
            await recorder.feedback(say("chatcmpl-3"))
            with pytest.raises(LogUnavailable):
                await recorder.feedback(say("chatcmpl-1"))
            assert str(recorder.state) == "4 rows waiting, unable to open database file"
            assert b"perpetune_log_rows_waiting 4.0" in metrics.text()
        await until(lambda: str(recorder.state) == "ok")
        assert len(stored(log)) == 4
        assert recent_predictions(log, "reviews", limit=None)[2].label == "good"
        await recorder.close()

    asyncio.run(run())


def test_a_locked_database_does_not_hold_up_answers(log: sqlalchemy.Engine, prediction: Make) -> None:
    async def run() -> None:
        recorder = Recorder(log, Metrics(), patience_seconds=0.05)
        recorder.start()
        holder = sqlite3.connect(str(log.url.database), isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        for number in range(10):
            await recorder.record(prediction(number))
        assert time.monotonic() - began < 1
        assert str(recorder.state) == "10 rows waiting, the database is slow to answer"
        holder.execute("ROLLBACK")
        await until(lambda: str(recorder.state) == "ok")
        assert len(stored(log)) == 10
        await recorder.close()

    asyncio.run(run())


def test_the_memory_is_bounded_and_says_what_it_lost(log: sqlalchemy.Engine, prediction: Make) -> None:
    async def run() -> None:
        metrics = Metrics()
        recorder = Recorder(log, metrics, capacity=3, retry_seconds=0.05)
        recorder.start()
        with without_its_file(log):
            for number in range(5):
                await recorder.record(prediction(number))
            assert str(recorder.state) == "3 rows waiting, unable to open database file; 2 rows lost"
        await until(lambda: recorder.state.waiting == 0)
        assert str(recorder.state) == "2 rows lost"
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
        recorder = Recorder(log, Metrics(), patience_seconds=5)
        recorder.start()
        asked = [prediction(1), prediction(2, output="refused"), prediction(3)]
        await asyncio.gather(*map(recorder.record, asked))
        assert stored(log) == ["chatcmpl-1", "chatcmpl-3"]
        assert str(recorder.state) == "1 rows lost"
        await recorder.close()

    asyncio.run(run())


def test_closing_writes_what_waits(log: sqlalchemy.Engine, prediction: Make) -> None:
    async def run() -> None:
        recorder = Recorder(log, Metrics(), retry_seconds=60)
        recorder.start()
        with without_its_file(log):
            await recorder.record(prediction(1))
        await recorder.close()

    asyncio.run(run())
    assert stored(log) == ["chatcmpl-1"]


def test_closing_while_the_database_is_gone_says_so(
    log: sqlalchemy.Engine, prediction: Make, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        recorder = Recorder(log, Metrics(), retry_seconds=60)
        recorder.start()
        with without_its_file(log):
            await recorder.record(prediction(1))
            await recorder.close()

    asyncio.run(run())
    assert "1 rows were not written to the prediction log" in caplog.text
