"""Which of the requests of a time have labels, and how they came: what is known of the selection of unasked labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, func, select

from perpetune.prediction_log.answers.cut_off import is_whole
from perpetune.prediction_log.labels.admission import labelled_or_asked, settled_until
from perpetune.prediction_log.labels.provenance import joined, provenance, provenance_columns
from perpetune.prediction_log.labels.rule import ANY_LABEL, LabelRule
from perpetune.prediction_log.tables import feedback, label_requests, predictions

MOST = 60_000  # newest requests: if a tenth of them is labelled, that many can show that it is a random tenth


@dataclass(frozen=True)
class Selected:
    """A request: its answer, confidence and label, and whether that came before anybody asked for it.

    `weight` is that of a label by lot. `settled`: it is so old that its label would have come by now, if it ever does.
    """

    output: str
    confidence: float | None
    label: str | None
    weight: float | None
    unasked: bool
    settled: bool


def selection(
    log: Engine, task: str, version: str | None, now: datetime, rule: LabelRule = ANY_LABEL, limit: int = MOST
) -> list[Selected]:
    """The newest `limit` requests of the version; None: of all versions."""
    with log.connect() as connection:
        accepted = rule.accepted(connection, task)
        until = settled_until(connection, task, version, now, accepted)
        mine = [predictions.c.task == task, is_whole(), *([predictions.c.version == version] if version else [])]
        columns = (predictions.c.id, predictions.c.time, predictions.c.output, predictions.c.confidence)
        newest = select(*columns).where(*mine).order_by(predictions.c.time.desc(), predictions.c.id.desc()).limit(limit)
        rows = connection.execute(newest).all()
        known = _known(connection, task, version, rows[-1].time, accepted) if rows else {}
    return [_selected(row, known.get(row.id), until, rule.spelled) for row in rows]


def _known(
    connection: Connection, task: str, version: str | None, since: datetime, accepted: ColumnElement[bool]
) -> dict[str, Row[Any]]:
    """The requests since then that are labelled or asked for: few of all, so that these alone are looked into."""
    said = (feedback.c.request_id == predictions.c.id, accepted)
    label = select(feedback.c.label).where(*said).order_by(feedback.c.id.desc()).limit(1).scalar_subquery()
    first = select(func.min(feedback.c.time)).where(*said).scalar_subquery()
    query = select(
        predictions.c.id, label.label("label"), first.label("labelled"), label_requests.c.time.label("asked")
    )
    mine = [predictions.c.task == task, predictions.c.time >= since]
    mine += [predictions.c.version == version] if version else []
    of_interest = predictions.c.id.in_(labelled_or_asked(task, version, accepted, since))
    rows = query.add_columns(*provenance_columns(task)).select_from(joined()).where(*mine, of_interest)
    return {row.id: row for row in connection.execute(rows)}


def _selected(row: Row[Any], known: Row[Any] | None, until: datetime, spelled: Callable[[str], str]) -> Selected:
    settled = row.time <= until
    if known is None or known.label is None:
        weight = None if known is None else provenance(known, labelled=False)["weight"]
        return Selected(row.output, row.confidence, None, weight, unasked=False, settled=settled)
    return Selected(
        row.output,
        row.confidence,
        spelled(known.label),
        provenance(known, labelled=True)["weight"],
        unasked=known.asked is None or known.labelled < known.asked,
        settled=settled,
    )
