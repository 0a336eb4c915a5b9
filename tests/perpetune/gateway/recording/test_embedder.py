from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import numpy as np
import pytest
import sqlalchemy

from perpetune.errors import PerpetuneError
from perpetune.gateway.recording.embedder import Embedder, LoadedEncoder
from perpetune.prediction_log.answers.embeddings import embedding_ids
from perpetune.prediction_log.writes import record_rows
from perpetune.records import Prediction

Predict = Callable[..., Prediction]


def load() -> LoadedEncoder:
    return LoadedEncoder("encoder", lambda texts: np.eye(8)[: len(texts)])


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def new_rows(log: sqlalchemy.Engine, prediction: Predict, numbers: Sequence[int]) -> list[str]:
    rows = [prediction(number, time=datetime.now(UTC)) for number in numbers]
    record_rows(log, rows)
    return [row.id for row in rows]


def test_new_requests_are_embedded_up_to_the_rate(log: sqlalchemy.Engine, prediction: Predict) -> None:
    embedder = Embedder(log, "reviews", 360_000, load, round_seconds=0.05)
    embedder.start()
    ids = new_rows(log, prediction, range(12))
    wait_until(lambda: len(embedding_ids(log, ids)) >= 5)
    embedder.close()
    slow = Embedder(log, "reviews", 1, load, round_seconds=0.05)
    slow.start()
    later = new_rows(log, prediction, range(100, 112))
    wait_until(lambda: len(embedding_ids(log, later)) >= 1)
    slow.close()
    assert len(embedding_ids(log, later)) < 12, "one in a round"


@pytest.mark.parametrize("fault", [PerpetuneError("the weights are not here"), RuntimeError("no memory")])
def test_an_encoder_that_fails_stops_nothing_but_the_embeddings(
    log: sqlalchemy.Engine, prediction: Predict, fault: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> LoadedEncoder:
        raise fault

    embedder = Embedder(log, "reviews", 360_000, fail, round_seconds=0.05)
    embedder.start()
    ids = new_rows(log, prediction, range(3))
    wait_until(lambda: "drift is tested without embeddings" in caplog.text)
    embedder.close()
    assert embedding_ids(log, ids) == set()
