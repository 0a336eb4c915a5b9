from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy

from perpetune.prediction_log.answers.trial_outcomes import outcomes_of
from perpetune.prediction_log.labels.requests import (
    Drawn,
    LabelRequest,
    count_open,
    count_unasked,
    open_requests,
    request_labels,
)
from perpetune.prediction_log.queries import labelled_examples, newly_labelled
from perpetune.prediction_log.writes import add_feedback, delete_older, record_rows
from perpetune.records import Feedback, Prediction

Make = Callable[..., Prediction]
NOW = datetime(2024, 5, 2, tzinfo=UTC)


@pytest.fixture
def asked(log: sqlalchemy.Engine, prediction: Make) -> list[Prediction]:
    rows = [prediction(number) for number in range(4)]
    record_rows(log, [*rows, prediction(8, version="2"), prediction(9, task="other")])
    request_labels(
        log,
        [Drawn("chatcmpl-2", "doubt"), Drawn("chatcmpl-1", "lot", weight=1.0), Drawn("chatcmpl-8", "lot", weight=1.0)],
        NOW,
    )
    return rows


def label(log: sqlalchemy.Engine, row: Prediction, label: str = "bad") -> None:
    add_feedback(log, Feedback(request_id=row.id, time=NOW, label=label))


def test_what_is_asked_for_stays_open_until_it_is_labelled(log: sqlalchemy.Engine, asked: list[Prediction]) -> None:
    assert open_requests(log, "reviews", version="1") == [
        LabelRequest("chatcmpl-1", "question 1", "good", 0.75, "lot"),
        LabelRequest("chatcmpl-2", "question 2", "good", 0.75, "doubt"),
    ]
    add_feedback(log, Feedback(request_id="chatcmpl-1", time=NOW, score=0.5, comment="no label yet"))
    assert count_open(log, "reviews") == 3
    label(log, asked[1])
    assert [row.request_id for row in open_requests(log, "reviews")] == ["chatcmpl-2", "chatcmpl-8"]
    assert (count_open(log, "reviews"), count_open(log, "other")) == (2, 0)


def test_labels_of_answers_that_nobody_asked_about_are_counted(log: sqlalchemy.Engine, asked: list[Prediction]) -> None:
    assert count_unasked(log, [row.id for row in asked]) == 2, "requests name 1 and 2"
    assert count_unasked(log, ["chatcmpl-1"]) == count_unasked(log, []) == 0


def test_asking_again_changes_nothing(log: sqlalchemy.Engine, asked: list[Prediction]) -> None:
    again = request_labels(
        log, [Drawn("chatcmpl-1", "doubt"), Drawn("chatcmpl-3", "doubt"), Drawn("unknown", "lot", weight=1.0)], NOW
    )
    assert again == 1, "one was asked for before, and one is in no log"
    assert {row.request_id: row.why for row in open_requests(log, "reviews", version="1")} == {
        "chatcmpl-1": "lot",
        "chatcmpl-2": "doubt",
        "chatcmpl-3": "doubt",
    }


def test_labels_that_doubt_chose_are_no_evidence_of_decay(log: sqlalchemy.Engine, asked: list[Prediction]) -> None:
    for row in asked[1:]:
        label(log, row)
    found, number = newly_labelled(log, "reviews", "1", 0)
    assert [row.id for row in found] == ["chatcmpl-1", "chatcmpl-3"], "drawn by chance, and given unasked"
    assert newly_labelled(log, "reviews", "1", number) == ([], number)


def test_yet_they_are_trained_on(log: sqlalchemy.Engine, asked: list[Prediction]) -> None:
    for row in asked[1:]:
        label(log, row)
    assert {row.id: row.source for row in labelled_examples(log, "reviews")} == {
        "chatcmpl-1": "traffic",
        "chatcmpl-2": "traffic in doubt",
        "chatcmpl-3": "traffic",
    }


def test_nor_do_they_count_in_a_trial(log: sqlalchemy.Engine, asked: list[Prediction]) -> None:
    for row in asked:
        label(log, row)
    found = outcomes_of(log, "reviews", "1", "champion", asked[0].time, 10)
    assert [row.label for row in found] == ["bad", "bad", None, "bad"]
    assert [row.first_feedback is None for row in found] == [False, False, True, False]


def test_requests_go_with_their_predictions(log: sqlalchemy.Engine, asked: list[Prediction]) -> None:
    delete_older(log, "reviews", asked[2].time)
    assert [row.request_id for row in open_requests(log, "reviews", version="1")] == ["chatcmpl-2"]
    delete_older(log, "reviews", NOW + timedelta(days=1))
    with log.connect() as connection:
        assert connection.execute(sqlalchemy.text("select count(*) from label_requests")).scalar_one() == 0
