"""Whose answers these are: the tasks of requests by their id, in a log that several tasks may share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping

from sqlalchemy import Engine, select

from perpetune.prediction_log.storable import storable
from perpetune.prediction_log.tables import predictions

_LOOKED_UP = 500  # ids in one query


def tasks_of_answers(log: Engine, request_ids: Collection[str]) -> Mapping[str, frozenset[str]]:
    """The task of each answer in the log. A client's own id may name requests of several tasks. Raises SQLAlchemyError."""
    stored = {name: storable(name) for name in request_ids}
    by_id: dict[str, str] = {}
    by_own_id: defaultdict[str, set[str]] = defaultdict(set)
    wanted = sorted(set(stored.values()))
    columns = (predictions.c.id, predictions.c.client_id, predictions.c.task)
    with log.connect() as connection:
        for first in range(0, len(wanted), _LOOKED_UP):
            some = wanted[first : first + _LOOKED_UP]
            # Two queries, each by an index of its own.
            by_id |= {row.id: row.task for row in connection.execute(select(*columns).where(columns[0].in_(some)))}
            for row in connection.execute(select(*columns).where(columns[1].in_(some))):
                by_own_id[row.client_id].add(row.task)
    return {
        name: frozenset({by_id[key]} if key in by_id else by_own_id[key])
        for name, key in stored.items()
        if key in by_id or key in by_own_id
    }
