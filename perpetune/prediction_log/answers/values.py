"""What was measured of single answers without labels, and what that has cost: of a judge, and of self-consistency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Engine, delete, func, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from perpetune.prediction_log.database import writing
from perpetune.prediction_log.tables import answer_values, estimate_costs, predictions

BATCH = 500  # ids in one query
_KEPT = timedelta(days=400)  # costs


@dataclass(frozen=True)
class Spent:
    """Requests since one time, and dollars since another."""

    requests: int
    dollars: float


def values_of(log: Engine, method: str, settings: str, request_ids: Sequence[str]) -> dict[str, float | None]:
    """The values of these requests that were measured with these settings; None of one whose reply had none."""
    found: dict[str, float | None] = {}
    rows = select(answer_values.c.request_id, answer_values.c.value).where(
        answer_values.c.method == method, answer_values.c.settings == settings
    )
    with log.connect() as connection:
        for first in range(0, len(request_ids), BATCH):
            wanted = answer_values.c.request_id.in_(request_ids[first : first + BATCH])
            found |= {row.request_id: row.value for row in connection.execute(rows.where(wanted))}
    return found


def store_values(log: Engine, method: str, settings: str, values: Mapping[str, float | None]) -> None:
    """Store values by request in place of older ones of the method; those of requests that are gone are skipped."""
    if not values:
        return
    names = list(values)
    upsert = (sqlite.insert if log.dialect.name == "sqlite" else postgresql.insert)(answer_values)
    newest = {"settings": upsert.excluded.settings, "value": upsert.excluded.value}
    with writing(log) as connection:
        known = set(connection.execute(select(predictions.c.id).where(predictions.c.id.in_(names))).scalars())
        rows = [
            {"request_id": name, "method": method, "settings": settings, "value": values[name]}
            for name in names
            if name in known
        ]
        if rows:
            connection.execute(upsert.on_conflict_do_update(index_elements=["request_id", "method"], set_=newest), rows)


def add_cost(log: Engine, task: str, method: str, time: datetime, requests: int, dollars: float) -> None:
    """Note what a check has asked for, and forget what is older than a year."""
    row = {"task": task, "method": method, "time": time, "requests": requests, "dollars": dollars}
    with writing(log) as connection:
        connection.execute(delete(estimate_costs).where(estimate_costs.c.time < time - _KEPT))
        connection.execute(insert(estimate_costs), [row])


def spent(log: Engine, task: str, method: str, day: datetime, month: datetime) -> Spent:
    """The requests of a method since `day`, and its dollars since `month`."""
    of_method = (estimate_costs.c.task == task, estimate_costs.c.method == method)
    requests = select(func.sum(estimate_costs.c.requests)).where(*of_method, estimate_costs.c.time >= day)
    dollars = select(func.sum(estimate_costs.c.dollars)).where(*of_method, estimate_costs.c.time >= month)
    with log.connect() as connection:
        return Spent(
            int(connection.execute(requests).scalar() or 0), float(connection.execute(dollars).scalar() or 0.0)
        )
