"""How a request came to be labelled, as columns of a query over predictions and as fields of a prediction."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, FromClause, Row, func, or_, select

from perpetune.prediction_log.tables import feedback, label_requests, predictions
from perpetune.records import Chosen

LEAST = (
    0.001  # propensity that a client's lot is scaled by, so that one tiny number does not make all others weigh nothing
)


def joined(source: FromClause = predictions) -> FromClause:
    """The predictions with their label requests, if there are any."""
    return source.join(label_requests, label_requests.c.request_id == predictions.c.id, isouter=True)


def provenance_columns(task: str) -> tuple[ColumnElement[Any], ...]:
    """What `provenance` reads, from a query over `joined` predictions.

    A client that draws requests itself sends the propensity with the feedback. The smallest that it sent is the scale.
    """
    mine = (feedback.c.request_id == predictions.c.id, feedback.c.propensity.is_not(None))
    by_client = select(feedback.c.propensity).where(*mine).order_by(feedback.c.id.desc()).limit(1).scalar_subquery()
    of_task = (feedback.c.task == task, feedback.c.propensity.is_not(None))
    smallest = select(func.min(feedback.c.propensity)).where(*of_task).scalar_subquery()
    asked = (label_requests.c.why, label_requests.c.propensity.label("asked_propensity"), label_requests.c.weight)
    return *asked, by_client.label("by_client"), smallest.label("smallest_by_client")


def provenance(row: Row[Any], *, labelled: bool) -> dict[str, Any]:
    """`chosen`, `propensity` and `weight` of a prediction; `labelled` is whether it has a label or a score.

    An unasked label has no weight: whether it decides is not known from one row.
    """
    if row.why is not None and (row.weight is not None or row.by_client is None):
        return {"chosen": row.why, "propensity": row.asked_propensity, "weight": row.weight}
    if row.by_client is not None:
        scale = max(row.smallest_by_client, LEAST)
        chosen: Chosen = "lot"
        return {"chosen": chosen, "propensity": row.by_client, "weight": min(1.0, scale / row.by_client)}
    return {"chosen": "unasked" if labelled else None, "propensity": None, "weight": None}


def may_judge(*, unasked: bool) -> ColumnElement[bool]:
    """Whether a label of the prediction counts where versions are judged, from a query over `joined` predictions.

    It does if chance chose it, with a known propensity; unasked ones do if they decide. Answers that were chosen because
    the model was unsure of them are wrong more often than others.
    """
    mine = (feedback.c.request_id == predictions.c.id, feedback.c.propensity.is_not(None))
    by_client = select(feedback.c.id).where(*mine).exists()
    known = or_(label_requests.c.weight.is_not(None), by_client)
    return or_(known, label_requests.c.request_id.is_(None)) if unasked else known
