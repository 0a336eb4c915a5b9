"""Reads of a log of many requests, few of them labelled: counts are right, and no read goes through all requests."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy
from sqlalchemy import event

from perpetune.prediction_log.answers.trial_outcomes import outcomes_of
from perpetune.prediction_log.database import open_log, writing
from perpetune.prediction_log.labels.admission import admit, newly_admitted
from perpetune.prediction_log.labels.counts import label_counts
from perpetune.prediction_log.labels.requests import Drawn, count_open, newest_draw, open_requests, request_labels
from perpetune.prediction_log.labels.selection import selection
from perpetune.prediction_log.queries import counts, labelled_examples, labelled_since, recent_predictions
from perpetune.prediction_log.summary import log_summary
from perpetune.prediction_log.writes import add_feedback, delete_older, record_rows
from perpetune.records import CUT_OFF, Feedback, Prediction

Make = Callable[..., Prediction]
NOW = datetime(2027, 1, 1, tzinfo=UTC)
READS: dict[str, Callable[[sqlalchemy.Engine], object]] = {
    "counts": lambda log: counts(log, "reviews"),
    "recent": lambda log: recent_predictions(log, "reviews", version="1", limit=5),
    "recent of a version without answers": lambda log: recent_predictions(log, "reviews", version="9", limit=5),
    "admit": lambda log: admit(log, "reviews", "1", NOW, unasked=True),
    "admitted": lambda log: newly_admitted(log, "reviews", "1", 0, newest=5),
    "selection": lambda log: selection(log, "reviews", "1", NOW, limit=5),
    "open requests": lambda log: open_requests(log, "reviews"),
    "count of open requests": lambda log: count_open(log, "reviews"),
    "ways": lambda log: label_counts(log, "reviews"),
    "status": lambda log: log_summary(log, "reviews", NOW - timedelta(hours=1)),
    "labelled since": lambda log: labelled_since(log, "reviews", None),
    "outcomes": lambda log: outcomes_of(log, "reviews", "1", "champion", NOW - timedelta(days=900), 5),
    "training": lambda log: labelled_examples(log, "reviews"),
}


OF_VERSION: dict[str, Callable[[sqlalchemy.Engine], object]] = {
    "admit": lambda log: admit(log, "reviews", "1", NOW, unasked=True),
    "selection": lambda log: selection(log, "reviews", "1", NOW, limit=5),
    "open requests": lambda log: open_requests(log, "reviews", version="1"),
    "newest draw": lambda log: newest_draw(log, "reviews", "1"),
}


def fill(log: sqlalchemy.Engine, prediction: Make, count: int = 4000) -> None:
    """Version 1 has the newest 200. Of all requests one in forty is labelled, and one in two hundred asked for."""
    asked = [prediction(number, version="1" if number >= count - 200 else "0") for number in range(count)]
    record_rows(log, [*asked, *(Feedback(request_id=row.id, time=row.time, label="bad") for row in asked[::40])])
    request_labels(log, [Drawn(row.id, "lot", 0.5, 1.0) for row in asked[1::200]], asked[-1].time)


@pytest.mark.parametrize("name", READS)
def test_no_read_steps_through_all_requests(log: sqlalchemy.Engine, prediction: Make, name: str) -> None:
    fill(log, prediction)
    # A count of all requests would take four for each; training reads every label.
    assert steps_of(READS[name], log) < (24_000 if name == "training" else 16_000)


@pytest.mark.parametrize("name", OF_VERSION)
def test_reads_of_a_version_pass_over_the_label_requests_of_others(
    log: sqlalchemy.Engine, prediction: Make, name: str
) -> None:
    fill(log, prediction)
    others = [Drawn(f"chatcmpl-{number}", "lot", 0.5, 1.0) for number in range(0, 3800, 2)]
    request_labels(log, others, NOW)
    # To pass through the 1,900 of the other version would take some 20,000 more.
    assert steps_of(OF_VERSION[name], log) < 20_000


def steps_of(read: Callable[[sqlalchemy.Engine], object], log: sqlalchemy.Engine) -> int:
    """Steps of SQLite's virtual machine, which are the same on every machine; a row takes about ten."""
    log.dispose()
    log = open_log(str(log.url))  # which looks at samples of the tables
    steps = [0]

    @event.listens_for(log, "checkout")
    def count_steps(connection: sqlite3.Connection, *_: object) -> None:
        def more() -> int:
            steps[0] += 100
            return 0

        connection.set_progress_handler(more, 100)

    try:
        read(log)
    finally:
        log.dispose()
    return steps[0]


@pytest.mark.parametrize("reason", [None, "stop", *CUT_OFF])
def test_answers_are_counted_as_they_come_and_go(log: sqlalchemy.Engine, prediction: Make, reason: str | None) -> None:
    rows = [prediction(number, version=str(number % 2), finish_reason=reason) for number in range(5)]
    record_rows(log, rows)
    record_rows(log, rows)  # again, after a crash
    assert counts(log, "reviews").versions == {"0": 3, "1": 2}
    assert cut_off(log) == (5 if reason in CUT_OFF else 0)
    delete_older(log, "reviews", rows[3].time, limit=2)
    assert counts(log, "reviews").versions == {"0": 2, "1": 1}
    delete_older(log, "reviews", NOW)
    assert counts(log, "reviews").versions == {}


def cut_off(log: sqlalchemy.Engine) -> int:
    with log.connect() as connection:
        return int(connection.exec_driver_sql("SELECT sum(cut_off) FROM answer_counts").scalar_one())


def test_feedback_that_an_older_gateway_writes_is_found(log: sqlalchemy.Engine, prediction: Make) -> None:
    record_rows(log, [prediction(1)])
    columns = "(request_id, time, label, digest)"
    with writing(log) as connection:
        connection.exec_driver_sql(f"INSERT INTO feedback {columns} VALUES ('chatcmpl-1', '2026-01-01', 'bad', 'x')")
    assert counts(log, "reviews").labelled == 1
    assert [row.output for row in labelled_examples(log, "reviews")] == ["bad"]


def test_the_label_that_comes_late_is_admitted_in_a_long_log(
    log: sqlalchemy.Engine, prediction: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perpetune.prediction_log.labels.admission.LABELLED", 20)
    rows = [prediction(number) for number in range(60)]
    record_rows(log, rows)
    for row in rows[1:]:
        add_feedback(log, Feedback(request_id=row.id, time=row.time, label="good"))
    assert sum(each.settled for each in selection(log, "reviews", "1", NOW)) == 60, (
        "nearly all of the newest have labels"
    )
    admit(log, "reviews", "1", NOW, unasked=True)
    add_feedback(log, Feedback(request_id=rows[0].id, time=NOW, label="bad"))
    assert admit(log, "reviews", "1", NOW, unasked=True) == 1
