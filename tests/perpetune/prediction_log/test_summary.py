from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
import sqlalchemy
from sqlalchemy import insert

from perpetune.prediction_log.labels.counts import label_counts
from perpetune.prediction_log.labels.requests import count_open
from perpetune.prediction_log.labels.rule import LabelRule
from perpetune.prediction_log.queries import counts
from perpetune.prediction_log.summary import log_summary, worked_seconds
from perpetune.prediction_log.tables import label_requests
from perpetune.prediction_log.writes import record_rows
from perpetune.records import Feedback, Prediction

Make = Callable[..., Prediction]
RULE = LabelRule(labels=("good", "bad"))


@pytest.fixture
def asked(log: sqlalchemy.Engine, prediction: Make) -> sqlalchemy.Engine:
    """Twelve requests of a task and one of another; labels of every kind, and none."""
    rows = [prediction(number) for number in range(12)]
    record_rows(log, [*rows, prediction(99, task="other")])
    labels = {0: "good", 1: "bad", 2: "GOOD", 3: "neither", 4: "good", 99: "good"}
    when = rows[-1].time
    given = [Feedback(request_id=f"chatcmpl-{n}", time=when, label=label) for n, label in labels.items()]
    record_rows(log, [*given, Feedback(request_id="chatcmpl-0", time=when + timedelta(hours=1), label="neither")])
    record_rows(log, [Feedback(request_id="chatcmpl-5", time=when, label="bad", propensity=0.1)])
    record_rows(log, [Feedback(request_id="chatcmpl-6", time=when, score=0.5)])
    with log.begin() as connection:
        for number, why, urgent in ((1, "doubt", False), (2, "lot", False), (7, "lot", True), (8, "doubt", False)):
            values = {"request_id": f"chatcmpl-{number}", "time": when, "why": why, "urgent": urgent}
            connection.execute(insert(label_requests).values(values))
    return log


def test_it_counts_as_the_queries_of_checks_do(asked: sqlalchemy.Engine, prediction: Make) -> None:
    found = log_summary(asked, "reviews", prediction(4).time, RULE)
    whole = counts(asked, "reviews", RULE)

    assert (found.predictions, found.labelled, found.ignored) == (12, whole.labelled, whole.ignored) == (12, 5, 1)
    assert found.labels == label_counts(asked, "reviews", RULE) == {"lot": 2, "doubt": 1, "unasked": 2}
    assert (found.open_requests, found.urgent) == (count_open(asked, "reviews", RULE), 1) == (2, 1)
    assert (found.newest, found.first, found.requests_since) == (whole.newest, prediction(4).time, 8)
    assert worked_seconds(asked, "reviews", prediction(4).time) == pytest.approx(8 * 0.0125)


def test_a_task_without_requests(asked: sqlalchemy.Engine, prediction: Make) -> None:
    found = log_summary(asked, "nothing", prediction(0).time, RULE)
    assert (found.predictions, found.labelled, found.newest, found.first) == (0, 0, None, None)
