"""Which of the requests of a time have labels, and how they came: what is known of the selection of unasked labels."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, func, select

from perpetune.prediction_log.admission import settled_until
from perpetune.prediction_log.cut_off import is_whole
from perpetune.prediction_log.label_rule import ANY_LABEL, LabelRule
from perpetune.prediction_log.queries import newest_predictions, prediction_of
from perpetune.prediction_log.tables import feedback, label_requests, predictions
from perpetune.records import Prediction

MOST = 3000  # newest requests


@dataclass(frozen=True)
class Selected:
    """A request, and whether its label came before anybody asked for it.

    `settled`: it is so old that its label would have come by now, if it ever does.
    """

    prediction: Prediction
    unasked: bool
    settled: bool


def selection(
    log: Engine, task: str, version: str | None, now: datetime, rule: LabelRule = ANY_LABEL, limit: int = MOST
) -> list[Selected]:
    """The newest `limit` requests of the version; None: of all versions."""
    with log.connect() as connection:
        accepted = rule.accepted(connection, task)
        until = settled_until(connection, task, version, now, accepted)
        first = select(func.min(feedback.c.time)).where(feedback.c.request_id == predictions.c.id, accepted)
        rows = newest_predictions(task, version, accepted, limit=limit).where(is_whole())
        columns = (label_requests.c.time.label("asked"), first.scalar_subquery().label("labelled"))
        found = connection.execute(rows.add_columns(*columns)).all()
    return [
        Selected(
            prediction_of(row, rule),
            unasked=row.labelled is not None and (row.asked is None or row.labelled < row.asked),
            settled=row.time <= until,
        )
        for row in found
    ]
