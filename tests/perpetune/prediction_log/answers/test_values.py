"""Values of answers without labels in the log, and what they cost."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import sqlalchemy
from older_logs import downgrade
from sqlalchemy import delete, select

from perpetune.prediction_log.answers.values import Spent, add_cost, spent, store_values, values_of
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.tables import answer_values, predictions
from perpetune.prediction_log.writes import record_rows
from perpetune.records import Prediction

NOW = datetime(2026, 3, 5, 12, tzinfo=UTC)
MONTH = NOW.replace(day=1, hour=0)


def test_values_are_of_their_settings_and_go_with_their_requests(
    log: sqlalchemy.Engine, prediction: Callable[..., Prediction]
) -> None:
    rows = [prediction(number) for number in range(3)]
    ids = [row.id for row in rows]
    record_rows(log, rows)
    store_values(log, "judge", "a", {ids[0]: 0.5, ids[1]: None, "gone": 1.0})
    store_values(log, "self-consistency", "a", {ids[0]: 0.9})
    assert values_of(log, "judge", "a", [*ids, "gone"]) == {ids[0]: 0.5, ids[1]: None}
    assert values_of(log, "judge", "b", ids) == {}, "another rubric"
    store_values(log, "judge", "b", {ids[0]: 0.25})
    assert (values_of(log, "judge", "a", ids), values_of(log, "judge", "b", ids)) == ({ids[1]: None}, {ids[0]: 0.25})
    with log.begin() as connection:
        connection.execute(delete(predictions).where(predictions.c.id == ids[0]))
        assert connection.execute(select(answer_values.c.request_id)).scalars().all() == [ids[1]]


def test_requests_are_counted_by_day_and_dollars_by_month(log: sqlalchemy.Engine) -> None:
    for hours, requests, dollars in ((1, 10, 0.5), (25, 20, 0.25), (24 * 6, 40, 1.0)):
        add_cost(log, "reviews", "judge", NOW - timedelta(hours=hours), requests, dollars)
    add_cost(log, "reviews", "self-consistency", NOW, 7, 0.0)
    add_cost(log, "other", "judge", NOW, 7, 9.0)
    assert spent(log, "reviews", "judge", NOW - timedelta(days=1), MONTH) == Spent(10, 0.75)
    assert spent(log, "none", "judge", NOW - timedelta(days=1), MONTH) == Spent(0, 0.0)


def test_an_older_log_gets_the_tables_and_can_go_back(log: sqlalchemy.Engine) -> None:
    url = log.url.render_as_string(hide_password=False)
    downgrade(log, "0010")
    assert not sqlalchemy.inspect(log).has_table("answer_values")
    again = open_log(url)
    assert sqlalchemy.inspect(again).has_table("answer_values") and sqlalchemy.inspect(again).has_table(
        "estimate_costs"
    )
    again.dispose()
