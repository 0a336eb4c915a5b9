"""Labels of requests that are so old that none of theirs is waited for: they show how long labels take."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Engine, func, select

from perpetune.prediction_log.labels.delays import SETTLED, LabelledGroup
from perpetune.prediction_log.labels.rule import ANY_LABEL, LabelRule
from perpetune.prediction_log.tables import feedback, predictions

NEWEST = 1000


def past_labels(log: Engine, task: str, now: datetime, rule: LabelRule = ANY_LABEL) -> LabelledGroup:
    """The newest labelled requests, of any version, that are at least `SETTLED` old."""
    first = func.min(feedback.c.time).label("labelled")
    of_task = feedback.join(predictions, feedback.c.request_id == predictions.c.id)
    with log.connect() as connection:
        mine = (predictions.c.task == task, predictions.c.time <= now - SETTLED, rule.accepted(connection, task))
        rows = select(predictions.c.time, first).select_from(of_task).where(*mine)
        newest = rows.group_by(predictions.c.id, predictions.c.time).order_by(predictions.c.time.desc()).limit(NEWEST)
        return LabelledGroup([(row.time, row.labelled) for row in connection.execute(newest)])
