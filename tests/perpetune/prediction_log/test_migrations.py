from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from older_logs import check_provenance_of_older_labels, downgrade

from perpetune.prediction_log.api_keys import add_key
from perpetune.prediction_log.database import open_log, writing
from perpetune.prediction_log.labels.requests import Drawn, count_open, newest_draw, open_requests, request_labels
from perpetune.prediction_log.queries import recent_predictions
from perpetune.prediction_log.tables import VERSION_TABLE, metadata
from perpetune.prediction_log.writes import add_feedback, record_rows
from perpetune.records import Feedback, Prediction


@pytest.mark.parametrize(
    "revision", ["0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009", "0010", "0011", "0012", "0013"]
)
def test_an_older_log_keeps_its_rows_and_gains_what_is_new(
    log: sqlalchemy.Engine, prediction: Callable[..., Prediction], revision: str
) -> None:
    asked = [prediction(number) for number in range(3)]
    record_rows(log, asked)
    for number, row in enumerate(asked):
        add_feedback(log, Feedback(request_id=row.id, time=row.time, label="good", score=number / 4))
    downgrade(log, revision)

    upgraded = open_log(str(log.url))
    found = recent_predictions(upgraded, "reviews", limit=None)
    assert found == [
        row.model_copy(update={"label": "good", "score": n / 4, "chosen": "unasked"}) for n, row in enumerate(asked)
    ]
    add_feedback(upgraded, Feedback(request_id=asked[0].id, time=asked[0].time + timedelta(hours=1), label="bad"))
    assert recent_predictions(upgraded, "reviews", limit=None)[0].label == "bad"
    assert add_key(upgraded, "shop", ["ask"]).startswith("ppt_")
    with upgraded.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, metadata) == []
        ids = connection.exec_driver_sql("select id from feedback order by id").scalars().all()
        made = connection.exec_driver_sql("select sql from sqlite_master where name = 'feedback'").scalar_one()
    assert ids == [1, 2, 3, 4] and "AUTOINCREMENT" in made
    upgraded.dispose()


def test_label_requests_of_an_older_log_are_found(
    log: sqlalchemy.Engine, prediction: Callable[..., Prediction]
) -> None:
    """Also those that an older perpetune, which still runs, makes afterwards."""
    asked = [prediction(number, version=str(number)) for number in range(3)]
    record_rows(log, asked)
    request_labels(log, [Drawn(asked[0].id, "lot", 0.5, 1.0)], asked[0].time)
    downgrade(log, "0012")
    upgraded = open_log(str(log.url))
    with writing(upgraded) as connection:
        row = f"('{asked[1].id}', '2026-01-01', 'lot')"
        connection.exec_driver_sql(f"INSERT INTO label_requests (request_id, time, why) VALUES {row}")
    assert count_open(upgraded, "reviews") == 2
    assert [[each.request_id for each in open_requests(upgraded, "reviews", version=version)] for version in "012"] == [
        [asked[0].id],
        [asked[1].id],
        [],
    ]
    assert newest_draw(upgraded, "reviews", "0") == asked[0].time
    upgraded.dispose()


def test_labels_of_an_older_log_judge_as_before(log: sqlalchemy.Engine, prediction: Callable[..., Prediction]) -> None:
    check_provenance_of_older_labels(log, lambda: open_log(str(log.url)), prediction)
