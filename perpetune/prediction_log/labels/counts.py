"""How many labels came in which way."""

from __future__ import annotations

from collections import Counter

from sqlalchemy import Engine, case, func, select

from perpetune.prediction_log.labels.rule import ANY_LABEL, LabelRule
from perpetune.prediction_log.tables import feedback, label_requests

NAMES = {"lot": "by lot", "doubt": "for doubt", "disagreement": "for a disagreement", "unasked": "unasked"}


def label_counts(log: Engine, task: str, rule: LabelRule = ANY_LABEL) -> dict[str, int]:
    """Labelled requests by how they were chosen; ways in which none came are left out. A client's own lot is a lot."""
    by_client = func.max(case((feedback.c.propensity.is_not(None), 1), else_=0)).label("by_client")
    with log.connect() as connection:
        labelled = func.max(case((rule.accepted(connection, task), 1), else_=0))
        requests = select(feedback.c.request_id, by_client).where(feedback.c.task == task).having(labelled == 1)
        of_request = requests.group_by(feedback.c.version, feedback.c.request_id).subquery()
        asked = label_requests.c.request_id == of_request.c.request_id
        rows = select(label_requests.c.why, of_request.c.by_client, func.count())
        rows = rows.select_from(of_request.join(label_requests, asked, isouter=True))
        found = connection.execute(rows.group_by(label_requests.c.why, of_request.c.by_client)).all()
    counts: Counter[str] = Counter()
    for why, client, count in found:
        counts[why or ("lot" if client else "unasked")] += count
    return {name: counts[name] for name in NAMES if counts[name]}


def counted(counts: dict[str, int]) -> str:
    """As "45 by lot, 12 for doubt, 30 unasked"; "" without labels."""
    return ", ".join(f"{count:,} {NAMES[name]}" for name, count in counts.items())
