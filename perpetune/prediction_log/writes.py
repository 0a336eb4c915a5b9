"""Writes to the prediction log: answers, feedback, shadows and failures, and the deletion of old ones."""

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Engine,
    case,
    delete,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

from perpetune.errors import PerpetuneError
from perpetune.prediction_log.database import writing
from perpetune.prediction_log.storable import storable_tree
from perpetune.prediction_log.tables import failures, feedback, predictions, shadows
from perpetune.records import Failure, Feedback, Prediction, Shadow


class UnknownRequest(PerpetuneError):
    """Feedback names a request that is not in the log."""

    def __init__(self, request_id: str) -> None:
        super().__init__(f"there is no request {request_id!r} in the log", do="send the id of an answer of this server")


def record_rows(log: Engine, rows: Sequence[Prediction | Feedback | Shadow | Failure]) -> None:
    """Store rows of all kinds in one transaction. Idempotent.

    Feedback and shadows need their prediction, in the log or among the rows; otherwise nothing is stored and
    IntegrityError is raised.
    """
    prediction_rows = [_prediction_row(row) for row in rows if isinstance(row, Prediction)]
    feedback_rows = [_feedback_row(row) for row in rows if isinstance(row, Feedback)]
    shadow_rows = [row.model_dump() for row in rows if isinstance(row, Shadow)]
    failure_rows = [row.model_dump() for row in rows if isinstance(row, Failure)]
    insert = _insert(log)
    if not rows:
        return
    with writing(log) as connection:
        for table, content in ((predictions, prediction_rows), (shadows, shadow_rows), (failures, failure_rows)):
            if content:
                connection.execute(insert(table).on_conflict_do_nothing(), content)
        if feedback_rows:
            connection.execute(_feedback_insert(log), feedback_rows)


def add_feedback(log: Engine, given: Feedback) -> None:
    """Store feedback on an answer. Raises UnknownRequest if the log has no such answer.

    All feedback is kept. An exact repeat (same label, score and comment) adds no row but updates the time, so that the
    newest feedback counts.
    """
    with writing(log) as connection:
        known = connection.execute(select(predictions.c.id).where(predictions.c.id == given.request_id)).first()
        if known is None:
            raise UnknownRequest(given.request_id)
        connection.execute(_feedback_insert(log), [_feedback_row(given)])


def delete_older(log: Engine, task: str, before: datetime, *, limit: int = 500) -> int:
    """Delete up to `limit` predictions (with their feedback and shadows) and up to `limit` failures before a time.

    Returns the number of deleted predictions and failures: 0 if none is older than `before`.
    """
    deleted = 0
    with writing(log) as connection:
        for table in (predictions, failures):
            old = select(table.c.id).where(table.c.task == task, table.c.time < before)
            old = old.order_by(table.c.time).limit(limit)
            deleted += connection.execute(delete(table).where(table.c.id.in_(old.scalar_subquery()))).rowcount
    return deleted


def _insert(log: Engine) -> Any:
    """The dialect's INSERT; both support the same ON CONFLICT."""
    return sqlite.insert if log.dialect.name == "sqlite" else postgresql.insert


def _prediction_row(prediction: Prediction) -> dict[str, object]:
    messages = [storable_tree(message.model_dump(exclude_none=True)) for message in prediction.messages]
    return {**prediction.model_dump(exclude={"label", "score"}), "messages": messages}


def _feedback_insert(log: Engine) -> Any:
    """INSERT that updates the time of an exact repeat if it is newer."""
    statement = _insert(log)(feedback)
    newer = case((statement.excluded.time > feedback.c.time, statement.excluded.time), else_=feedback.c.time)
    return statement.on_conflict_do_update(index_elements=["request_id", "digest"], set_={"time": newer})


def _feedback_row(given: Feedback) -> dict[str, object]:
    content = json.dumps([given.label, given.score, given.comment])
    return {**given.model_dump(), "digest": hashlib.sha256(content.encode()).hexdigest()}
