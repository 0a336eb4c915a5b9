"""Writes to the prediction log: answers, feedback, shadows and failures, and the deletion of old ones."""

import hashlib
import json
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Table,
    TextClause,
    bindparam,
    cast,
    delete,
    exists,
    func,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite

from perpetune.errors import PerpetuneError
from perpetune.prediction_log.database import writing
from perpetune.prediction_log.storable import storable, storable_tree
from perpetune.prediction_log.tables import failures, feedback, predictions, shadows
from perpetune.records import Failure, Feedback, Prediction, Shadow

_LOOKED_UP = 500  # ids in one query


class UnknownRequest(PerpetuneError):
    """Feedback names a request that is not in the log."""

    def __init__(self, request_id: str) -> None:
        super().__init__(f"there is no request {request_id!r} in the log", do="send the id of an answer of this server")


class UnknownChoice(UnknownRequest):
    """Feedback names an answer that the request does not have."""

    def __init__(self, request_id: str, choice: int, choices: int) -> None:
        PerpetuneError.__init__(
            self,
            f"request {request_id!r} has no answer {choice}",
            do=f"send an index from 0 to {choices - 1}" if choices > 1 else "leave the index out: it has one answer",
        )


def record_rows(log: Engine, rows: Sequence[Prediction | Feedback | Shadow | Failure]) -> None:
    """Store rows of all kinds in one transaction. Idempotent.

    Feedback and shadows need their prediction, in the log or among the rows; otherwise nothing is stored and
    IntegrityError is raised.
    """
    prediction_rows = [_prediction_row(row) for row in rows if isinstance(row, Prediction)]
    feedback_rows = [_feedback_row(row) for row in rows if isinstance(row, Feedback)]
    shadow_rows = [row.model_dump() for row in rows if isinstance(row, Shadow)]
    failure_rows = [row.model_dump() for row in rows if isinstance(row, Failure)]
    if not rows:
        return
    with writing(log) as connection:
        for table, content in ((predictions, prediction_rows), (shadows, shadow_rows), (failures, failure_rows)):
            if content:
                connection.execute(_insert_of(table, tuple(content[0])), content)
        if feedback_rows:
            connection.execute(_feedback_insert(log), feedback_rows)


def add_feedback(log: Engine, given: Feedback) -> str:
    """Store feedback on an answer; returns the answer's id.

    All feedback is kept, and the newest row counts. What only repeats the newest row (same label, score, comment and
    choice) adds none. Raises UnknownRequest if the log has no such answer, and UnknownChoice.
    """
    [found] = add_feedback_rows(log, [given])
    if isinstance(found, UnknownRequest):
        raise found
    return found


def add_feedback_rows(log: Engine, given: Sequence[Feedback], task: str | None = None) -> list[str | UnknownRequest]:
    """Store feedback as `add_feedback` does, in one transaction; returns the id of each answer, or the error.

    With `task`, ids are looked up among its requests only: another task has other labels, and its client may use the
    same ids of its own.
    """
    with writing(log) as connection:
        ids = _answer_ids(connection, {row.request_id for row in given}, task)
        several = {ids[row.request_id] for row in given if row.choice and row.request_id in ids}
        choices = _choice_counts(connection, several)
        found = [_checked(row, ids.get(row.request_id), choices) for row in given]
        rows = [
            _feedback_row(row.model_copy(update={"request_id": answer}))
            for row, answer in zip(given, found, strict=True)
            if isinstance(answer, str)
        ]
        if rows:
            connection.execute(_feedback_insert(log), rows)
    return found


def require_choice(given: Feedback, choices: int) -> None:
    """Raises UnknownChoice if the request has fewer answers."""
    if given.choice >= choices:
        raise UnknownChoice(given.request_id, given.choice, choices)


def _checked(given: Feedback, answer: str | None, choices: dict[str, int]) -> str | UnknownRequest:
    if answer is None:
        return UnknownRequest(given.request_id)
    try:
        require_choice(given, choices.get(answer, 1))
    except UnknownChoice as fault:
        return fault
    return answer


def _answer_ids(connection: Connection, request_ids: Collection[str], task: str | None) -> dict[str, str]:
    """The id of the answer for each request id: that itself, or the newest answer to a request with this id of its own."""
    stored = {name: storable(name) for name in request_ids}
    answers = _rows_with(connection, predictions.c.id, stored.values())
    known = {row.id: row.id for row in answers if task is None or row.task == task}
    others = [name for name in stored.values() if name not in known]
    # Oldest first, so that the newest stays in the dict.
    own = {
        row.client_id: row.id
        for row in _rows_with(connection, predictions.c.client_id, others)
        if task is None or row.task == task
    }
    return {name: found for name in stored if (found := known.get(stored[name]) or own.get(stored[name]))}


def _choice_counts(connection: Connection, ids: Collection[str]) -> dict[str, int]:
    return {row.id: 1 + len(row.other_outputs or ()) for row in _rows_with(connection, predictions.c.id, ids)}


def _rows_with(connection: Connection, column: ColumnElement[str], values: Collection[str]) -> list[Any]:
    """The predictions in which the column has one of the values, oldest first."""
    columns = (predictions.c.id, predictions.c.task, predictions.c.client_id, predictions.c.other_outputs)
    rows: list[Any] = []
    wanted = list(values)
    for first in range(0, len(wanted), _LOOKED_UP):
        found = select(*columns).where(column.in_(wanted[first : first + _LOOKED_UP]))
        rows += connection.execute(found.order_by(predictions.c.time)).all()
    return rows


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


def count_older(log: Engine, task: str, before: datetime) -> int:
    """How many predictions and failures `delete_older` would delete in all its batches."""
    with log.connect() as connection:
        return sum(
            connection.execute(
                select(func.count()).select_from(table).where(table.c.task == task, table.c.time < before)
            ).scalar_one()
            for table in (predictions, failures)
        )


def _insert(log: Engine) -> Any:
    """The dialect's INSERT; both support the same ON CONFLICT."""
    return sqlite.insert if log.dialect.name == "sqlite" else postgresql.insert


@cache
def _insert_of(table: Table, columns: tuple[str, ...]) -> TextClause:
    """INSERT of rows with these columns that are not there yet.

    As text, because SQLAlchemy compiles its own ON CONFLICT again for each group of rows, which takes as long as ten rows.
    """
    named = ", ".join(f'"{name}"' for name in columns)
    given = ", ".join(f":{name}" for name in columns)
    insert = text(f'INSERT INTO "{table.name}" ({named}) VALUES ({given}) ON CONFLICT DO NOTHING')
    return insert.bindparams(*(bindparam(name, type_=table.c[name].type) for name in columns))


_OF_FEEDBACK = {"label", "score", "chosen", "propensity", "weight"}


def _prediction_row(prediction: Prediction) -> dict[str, object]:
    messages = [storable_tree(message.model_dump(exclude_none=True)) for message in prediction.messages]
    others = storable_tree(prediction.other_outputs) or None
    return {**prediction.model_dump(exclude=_OF_FEEDBACK), "messages": messages, "other_outputs": others}


def _feedback_insert(log: Engine) -> Any:
    """INSERT of a row that says something else than the newest row of its answer does.

    A row that was stored before, and is written again after a crash, has the same digest.
    """
    given = {name: _given(log, name) for name in _COLUMNS}
    newest = select(func.max(feedback.c.id)).where(feedback.c.request_id == given["request_id"]).scalar_subquery()
    same = [feedback.c[name].is_not_distinct_from(given[name]) for name in _CONTENT]
    row = select(*given.values()).where(~exists().where(feedback.c.id == newest, *same))
    return _insert(log)(feedback).from_select(_COLUMNS, row).on_conflict_do_nothing()


_CONTENT = ("label", "score", "comment", "choice", "propensity")

_COLUMNS = ("request_id", "time", *_CONTENT, "digest")


def _given(log: Engine, name: str) -> Any:
    """The parameter of a column."""
    kind = feedback.c[name].type
    parameter = bindparam(f"given_{name}", type_=kind)
    # PostgreSQL knows no type of a parameter in a SELECT. SQLite would cast a time to the number of its year.
    return parameter if log.dialect.name == "sqlite" else cast(parameter, kind)


def _feedback_row(given: Feedback) -> dict[str, object]:
    said: list[object] = [given.label, given.score, given.comment, given.choice, given.time.astimezone(UTC).isoformat()]
    # Without one the digest is that of older perpetunes, so that their spools are stored once.
    content = json.dumps(said if given.propensity is None else [*said, given.propensity])
    row = {**given.model_dump(), "digest": hashlib.sha256(content.encode()).hexdigest()}
    return {f"given_{name}": value for name, value in row.items()}
