"""Reads of the prediction log: recent predictions, new labels, labelled examples and counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Row,
    Select,
    case,
    func,
    select,
)

from perpetune.curation.rows.sources import IN_DOUBT, TRAFFIC
from perpetune.curation.text import fingerprint, normalised
from perpetune.prediction_log.answers.cut_off import is_whole
from perpetune.prediction_log.labels.provenance import joined, may_judge, provenance, provenance_columns
from perpetune.prediction_log.labels.rule import ANY_LABEL, LabelRule, is_score
from perpetune.prediction_log.tables import answer_counts, feedback, predictions
from perpetune.records import Example, Message, Prediction

BATCH = 500  # ids in one query


@dataclass(frozen=True)
class Counts:
    """Row counts of one task. `versions` maps a model version to its number of answers.

    `labelled` counts answers with a label that the rule accepts, `ignored` those with labels that it only refuses.
    """

    predictions: int
    labelled: int
    scored: int
    newest: datetime | None
    versions: dict[str, int]
    ignored: int = 0


def recent_predictions(
    log: Engine,
    task: str,
    *,
    version: str | None = None,
    since: datetime | None = None,
    limit: int | None,
    rule: LabelRule = ANY_LABEL,
) -> list[Prediction]:
    """The newest `limit` predictions (None: all), oldest first, each with its newest label and its newest score.

    Here and below, labels that the rule refuses count as none. Answers that were cut off are left out here and below,
    if answers are judged: they are not what the version says.
    """
    with log.connect() as connection:
        newest_first = newest_predictions(task, version, rule.accepted(connection, task), since, limit).where(
            is_whole()
        )
        rows = connection.execute(newest_first).all()
    return [prediction_of(row, rule) for row in reversed(rows)]


def newly_labelled(
    log: Engine,
    task: str,
    version: str,
    after: int,
    newest: int | None = None,
    rule: LabelRule = ANY_LABEL,
    *,
    unasked: bool = True,
) -> tuple[list[Prediction], int]:
    """The version's predictions whose first label has a feedback id above `after`, of any age.

    Returns them in the order of their labels (only the `newest` ones; None for all) and the id to continue after, so
    that every label is used once, however checks are scheduled. Labels that were requested without a known chance are
    left out: they would look like decay. So are unasked ones, unless they decide too (`unasked`).
    """
    with log.connect() as connection:
        accepted = rule.accepted(connection, task)
        first = _first_labels(accepted)
        rows = newest_predictions(task, version, accepted).join(first, first.c.request_id == predictions.c.id)
        rows = rows.add_columns(first.c.number).where(first.c.number > after, may_judge(unasked=unasked), is_whole())
        rows = rows.order_by(None).order_by(first.c.number.desc()).limit(newest)
        found = connection.execute(rows).all()
    return [_judging(prediction_of(row, rule)) for row in reversed(found)], found[0].number if found else after


def labels_of_requests(
    log: Engine, task: str, request_ids: Sequence[str], rule: LabelRule = ANY_LABEL
) -> dict[str, str]:
    """The newest label of each of these requests that has one which the rule accepts."""
    found: dict[str, str] = {}
    with log.connect() as connection:
        label = _newest_feedback(feedback.c.label, rule.accepted(connection, task)).label("label")
        for first in range(0, len(request_ids), BATCH):
            wanted = predictions.c.id.in_(request_ids[first : first + BATCH])
            rows = connection.execute(select(predictions.c.id, label).where(predictions.c.task == task, wanted))
            found |= {row.id: rule.spelled(row.label) for row in rows if row.label is not None}
    return found


def labelled_examples(log: Engine, task: str, rule: LabelRule = ANY_LABEL, *, unasked: bool = True) -> list[Example]:
    """Labelled traffic as training data, oldest first. Answers with only a score are left out.

    The source marks labels that judge nothing, because no known chance chose their requests; with `unasked`, those that
    came unasked judge. The label of an answer that
    was cut off is as good as any: it is of the input.
    """
    with log.connect() as connection:
        accepted = rule.accepted(connection, task)
        labelled = newest_predictions(task, None, accepted).where(_has_label(task, accepted))
        rows = connection.execute(labelled.add_columns(may_judge(unasked=unasked).label("judges"))).all()
    return [_example(prediction_of(row, rule), TRAFFIC if row.judges else IN_DOUBT) for row in reversed(rows)]


def labelled_since(log: Engine, task: str, since: datetime | None, rule: LabelRule = ANY_LABEL) -> int:
    """The number of answers whose first label came at or after this time; None: all labelled answers."""
    labelled = select(feedback.c.request_id).where(feedback.c.task == task)
    if since is not None:
        labelled = labelled.having(func.min(feedback.c.time) >= since)
    with log.connect() as connection:
        labelled = labelled.where(rule.accepted(connection, task)).group_by(feedback.c.version, feedback.c.request_id)
        return connection.execute(select(func.count()).select_from(labelled.subquery())).scalar_one()


def answered_since(log: Engine, task: str, since: datetime) -> tuple[int, datetime | None]:
    """The number of answers at or after this time, and the time of the first."""
    of_task = (predictions.c.task == task) & (predictions.c.time >= since)
    with log.connect() as connection:
        count, first = connection.execute(select(func.count(), func.min(predictions.c.time)).where(of_task)).one()
    return count, first


def labelled_history(log: Engine, task: str, rule: LabelRule = ANY_LABEL) -> list[tuple[Prediction, Example, datetime]]:
    """Labelled answers, oldest first: the prediction, the example, and the time of its newest label.

    Labels requested because the model was unsure are left out: they would look like decay.
    """
    with log.connect() as connection:
        accepted = rule.accepted(connection, task)
        labelled = newest_predictions(task, None, accepted).where(
            _has_label(task, accepted), may_judge(unasked=True), is_whole()
        )
        known = _newest_feedback(feedback.c.time, accepted).label("known")
        rows = connection.execute(labelled.add_columns(known)).all()
    found = [(prediction_of(row, rule), row.known) for row in reversed(rows)]
    return [(prediction, _example(prediction, TRAFFIC), when) for prediction, when in found]


def counts(log: Engine, task: str, rule: LabelRule = ANY_LABEL) -> Counts:
    """Row counts of this task."""
    of_task = predictions.c.task == task
    answers = select(answer_counts.c.version, answer_counts.c.answers).where(answer_counts.c.task == task)
    with log.connect() as connection:
        versions = {row.version: row.answers for row in connection.execute(answers)}
        accepted, labelled, scored = _feedback_counts(connection, task, rule)
        return Counts(
            predictions=sum(versions.values()),
            labelled=accepted,
            scored=scored,
            newest=connection.execute(select(func.max(predictions.c.time)).where(of_task)).scalar_one(),
            versions=versions,
            ignored=labelled - accepted,
        )


def _feedback_counts(connection: Connection, task: str, rule: LabelRule) -> tuple[int, int, int]:
    """The number of answers with a label that the rule accepts, with any label, and with a score."""
    conditions = (rule.accepted(connection, task), feedback.c.label.is_not(None), feedback.c.score.is_not(None))
    has = [func.max(case((condition, 1), else_=0)).label(f"has_{n}") for n, condition in enumerate(conditions)]
    # By version too, which the request determines: that is the order of the index.
    of_request = select(*has).where(feedback.c.task == task).group_by(feedback.c.version, feedback.c.request_id)
    of_request_rows = of_request.subquery()
    totals = connection.execute(select(*(func.sum(column) for column in of_request_rows.c))).one()
    accepted, labelled, scored = (int(total or 0) for total in totals)
    return accepted, labelled, scored


def _first_labels(accepted: ColumnElement[bool]) -> Any:
    """The id of each answer's first label."""
    first = select(feedback.c.request_id, func.min(feedback.c.id).label("number")).where(accepted)
    return first.group_by(feedback.c.request_id).subquery()


def _newest_feedback(column: ColumnElement[Any], condition: ColumnElement[bool]) -> Any:
    """A column of the newest feedback row of each prediction that satisfies the condition.

    Rows are in the order of their ids, because the clocks of several gateways differ.
    """
    newest = select(column).where(feedback.c.request_id == predictions.c.id, condition)
    return newest.order_by(feedback.c.id.desc()).limit(1).scalar_subquery()


def _has_label(task: str, accepted: ColumnElement[bool]) -> ColumnElement[bool]:
    """Whether a prediction of the task has a label. It starts at the labels, because most predictions have none."""
    return predictions.c.id.in_(select(feedback.c.request_id).where(feedback.c.task == task, accepted))


def newest_predictions(
    task: str,
    version: str | None,
    accepted: ColumnElement[bool],
    since: datetime | None = None,
    limit: int | None = None,
) -> Select[Any]:
    """The predictions, newest first, each with its newest label and score, and how it came to be labelled."""
    label = _newest_feedback(feedback.c.label, accepted).label("label")
    score = _newest_feedback(feedback.c.score, is_score()).label("score")
    rows = select(predictions, label, score, *provenance_columns(task)).select_from(joined())
    rows = rows.where(predictions.c.task == task)
    if version is not None:
        rows = rows.where(predictions.c.version == version)
    if since is not None:
        rows = rows.where(predictions.c.time >= since)
    return rows.order_by(predictions.c.time.desc(), predictions.c.id.desc()).limit(limit)


def _judging(row: Prediction) -> Prediction:
    """Unasked labels that decide count as if a lot had drawn each with the same propensity."""
    return row if row.weight is not None else row.model_copy(update={"weight": 1.0})


def prediction_of(row: Row[Any], rule: LabelRule) -> Prediction:
    """A row of `newest_predictions`."""
    values = {name: row._mapping[name] for name in (*predictions.c.keys(), "label", "score")}
    values |= provenance(row, labelled=row.label is not None or row.score is not None)
    found = Prediction.model_validate({**values, "other_outputs": values["other_outputs"] or ()})
    return found if found.label is None else found.model_copy(update={"label": rule.spelled(found.label)})


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
        weight=prediction.weight or 1.0,
    )
