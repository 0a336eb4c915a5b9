"""The newest requests that stand for a whole day: at night people ask for other things, and that comes again every night."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import numpy as np
from sqlalchemy import Engine, select

from perpetune.prediction_log.answers.cut_off import is_whole
from perpetune.prediction_log.labels.rule import ANY_LABEL, LabelRule
from perpetune.prediction_log.queries import BATCH, newest_predictions, prediction_of, recent_predictions
from perpetune.prediction_log.tables import predictions
from perpetune.records import Prediction

DAY = timedelta(days=1)


def predictions_of_a_day(
    log: Engine, task: str, version: str, limit: int, rule: LabelRule = ANY_LABEL
) -> list[Prediction]:
    """The newest `limit` predictions of a version; if these are of less than a day, as many of its last 24 hours.

    Those are at even distances, so that times of day count as they occur. Oldest first, and else as `recent_predictions`.
    """
    newest = recent_predictions(log, task, version=version, limit=limit, rule=rule)
    if len(newest) < limit or newest[-1].time - newest[0].time >= DAY:
        return newest
    since = newest[-1].time - DAY
    of_version = (predictions.c.task == task, predictions.c.version == version, predictions.c.time > since)
    ids = select(predictions.c.id).where(*of_version, is_whole()).order_by(predictions.c.time, predictions.c.id)
    with log.connect() as connection:
        wanted = evenly(connection.execute(ids).scalars().all(), limit)
        rows = newest_predictions(task, version, rule.accepted(connection, task))
        found = [
            prediction_of(row, rule)
            for first in range(0, len(wanted), BATCH)
            for row in connection.execute(rows.where(predictions.c.id.in_(wanted[first : first + BATCH])))
        ]
    return sorted(found, key=lambda row: (row.time, row.id))


def evenly(names: Sequence[str], most: int) -> list[str]:
    """At most so many of the names, at even distances: the first, the last, and others between them."""
    if not names:
        return []
    places = np.unique(np.linspace(0, len(names) - 1, min(len(names), most)).round()).astype(int)
    return [names[place] for place in places]
