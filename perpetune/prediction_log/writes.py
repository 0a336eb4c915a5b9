"""Writes to the prediction log: answers, feedback, shadows and failures, and the deletion of old ones."""

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    Engine,
    bindparam,
    cast,
    delete,
    exists,
    func,
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

    All feedback is kept, and the newest row counts. What only repeats the newest row (same label, score and comment)
    adds none.
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
    """INSERT of a row that says something else than the newest row of its answer does.

    A row that was stored before, and is written again after a crash, has the same digest.
    """
    given = {name: _given(log, name) for name in _COLUMNS}
    newest = select(func.max(feedback.c.id)).where(feedback.c.request_id == given["request_id"]).scalar_subquery()
    same = [feedback.c[name].is_not_distinct_from(given[name]) for name in _CONTENT]
    row = select(*given.values()).where(~exists().where(feedback.c.id == newest, *same))
    return _insert(log)(feedback).from_select(_COLUMNS, row).on_conflict_do_nothing()


_CONTENT = ("label", "score", "comment")
_COLUMNS = ("request_id", "time", *_CONTENT, "digest")


def _given(log: Engine, name: str) -> Any:
    """The parameter of a column."""
    kind = feedback.c[name].type
    parameter = bindparam(f"given_{name}", type_=kind)
    # PostgreSQL knows no type of a parameter in a SELECT. SQLite would cast a time to the number of its year.
    return parameter if log.dialect.name == "sqlite" else cast(parameter, kind)


def _feedback_row(given: Feedback) -> dict[str, object]:
    content = json.dumps([given.label, given.score, given.comment, given.time.astimezone(UTC).isoformat()])
    row = {**given.model_dump(), "digest": hashlib.sha256(content.encode()).hexdigest()}
    return {f"given_{name}": value for name, value in row.items()}
