"""How many labels came in which way."""

from __future__ import annotations

from collections import Counter

from sqlalchemy import Engine, exists, func, select

from perpetune.prediction_log.label_rule import ANY_LABEL, LabelRule
from perpetune.prediction_log.provenance import joined
from perpetune.prediction_log.tables import feedback, label_requests, predictions

NAMES = {"lot": "by lot", "doubt": "for doubt", "disagreement": "for a disagreement", "unasked": "unasked"}


def label_counts(log: Engine, task: str, rule: LabelRule = ANY_LABEL) -> dict[str, int]:
    """Labelled requests by how they were chosen; ways in which none came are left out. A client's own lot is a lot."""
    mine = (feedback.c.request_id == predictions.c.id, feedback.c.propensity.is_not(None))
    by_client = exists().where(*mine)
    with log.connect() as connection:
        labelled = exists().where(feedback.c.request_id == predictions.c.id, rule.accepted(connection, task))
        rows = select(label_requests.c.why, by_client, func.count()).select_from(joined())
        rows = rows.where(predictions.c.task == task, labelled).group_by(label_requests.c.why, by_client)
        found = connection.execute(rows).all()
    counts: Counter[str] = Counter()
    for why, client, count in found:
        counts[why or ("lot" if client else "unasked")] += count
    return {name: counts[name] for name in NAMES if counts[name]}


def counted(counts: dict[str, int]) -> str:
    """As "45 by lot, 12 for doubt, 30 unasked"; "" without labels."""
    return ", ".join(f"{count:,} {NAMES[name]}" for name, count in counts.items())
