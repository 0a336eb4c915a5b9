"""Which labels judge the version that answered: a check admits them once, in an order that later checks go on with.

A label is admitted if chance chose its request with a known propensity, or if unasked labels decide; and if it came from
a group of requests whose labels have nearly all come. See docs/decisions/0026-how-labels-came.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    Engine,
    Integer,
    Row,
    Select,
    Table,
    cast,
    exists,
    func,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

from perpetune.prediction_log.answers.cut_off import is_whole
from perpetune.prediction_log.database import writing
from perpetune.prediction_log.labels.delays import LabelledGroup, ripe
from perpetune.prediction_log.labels.provenance import joined, provenance, provenance_columns
from perpetune.prediction_log.labels.rule import ANY_LABEL, LabelRule
from perpetune.prediction_log.queries import newest_predictions, prediction_of
from perpetune.prediction_log.tables import admitted_labels, answer_counts, feedback, label_requests, predictions
from perpetune.records import Prediction

UNLABELLED = 3000
"""Newest requests without a label whose times are read, to see up to when all are labelled."""
LABELLED = 3000
"""Newest labelled requests that say how late labels come."""
_OLD = 101  # of the requests before these, which say since when
_CLOCKS = timedelta(days=1)  # by which a gateway's clock may be behind another's
Key = datetime | None
"""Of a group: when a lot drew its requests; None for those that no lot drew."""


def admit(
    log: Engine,
    task: str,
    version: str,
    now: datetime,
    rule: LabelRule = ANY_LABEL,
    *,
    unasked: bool = False,
    at_once: bool = False,
) -> int:
    """Admit the version's labels that are ripe; returns how many. With `unasked` those that came unasked too.

    With `at_once` unasked ones do not wait until they are ripe. What was admitted stays admitted. Labels that the rule refuses count as none.
    """
    with writing(log) as connection:
        known = _known(connection, task, version, rule.accepted(connection, task))
        rows, ripe_until = known.rows, _ripe_until(known, now)
        found = [
            {"request_id": row.id, "weight": weight}
            for row in sorted(_labelled(rows), key=lambda row: row.first_label)  # the clocks of several gateways differ
            if not row.admitted and ((at_once and _key(row) is None) or _is_ripe(row, ripe_until))
            if (weight := _weight(row, unasked=unasked)) is not None
        ]
        if found:
            kind = sqlite.insert if log.dialect.name == "sqlite" else postgresql.insert
            connection.execute(kind(admitted_labels).on_conflict_do_nothing(index_elements=["request_id"]), found)
    return len(found)


def newly_admitted(
    log: Engine, task: str, version: str, after: int, newest: int | None = None, rule: LabelRule = ANY_LABEL
) -> tuple[list[Prediction], int]:
    """The version's labelled predictions that were admitted under a number above `after`, each with its weight.

    Returns them in the order of admission (only the `newest` ones; None for all) and the number to continue after, so
    that every label is used once, however checks are scheduled.
    """
    with log.connect() as connection:
        rows = newest_predictions(task, version, rule.accepted(connection, task)).join(
            admitted_labels, admitted_labels.c.request_id == predictions.c.id
        )
        rows = rows.add_columns(admitted_labels.c.number, admitted_labels.c.weight.label("admitted_weight"))
        rows = rows.where(admitted_labels.c.number > after, is_whole())
        found = connection.execute(rows.order_by(None).order_by(admitted_labels.c.number.desc()).limit(newest)).all()
    judging = [prediction_of(row, rule).model_copy(update={"weight": row.admitted_weight}) for row in reversed(found)]
    return [row for row in judging if row.label is not None], found[0].number if found else after


def awaited(log: Engine, task: str, now: datetime, rule: LabelRule = ANY_LABEL) -> set[str]:
    """Labelled requests of lots whose other labels are still to come: the first ones may be those of wrong answers."""
    with log.connect() as connection:
        known = _known(connection, task, None, rule.accepted(connection, task))
    ripe_until = _ripe_until(known, now)
    return {row.id for row in _labelled(known.rows) if _key(row) is not None and not _is_ripe(row, ripe_until)}


def settled_until(
    connection: Connection, task: str, version: str | None, now: datetime, accepted: ColumnElement[bool]
) -> datetime:
    """Of requests up to then that no lot drew, nearly all labels that will come have come.

    The newest `LABELLED` labelled requests, and what was answered since the oldest of them, say so.
    """
    since = _time_of_labelled(connection, task, version, accepted)
    return _ripe_until(_known(connection, task, version, accepted, since), now)[None]


def _time_of_labelled(
    connection: Connection, task: str, version: str | None, accepted: ColumnElement[bool]
) -> datetime | None:
    """About when the last of the newest `LABELLED` labelled requests was answered; None if there are fewer.

    It is a median of some, because single labels come late.
    """
    of_version = [feedback.c.version == version] if version else []
    ids = select(feedback.c.request_id).where(feedback.c.task == task, *of_version, accepted)
    ids = ids.order_by(feedback.c.id.desc()).offset(LABELLED).limit(_OLD)
    times = connection.execute(select(predictions.c.time).where(predictions.c.id.in_(ids))).scalars().all()
    return sorted(times)[len(times) // 2] if len(times) else None


@dataclass(frozen=True)
class _Known:
    """The requests that are labelled or asked for, with the time of the first label; the times of the others.

    Of the others the newest have their time in `unlabelled`; `older` is the number of the rest.
    """

    rows: Sequence[Row[Any]]
    unlabelled: Sequence[datetime]
    older: int


def _known(
    connection: Connection,
    task: str,
    version: str | None,
    accepted: ColumnElement[bool],
    since: datetime | None = None,
) -> _Known:
    mine = (feedback.c.request_id == predictions.c.id, accepted)
    labelled = select(func.min(feedback.c.time)).where(*mine).scalar_subquery()
    number = select(func.min(feedback.c.id)).where(*mine).scalar_subquery()
    admitted = select(admitted_labels.c.number).where(admitted_labels.c.request_id == predictions.c.id)
    columns = (predictions.c.id, predictions.c.time, label_requests.c.time.label("asked"), labelled.label("labelled"))
    whole = [*_whole(task, version), *([predictions.c.time >= since] if since else [])]
    query = select(*columns, admitted.exists().label("admitted"), number.label("first_label"))
    query = query.add_columns(*provenance_columns(task)).select_from(joined())
    rows = connection.execute(
        query.where(*whole, predictions.c.id.in_(labelled_or_asked(task, version, accepted, since)))
    ).all()
    counted = select(func.count()).select_from(predictions).where(*whole) if since else _whole_answers(task, version)
    answered = connection.execute(counted).scalar_one()
    asked = exists().where(label_requests.c.request_id == predictions.c.id)
    said = exists().where(feedback.c.request_id == predictions.c.id, accepted)
    others = select(predictions.c.time).where(*whole, ~asked, ~said).order_by(predictions.c.time.desc())
    unlabelled = connection.execute(others.limit(UNLABELLED)).scalars().all()
    return _Known(rows, unlabelled, answered - len(rows) - len(unlabelled))


def _whole(task: str, version: str | None) -> list[ColumnElement[bool]]:
    of_version = [predictions.c.version == version] if version else []
    return [predictions.c.task == task, *of_version, is_whole()]


def labelled_or_asked(
    task: str, version: str | None, accepted: ColumnElement[bool], since: datetime | None
) -> CompoundSelect[tuple[str]]:
    """The ids of requests with a label or a label request: few of all, so reads start at them.

    With `since`, all those of requests that were answered since then are among them.
    """

    def mine(table: Table) -> list[ColumnElement[bool]]:
        of_version = [table.c.version == version] if version else []
        return [table.c.task == task, *of_version, *([table.c.time >= since - _CLOCKS] if since else [])]

    labelled = select(feedback.c.request_id).where(*mine(feedback), accepted)
    return labelled.union(select(label_requests.c.request_id).where(*mine(label_requests)))


def _whole_answers(task: str, version: str | None) -> Select[tuple[int]]:
    """The number of answers that were not cut off."""
    counted = func.coalesce(func.sum(answer_counts.c.answers - answer_counts.c.cut_off), 0)
    of_version = [answer_counts.c.version == version] if version else []
    return select(cast(counted, Integer)).where(answer_counts.c.task == task, *of_version)


def _ripe_until(known: _Known, now: datetime) -> dict[Key, datetime]:
    """For each group, up to when a request must have been asked for (or else answered) for its label to be ripe."""
    members: dict[Key, list[tuple[datetime, datetime | None]]] = {None: [(time, None) for time in known.unlabelled]}
    for row in known.rows:
        members.setdefault(_key(row), []).append((_key(row) or row.time, row.labelled))
    groups = {key: LabelledGroup(found, 0 if key else known.older) for key, found in members.items()}
    return {key: ripe(group, list(groups.values()), now, by_lot=key is not None) for key, group in groups.items()}


def _key(row: Row[Any]) -> Key:
    when: Key = row.asked if row.weight is not None else None
    return when


def _is_ripe(row: Row[Any], ripe_until: dict[Key, datetime]) -> bool:
    """The labels of a client's own lot are ripe as they come: the client knows when it has labelled all of it."""
    return row.by_client is not None or (_key(row) or row.time) <= ripe_until[_key(row)]


def _labelled(rows: Iterable[Row[Any]]) -> list[Row[Any]]:
    return [row for row in rows if row.labelled is not None]


def _weight(row: Row[Any], *, unasked: bool) -> float | None:
    came = provenance(row, labelled=True)
    if came["chosen"] == "unasked":
        return 1.0 if unasked else None
    weight: float | None = came["weight"]
    return weight
