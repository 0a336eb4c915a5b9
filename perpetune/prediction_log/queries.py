"""Reads of the prediction log: recent predictions, new labels, labelled examples and counts."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Engine,
    Row,
    Select,
    func,
    select,
)

from perpetune.curation.sources import IN_DOUBT, TRAFFIC
from perpetune.curation.text import fingerprint, normalised
from perpetune.prediction_log.cut_off import is_whole
from perpetune.prediction_log.label_requests import requested_for_uncertainty
from perpetune.prediction_log.tables import feedback, predictions
from perpetune.records import Example, Message, Prediction


@dataclass(frozen=True)
class Counts:
    """Row counts of one task. `versions` maps a model version to its number of answers."""

    predictions: int
    labelled: int
    scored: int
    newest: datetime | None
    versions: dict[str, int]


def recent_predictions(
    log: Engine,
    task: str,
    *,
    version: str | None = None,
    since: datetime | None = None,
    limit: int | None,
) -> list[Prediction]:
    """The newest `limit` predictions (None: all), oldest first, each with its newest label and its newest score.

    Answers that were cut off are left out, here and below where answers are judged: they are not what the version says.
    """
    return _read(log, _newest(task, version, since, limit).where(is_whole()))


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
    rows = rows.where(is_whole())
    rows = rows.order_by(None).order_by(first.c.number.desc()).limit(newest)
    with log.connect() as connection:
        found = connection.execute(rows).all()
    return [_prediction(row) for row in reversed(found)], found[0].number if found else after


def labelled_examples(log: Engine, task: str) -> list[Example]:
    """Labelled traffic as training data, oldest first. Answers with only a score are left out.

    The source marks labels that were requested because the model was unsure of its answer. The label of an answer that
    was cut off is as good as any: it is of the input.
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
        _newest_feedback("label").is_not(None), ~requested_for_uncertainty(predictions.c.id), is_whole()
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
