from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import numpy as np
import pytest
import sqlalchemy
from older_logs import downgrade
from sqlalchemy import select

from perpetune.prediction_log.answers.embeddings import embedded_requests, rounded, store_embeddings, unembedded
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.queries import recent_predictions
from perpetune.prediction_log.tables import embeddings
from perpetune.prediction_log.writes import delete_older, record_rows
from perpetune.records import Prediction

Predict = Callable[..., Prediction]


def unit_vectors(rows: int, size: int = 64) -> np.ndarray:
    vectors = np.random.default_rng(rows).normal(size=(rows, size))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def stored(log: sqlalchemy.Engine, prediction: Predict, rows: int) -> list[Prediction]:
    first = prediction(0).time
    asked = [prediction(number, time=first + timedelta(hours=number)) for number in range(rows)]
    record_rows(log, asked)
    vectors = unit_vectors(rows)
    store_embeddings(log, "encoder", {row.id: vectors[number] for number, row in enumerate(asked)})
    return asked


def test_embeddings_come_back_almost_as_they_were(log: sqlalchemy.Engine, prediction: Predict) -> None:
    asked = stored(log, prediction, 30)
    row, before = asked[0], asked[0].time - timedelta(days=1)
    newest, spread = embedded_requests(log, row.task, row.version, "encoder", before, newest=5, spread=4)
    assert [each.id for each in newest] == [asked[place].id for place in (6, 12, 18, 23, 29)], (
        "a whole day of 24 requests"
    )
    assert [each.id for each in spread] == [asked[place].id for place in (0, 10, 19, 29)]
    vectors = unit_vectors(30)
    all_newest, _ = embedded_requests(log, row.task, row.version, "encoder", before, newest=25, spread=4)
    assert [each.id for each in all_newest] == [each.id for each in asked[-25:]], "more than a day"
    assert all(float(each.vector @ vectors[5 + place]) > 0.995 for place, each in enumerate(all_newest))
    assert np.allclose(all_newest[0].vector, rounded(vectors)[5])
    other = embedded_requests(log, row.task, row.version, "another", before, newest=5, spread=4)
    assert other == ([], []), "embeddings of another encoder cannot be compared"


def test_requests_without_one_are_found_and_none_is_stored_twice(log: sqlalchemy.Engine, prediction: Predict) -> None:
    asked = [prediction(number) for number in range(5)]
    record_rows(log, asked)
    assert len(unembedded(log, asked[0].task, asked[0].time, 3)) == 3
    vectors = unit_vectors(2)
    store_embeddings(log, "encoder", {asked[0].id: vectors[0], "deleted meanwhile": vectors[1]})
    store_embeddings(log, "another", {asked[0].id: vectors[1]})
    with log.connect() as connection:
        stored_rows = connection.execute(select(embeddings.c.request_id, embeddings.c.encoder)).all()
    assert [tuple(row) for row in stored_rows] == [(asked[0].id, "encoder")]
    assert {row.id for row in unembedded(log, asked[0].task, asked[0].time, 9)} == {row.id for row in asked[1:]}


def test_embeddings_are_deleted_with_their_requests(log: sqlalchemy.Engine, prediction: Predict) -> None:
    asked = stored(log, prediction, 6)
    delete_older(log, asked[0].task, asked[4].time)
    with log.connect() as connection:
        assert set(connection.execute(select(embeddings.c.request_id)).scalars()) == {row.id for row in asked[4:]}


@pytest.mark.parametrize("likelihood", [None, 0.75])
def test_an_older_log_gains_them_and_loses_them_again(
    log: sqlalchemy.Engine, prediction: Predict, likelihood: float | None
) -> None:
    [row] = stored(log, lambda number, **values: prediction(number, likelihood=likelihood, **values), 1)
    assert recent_predictions(log, row.task, limit=None) == [row]
    downgrade(log, "0007")
    assert not sqlalchemy.inspect(log).has_table("embeddings")
    upgraded = open_log(str(log.url))
    assert recent_predictions(upgraded, row.task, limit=None) == [row.model_copy(update={"likelihood": None})]
    assert unembedded(upgraded, row.task, row.time, 9)
    upgraded.dispose()
