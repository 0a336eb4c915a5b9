"""Label requests: predictions that people are asked to label, stored in the prediction log with how they were chosen."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Literal

from sqlalchemy import ColumnElement, Connection, Engine, and_, case, exists, func, insert, select, update

from perpetune.prediction_log.answers.cut_off import is_whole
from perpetune.prediction_log.database import writing
from perpetune.prediction_log.labels.rule import ANY_LABEL, LabelRule
from perpetune.prediction_log.tables import feedback, label_draws, label_requests, predictions

LabelReason = Literal["lot", "doubt", "disagreement"]

_BATCH = 500  # ids in one query


@dataclass(frozen=True)
class Drawn:
    """A request drawn to be labelled: why, and the `propensity` (above 0, up to 1) with which it was drawn.

    `weight` is what its label counts in the mean of scores over all requests that it was drawn from; None if it was
    drawn from some of them only, or not by chance.
    """

    request_id: str
    why: LabelReason
    propensity: float | None = None
    weight: float | None = None


@dataclass(frozen=True)
class LabelRequest:
    """A prediction to label, and why it was chosen. Those that are `urgent` are asked for first."""

    request_id: str
    input: str
    answer: str
    confidence: float | None
    why: LabelReason
    urgent: bool = False


def request_labels(
    log: Engine,
    drawn: Sequence[Drawn],
    time: datetime,
    *,
    urgent: bool = False,
    undrawn: Mapping[str, float] = MappingProxyType({}),
) -> int:
    """Request labels for these predictions; returns the number of new requests.

    An existing request keeps its reason and propensity; it takes the weight of the first draw that gives it one, and
    becomes urgent. Predictions that are no longer in the log are skipped. One that is labelled already is marked as
    drawn, so that its label counts as the draw's, and nobody is asked. `undrawn` is what the draw leaves for `undrawn`.
    """
    with writing(log) as connection:
        before = _requests(connection, [each.request_id for each in drawn])
        stored = _stored(connection, [*(each.request_id for each in drawn), *undrawn])
        new = {each.request_id: each for each in drawn if each.request_id in stored and each.request_id not in before}
        if new:
            rows = [{**asdict(each), "time": time, "urgent": urgent} for each in new.values()]
            connection.execute(insert(label_requests), rows)
        _upgrade(connection, [each for each in drawn if each.request_id in before], before, time, urgent=urgent)
        _save_undrawn(connection, {name: undrawn[name] for name in undrawn if name in stored})
        return len(new)


def _upgrade(
    connection: Connection,
    drawn: Iterable[Drawn],
    before: Mapping[str, float | None],
    time: datetime,
    *,
    urgent: bool,
) -> None:
    """Give requests that no draw gave a weight the weight of this one."""
    for each in drawn:
        row = update(label_requests).where(label_requests.c.request_id == each.request_id)
        if urgent:
            connection.execute(row.values(urgent=True))
        if each.weight is not None and before[each.request_id] is None:
            connection.execute(row.values(weight=each.weight, time=time))


def _requests(connection: Connection, request_ids: Sequence[str]) -> dict[str, float | None]:
    """The weight of each of these requests that has been asked for before."""
    columns = (label_requests.c.request_id, label_requests.c.weight)
    found: dict[str, float | None] = {}
    for batch in _batches(request_ids):
        rows = connection.execute(select(*columns).where(label_requests.c.request_id.in_(batch)))
        found |= {row.request_id: row.weight for row in rows}
    return found


def _stored(connection: Connection, request_ids: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for batch in _batches(request_ids):
        found |= set(connection.execute(select(predictions.c.id).where(predictions.c.id.in_(batch))).scalars())
    return found


def drawn_before(log: Engine, request_ids: Sequence[str]) -> set[str]:
    """Those of these requests that a draw over all requests has drawn before."""
    with log.connect() as connection:
        return {name for name, weight in _requests(connection, request_ids).items() if weight is not None}


def undrawn(log: Engine, request_ids: Sequence[str]) -> dict[str, float]:
    """The probability with which draws for doubt have left each of these requests out so far; 1 if there were none."""
    columns = (label_draws.c.request_id, label_draws.c.undrawn)
    found = dict.fromkeys(request_ids, 1.0)
    with log.connect() as connection:
        for batch in _batches(request_ids):
            rows = connection.execute(select(*columns).where(label_draws.c.request_id.in_(batch)))
            found |= {row.request_id: row.undrawn for row in rows}
    return found


def _save_undrawn(connection: Connection, probabilities: Mapping[str, float]) -> None:
    """Those below 1: a request that no draw for doubt has left out needs no row."""
    left = {name: value for name, value in probabilities.items() if value < 1}
    for batch in _batches(list(left)):
        connection.execute(label_draws.delete().where(label_draws.c.request_id.in_(batch)))
        connection.execute(insert(label_draws), [{"request_id": name, "undrawn": left[name]} for name in batch])


def _batches(values: Sequence[str]) -> Iterable[Sequence[str]]:
    return (values[first : first + _BATCH] for first in range(0, len(values), _BATCH))


def newest_draw(log: Engine, task: str, version: str) -> datetime | None:
    """When a draw over all requests last drew answers of the version; None if none did."""
    newest = select(func.max(label_requests.c.time))
    mine = (label_requests.c.task == task, label_requests.c.version == version, label_requests.c.weight.is_not(None))
    with log.connect() as connection:
        found: datetime | None = connection.execute(newest.where(*mine)).scalar_one()
    return found


def undrawn_answers(
    log: Engine, task: str, version: str, since: datetime | None, rule: LabelRule = ANY_LABEL
) -> list[tuple[str, datetime, bool]]:
    """The version's whole answers after `since` (None: all) that no draw over all requests has drawn, oldest first.

    Each as its id, its time, and whether it is labelled.
    """
    drawn = exists().where(label_requests.c.request_id == predictions.c.id, label_requests.c.weight.is_not(None))
    mine = [predictions.c.task == task, predictions.c.version == version, is_whole(), ~drawn]
    mine += [predictions.c.time > since] if since else []
    with log.connect() as connection:
        labelled = exists().where(feedback.c.request_id == predictions.c.id, rule.accepted(connection, task))
        rows = select(predictions.c.id, predictions.c.time, labelled).where(*mine)
        return [
            (row[0], row[1], row[2]) for row in connection.execute(rows.order_by(predictions.c.time, predictions.c.id))
        ]


def open_requests(
    log: Engine, task: str, *, version: str | None = None, rule: LabelRule = ANY_LABEL
) -> list[LabelRequest]:
    """The open label requests, urgent ones first, then the oldest; with `version` only those for its answers.

    A label that the rule refuses leaves its request open.
    """
    columns = (predictions.c.id, predictions.c.input, predictions.c.output, predictions.c.confidence)
    asked = (label_requests.c.why, label_requests.c.urgent)
    first = case((label_requests.c.urgent, 0), else_=1)
    with log.connect() as connection:
        rows = select(*columns, *asked).where(_open(task, version, rule.accepted(connection, task)))
        found = connection.execute(rows.order_by(first, predictions.c.time, predictions.c.id)).all()
    return [LabelRequest(*row) for row in found]


def count_open(log: Engine, task: str, rule: LabelRule = ANY_LABEL, *, urgent: bool = False) -> int:
    """The number of open label requests, or of those that are urgent."""
    with log.connect() as connection:
        wanted = [_open(task, None, rule.accepted(connection, task)), *([label_requests.c.urgent] if urgent else [])]
        return connection.execute(select(func.count()).where(*wanted)).scalar_one()


def versions_of_open_requests(log: Engine, task: str, rule: LabelRule = ANY_LABEL) -> set[str]:
    """The versions that gave the answers which wait for a label."""
    with log.connect() as connection:
        query = select(predictions.c.version).distinct().where(_open(task, None, rule.accepted(connection, task)))
        return set(connection.execute(query).scalars())


def count_unasked(log: Engine, request_ids: Collection[str]) -> int:
    """How many of these predictions no label request names: a label of theirs arrived unasked."""
    wanted = set(request_ids)
    with log.connect() as connection:
        asked = connection.execute(select(label_requests.c.request_id)).scalars()
        return len(wanted.difference(asked))


def _open(task: str, version: str | None, accepted: ColumnElement[bool]) -> ColumnElement[bool]:
    labelled = exists().where(feedback.c.request_id == label_requests.c.request_id, accepted)
    mine = [predictions.c.id == label_requests.c.request_id, label_requests.c.task == task, ~labelled]
    return and_(*mine, *([label_requests.c.version == version] if version else []))
