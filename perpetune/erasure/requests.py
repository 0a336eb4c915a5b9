"""The prediction log: requests, their feedback, shadow answers and label requests."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, RowMapping, delete, select, text

from perpetune.curation.rows.sources import TRAFFIC
from perpetune.curation.text import fingerprint, normalised
from perpetune.erasure.database import vacuum
from perpetune.erasure.selection import Targets
from perpetune.errors import PerpetuneError
from perpetune.prediction_log.database import writing
from perpetune.prediction_log.tables import (
    answer_values,
    embeddings,
    feedback,
    label_draws,
    label_requests,
    predictions,
    shadows,
)
from perpetune.records import Example, Message

_BATCH = 500


def logged_examples(log: Engine) -> Iterator[Example]:
    """Each request as an example, as labelled traffic would have it; the output is that of the model."""
    with log.connect() as connection:
        for row in connection.execute(select(predictions)).mappings():
            yield _example(row)


def remove_requests(log: Engine, targets: Targets, *, dry_run: bool) -> dict[str, int]:
    """Delete the requests, and what refers to them; returns the number of rows by table. The pages are freed too."""
    ids = requests_about(log, targets)
    counts = dict.fromkeys(("predictions", "feedback", "shadow answers", "label requests"), 0)
    with writing(log) as connection:
        if log.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA secure_delete = ON")
        for start in range(0, len(ids), _BATCH):
            batch = ids[start : start + _BATCH]
            for name, table, column in (
                ("feedback", feedback, feedback.c.request_id),
                ("shadow answers", shadows, shadows.c.request_id),
                ("label requests", label_requests, label_requests.c.request_id),
                ("predictions", predictions, predictions.c.id),
            ):
                found = connection.execute(select(column).where(column.in_(batch))).all()
                counts[name] += len(found)
                if not dry_run:
                    connection.execute(delete(table).where(column.in_(batch)))
    if not dry_run:
        free_pages(log)
    return counts


def free_pages(log: Engine) -> None:
    """Free what deleted rows have left in the database's files."""
    if log.dialect.name == "sqlite":
        log.dispose()
        try:
            vacuum(Path(str(log.url.database)))
        except sqlite3.Error as fault:
            raise PerpetuneError(
                f"its free pages may still hold the rows: {fault}",
                where=str(log.url.database),
                do="run the command again: it goes on where it stopped",
            ) from fault
        return
    with log.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for table in (predictions, feedback, shadows, label_requests, label_draws, embeddings, answer_values):
            connection.execute(text(f"VACUUM (FULL, ANALYZE) {table.name}"))
        # The statistics of the planner have values of the columns. Without the right to it, PostgreSQL warns and goes on.
        connection.execute(text("VACUUM FULL pg_statistic"))


def requests_about(log: Engine, targets: Targets) -> list[str]:
    """The ids of the requests to delete: by request, or by what an answer, a label or a comment says."""
    with log.connect() as connection:
        found = [
            str(row["id"])
            for row in connection.execute(select(predictions)).mappings()
            if targets.holds(_example(row)) or _says(targets, row["output"], *(row["other_outputs"] or ()), row["id"])
        ]
        said = select(feedback.c.request_id, feedback.c.label, feedback.c.comment)
        found += [str(row[0]) for row in connection.execute(said) if _says(targets, row[1], row[2])]
        answered = select(shadows.c.request_id, shadows.c.output, shadows.c.error)
        found += [str(row[0]) for row in connection.execute(answered) if _says(targets, row[1], row[2])]
    return list(dict.fromkeys(found))


def _says(targets: Targets, *texts: str | None) -> bool:
    return targets.pattern is not None and any(targets.pattern.search(each) for each in texts if each)


def _example(row: RowMapping) -> Example:
    messages = tuple(map(Message.model_validate, _list(row["messages"])))
    is_single_turn = messages == (Message(role="user", content=row["input"]),)
    return Example(
        input=row["input"],
        output=row["output"],
        id=row["id"],
        group=row["group"] or fingerprint(normalised(row["input"])),
        time=row["time"],
        source=TRAFFIC,
        messages=() if is_single_turn else messages,
    )


def _list(value: Any) -> list[Any]:
    return json.loads(value) if isinstance(value, str) else list(value)
