"""A prediction log with labels that cannot be right, and what each of its readings makes of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import sqlalchemy

from perpetune.prediction_log.answers.trial_outcomes import outcomes_of, shadow_outcomes
from perpetune.prediction_log.labels.requests import Drawn, count_open, open_requests, request_labels
from perpetune.prediction_log.labels.rule import LabelRule
from perpetune.prediction_log.queries import (
    counts,
    labelled_examples,
    labelled_history,
    labelled_since,
    newly_labelled,
    recent_predictions,
)
from perpetune.prediction_log.writes import record_rows
from perpetune.records import Prediction, Shadow

Make = Callable[..., Prediction]
RULE = LabelRule(("negative", "positive"))
BAD = ("thumbs_up", "1", " ", "👍", "x" * 200_000, "o'clock\"")


def written_by_hand(log: sqlalchemy.Engine, *said: tuple[str, str | None, float | None]) -> None:
    """Feedback as SQL of a team may write it: (request id, label, score)."""
    with log.begin() as connection:
        for number, (request_id, label, score) in enumerate(said):
            connection.execute(
                sqlalchemy.text(
                    "insert into feedback (request_id, time, label, score, digest) values (:id, :time, :label, :score, :n)"
                ),
                {
                    "id": request_id,
                    "time": "2024-05-01 13:00:00.000000",
                    "label": label,
                    "score": score,
                    "n": str(number),
                },
            )


def check_every_reading(log: sqlalchemy.Engine, prediction: Make) -> None:
    """Six answers of which number 0 got a right label, 1 a right and then a bad one, and the others bad ones."""
    asked = [prediction(number) for number in range(7)]
    shadows = [
        Shadow(request_id=row.id, time=row.time, task="reviews", version="2", output="negative", latency_ms=1)
        for row in asked
    ]
    record_rows(log, [*asked, *shadows])
    request_labels(log, [Drawn(row.id, "lot", weight=1.0) for row in asked], asked[0].time)
    bad = [(asked[1 + number].id, label, 5.0) for number, label in enumerate(BAD)]
    written_by_hand(log, (asked[0].id, " Positive", 0.5), (asked[1].id, "negative", None), *bad)
    wanted = {asked[0].id: "positive", asked[1].id: "negative"}

    recent = recent_predictions(log, "reviews", limit=None, rule=RULE)
    assert {row.id: row.label for row in recent if row.label is not None} == wanted
    assert {row.id: row.score for row in recent if row.score is not None} == {asked[0].id: 0.5}
    new, _ = newly_labelled(log, "reviews", "1", 0, rule=RULE)
    assert [(row.id, row.label) for row in new] == [*wanted.items()]
    assert {row.id: row.output for row in labelled_examples(log, "reviews", RULE)} == wanted
    assert {row.id: example.output for row, example, _ in labelled_history(log, "reviews", RULE)} == wanted
    assert labelled_since(log, "reviews", None, RULE) == 2
    found = counts(log, "reviews", RULE)
    assert (found.labelled, found.ignored, found.scored) == (2, 5, 7)
    since = asked[0].time - timedelta(days=1)
    outcomes = outcomes_of(log, "reviews", "1", "champion", since, 100, RULE)
    assert {each.id: each.label for each in outcomes if each.label is not None} == wanted
    assert {each.id for each in outcomes if each.first_feedback is not None} == wanted.keys()
    pairs = shadow_outcomes(log, "reviews", "2", since, 100, RULE)
    assert {each.id: each.label for each, _ in pairs if each.label is not None} == wanted
    assert {each.request_id for each in open_requests(log, "reviews", rule=RULE)} == {row.id for row in asked[2:]}
    assert count_open(log, "reviews", RULE) == 5
