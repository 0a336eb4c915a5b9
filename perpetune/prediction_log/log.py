"""The prediction log: every request, its answer and the feedback on it, in one SQL database.

SQLite by default (write-ahead log, so that readers never wait), PostgreSQL in production.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import (
    Connection,
    Engine,
    Row,
    Select,
    case,
    create_engine,
    delete,
    event,
    func,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DisconnectionError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from perpetune.curation.sources import IN_DOUBT, TRAFFIC
from perpetune.curation.text import fingerprint, normalised
from perpetune.errors import PerpetuneError
from perpetune.prediction_log.label_requests import requested_for_uncertainty
from perpetune.prediction_log.storable import storable_tree
from perpetune.prediction_log.tables import failures, feedback, predictions, shadows
from perpetune.records import Example, Failure, Feedback, Message, Prediction, Shadow

BUSY_SECONDS = 5.0
_MIGRATION_LOCK = 0x70657270  # the key of PostgreSQL's advisory lock, an arbitrary constant
_one_migration = threading.Lock()  # Alembic's context is global to the process


class UnknownRequest(PerpetuneError):
    """Feedback names a request that is not in the log."""

    def __init__(self, request_id: str) -> None:
        super().__init__(f"there is no request {request_id!r} in the log", do="send the id of an answer of this server")


@dataclass(frozen=True)
class Counts:
    """Row counts of one task. `versions` maps a model version to its number of answers."""

    predictions: int
    labelled: int
    scored: int
    newest: datetime | None
    versions: dict[str, int]


def open_log(url: str) -> Engine:
    """Open the log at a SQLAlchemy URL and create or upgrade its tables. Several processes may do so at once.

    Raises PerpetuneError, without the URL's password, if the database cannot be reached or written, or was created by
    a newer perpetune.
    """
    target = _parse(url)
    shown = target.set(query={}).render_as_string(hide_password=True)
    engine = _sqlite(target) if target.get_backend_name() == "sqlite" else _postgresql(target)
    try:
        _migrate(engine)
    except CommandError:
        raise PerpetuneError(
            "the prediction log was created by a newer perpetune", where=shown, do="upgrade perpetune here too"
        ) from None
    except SQLAlchemyError as fault:
        raise PerpetuneError(
            f"the prediction log cannot be opened: {error_text(fault)}",
            where=shown,
            do="check that the database is up and writable, or set PERPETUNE_DATABASE_URL to another",
        ) from None
    return engine


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
    with _writing(log) as connection:
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
    with _writing(log) as connection:
        known = connection.execute(select(predictions.c.id).where(predictions.c.id == given.request_id)).first()
        if known is None:
            raise UnknownRequest(given.request_id)
        connection.execute(_feedback_insert(log), [_feedback_row(given)])


def recent_predictions(
    log: Engine,
    task: str,
    *,
    version: str | None = None,
    since: datetime | None = None,
    limit: int | None,
) -> list[Prediction]:
    """The newest `limit` predictions (None: all), oldest first, each with its newest label and its newest score."""
    return _read(log, _newest(task, version, since, limit))


def delete_older(log: Engine, task: str, before: datetime, *, limit: int = 500) -> int:
    """Delete up to `limit` predictions (with their feedback and shadows) and up to `limit` failures before a time.

    Returns the number of deleted predictions and failures: 0 if none is older than `before`.
    """
    deleted = 0
    with _writing(log) as connection:
        for table in (predictions, failures):
            old = select(table.c.id).where(table.c.task == task, table.c.time < before)
            old = old.order_by(table.c.time).limit(limit)
            deleted += connection.execute(delete(table).where(table.c.id.in_(old.scalar_subquery()))).rowcount
    return deleted


def newly_labelled(
    log: Engine, task: str, version: str, after: int, newest: int | None = None
) -> tuple[list[Prediction], int]:
    """The version's predictions whose first label has a feedback id above `after`, of any age.

    Returns them in the order of their labels (only the `newest` ones; None for all) and the id to continue after, so
    that every label is used once, however checks are scheduled. Labels requested because the model was unsure are left
    out: they would look like decay.
    """
    first = (
        select(feedback.c.request_id, func.min(feedback.c.id).label("number"))
        .where(feedback.c.label.is_not(None))
        .group_by(feedback.c.request_id)
        .subquery()
    )
    rows = _newest(task, version, None, None).join(first, first.c.request_id == predictions.c.id)
    rows = rows.add_columns(first.c.number).where(first.c.number > after, ~requested_for_uncertainty(predictions.c.id))
    rows = rows.order_by(None).order_by(first.c.number.desc()).limit(newest)
    with log.connect() as connection:
        found = connection.execute(rows).all()
    return [_prediction(row) for row in reversed(found)], found[0].number if found else after


def labelled_examples(log: Engine, task: str) -> list[Example]:
    """Labelled traffic as training data, oldest first. Answers with only a score are left out.

    The source marks labels that were requested because the model was unsure of its answer.
    """
    labelled = _newest(task, None, None, None).where(_newest_feedback("label").is_not(None))
    with log.connect() as connection:
        rows = connection.execute(
            labelled.add_columns(requested_for_uncertainty(predictions.c.id).label("in_doubt"))
        ).all()
    return [_example(_prediction(row), IN_DOUBT if row.in_doubt else TRAFFIC) for row in reversed(rows)]


def labelled_since(log: Engine, task: str, since: datetime | None) -> int:
    """The number of answers whose first label came at or after this time; None: all labelled answers."""
    first = func.min(feedback.c.time)
    of_task = feedback.join(predictions, feedback.c.request_id == predictions.c.id)
    labelled = select(feedback.c.request_id).select_from(of_task).where(predictions.c.task == task)
    labelled = labelled.where(feedback.c.label.is_not(None)).group_by(feedback.c.request_id)
    if since is not None:
        labelled = labelled.having(first >= since)
    with log.connect() as connection:
        return connection.execute(select(func.count()).select_from(labelled.subquery())).scalar_one()


def answered_since(log: Engine, task: str, since: datetime) -> tuple[int, datetime | None]:
    """The number of answers at or after this time, and the time of the first."""
    of_task = (predictions.c.task == task) & (predictions.c.time >= since)
    with log.connect() as connection:
        count, first = connection.execute(select(func.count(), func.min(predictions.c.time)).where(of_task)).one()
    return count, first


def labelled_history(log: Engine, task: str) -> list[tuple[Prediction, Example, datetime]]:
    """Labelled answers, oldest first: the prediction, the example, and the time of its newest label.

    Labels requested because the model was unsure are left out: they would look like decay.
    """
    known = (
        select(feedback.c.time)
        .where(feedback.c.request_id == predictions.c.id, feedback.c.label.is_not(None))
        .order_by(feedback.c.time.desc(), feedback.c.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    labelled = _newest(task, None, None, None).where(
        _newest_feedback("label").is_not(None), ~requested_for_uncertainty(predictions.c.id)
    )
    with log.connect() as connection:
        rows = connection.execute(labelled.add_columns(known.label("known"))).all()
    found = [(_prediction(row), row.known) for row in reversed(rows)]
    return [(prediction, _example(prediction, TRAFFIC), when) for prediction, when in found]


def counts(log: Engine, task: str) -> Counts:
    """Row counts of this task."""
    of_task = predictions.c.task == task
    with_predictions = feedback.join(predictions, feedback.c.request_id == predictions.c.id)

    def with_value(column: str) -> Select[tuple[int]]:
        distinct = func.count(feedback.c.request_id.distinct())
        return select(distinct).select_from(with_predictions).where(of_task, feedback.c[column].is_not(None))

    with log.connect() as connection:
        versions = connection.execute(
            select(predictions.c.version, func.count()).where(of_task).group_by(predictions.c.version)
        ).all()
        return Counts(
            predictions=sum(count for _, count in versions),
            labelled=connection.execute(with_value("label")).scalar_one(),
            scored=connection.execute(with_value("score")).scalar_one(),
            newest=connection.execute(select(func.max(predictions.c.time)).where(of_task)).scalar_one(),
            versions={row[0]: row[1] for row in versions},
        )


def error_text(fault: Exception) -> str:
    """The database's error message in one line, without the statement and its values."""
    cause = getattr(fault, "orig", None) or fault
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0]


def _parse(url: str) -> URL:
    example = "sqlite:////var/lib/perpetune/predictions.db or postgresql://USER:PASSWORD@HOST/DATABASE"
    try:
        target = make_url(url)
    except (ArgumentError, ValueError):
        raise PerpetuneError("PERPETUNE_DATABASE_URL is not a database URL", do=f"write it like {example}") from None
    if "@" in (target.host or ""):
        raise PerpetuneError("the password in PERPETUNE_DATABASE_URL has an unescaped @", do="write it as %40")
    if target.drivername == "postgres":
        target = target.set(drivername="postgresql")
    if target.drivername in ("postgresql", "postgresql+psycopg"):
        return target.set(drivername="postgresql+psycopg")
    if target.drivername in ("sqlite", "sqlite+pysqlite") and target.database not in (None, "", ":memory:"):
        return target
    raise PerpetuneError(
        f"the prediction log does not support {target.drivername}, only PostgreSQL and SQLite files",
        do=f"set PERPETUNE_DATABASE_URL like {example}",
    )


def _postgresql(target: URL) -> Engine:
    patience = {"connect_timeout": "5", "tcp_user_timeout": "10000"}  # seconds; milliseconds
    return create_engine(target.set(query={**patience, **target.query}), pool_pre_ping=True)


def _sqlite(target: URL) -> Engine:
    path = Path(str(target.database)).absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as fault:
        raise PerpetuneError(
            f"the prediction log cannot be created: {fault.strerror}",
            where=str(path),
            do="free the path, or set PERPETUNE_DATABASE_URL to another",
        ) from None

    def connect() -> sqlite3.Connection:
        # mode=rw: a missing file is an error, not a new and empty log.
        return sqlite3.connect(
            f"{path.as_uri()}?mode=rw", uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )

    engine = create_engine(target, creator=connect, poolclass=QueuePool)
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)

    @event.listens_for(engine, "connect")
    def remember_file(_connection: sqlite3.Connection, entry: ConnectionPoolEntry) -> None:
        entry.info["file"] = _identity(path)

    @event.listens_for(engine, "checkout")
    def refuse_other_file(_connection: sqlite3.Connection, entry: ConnectionPoolEntry, _proxy: object) -> None:
        # Writes to a deleted or replaced file succeed and are lost: reconnect instead.
        if entry.info["file"] != _identity(path):
            raise DisconnectionError

    return engine


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _set_up_sqlite(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
    _enter_wal(connection)
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")


def _enter_wal(connection: sqlite3.Connection) -> None:
    """Switch to the write-ahead log. SQLite's busy timeout does not cover this step, so wait here."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as fault:
            if fault.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads before it writes takes the write lock at once, because SQLite cannot upgrade it later.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def _writing(log: Engine) -> Iterator[Connection]:
    with log.connect().execution_options(writes=True) as connection, connection.begin():
        yield connection


def _migrate(log: Engine) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    with _one_migration, _writing(log) as connection:
        if log.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


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


def _newest_feedback(column: str) -> Any:
    """The newest value of a feedback column for each prediction."""
    newest = select(feedback.c[column]).where(
        feedback.c.request_id == predictions.c.id, feedback.c[column].is_not(None)
    )
    return newest.order_by(feedback.c.time.desc(), feedback.c.id.desc()).limit(1).scalar_subquery()


def _newest(task: str, version: str | None, since: datetime | None, limit: int | None) -> Select[Any]:
    rows = select(predictions, _newest_feedback("label").label("label"), _newest_feedback("score").label("score"))
    rows = rows.where(predictions.c.task == task)
    if version is not None:
        rows = rows.where(predictions.c.version == version)
    if since is not None:
        rows = rows.where(predictions.c.time >= since)
    return rows.order_by(predictions.c.time.desc(), predictions.c.id.desc()).limit(limit)


def _read(log: Engine, newest_first: Select[Any]) -> list[Prediction]:
    with log.connect() as connection:
        rows = connection.execute(newest_first).all()
    return [_prediction(row) for row in reversed(rows)]


def _prediction(row: Row[Any]) -> Prediction:
    return Prediction.model_validate({name: row._mapping[name] for name in Prediction.model_fields})


def _example(prediction: Prediction, source: str) -> Example:
    assert prediction.label is not None
    is_single_turn = prediction.messages == (Message(role="user", content=prediction.input),)
    return Example(
        input=prediction.input,
        output=prediction.label,
        id=prediction.id,
        group=prediction.group or fingerprint(normalised(prediction.input)),
        time=prediction.time,
        source=source,
        messages=() if is_single_turn else prediction.messages,
    )
