"""A task with many versions in MLflow's SQLite store: one is registered as the loop does it, the others are its copies."""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from mlflow.tracking import MlflowClient

from perpetune.loop.curate import LABELS
from perpetune.loop.run_context import DEVICE_HOURS
from perpetune.records import RecordedAnswer
from perpetune.tracking import registry
from perpetune.tracking.runs import close_run, log_metrics, log_text, open_run

CHECKS = 10  # of each version
_OF_RUN = ("runs", "tags", "latest_metrics", "params")
_YEAR_MS = 365 * 86_400_000
Row = dict[str, Any]


def make_versions(task: str, folder: Path, count: int) -> str:
    """Register so many versions, each with its refresh and checks through a year; the newest is champion and returned."""
    client = MlflowClient()
    client.create_experiment(task, artifact_location=str(folder / "artifacts"))
    client.create_registered_model(task)
    for number in range(CHECKS):
        check = open_run(task, "watch", {"perpetune.kind": "watch"}, {})
        log_metrics(check, {f"window/{name}": float(number) for name in ("rows", "labelled", "score")})
        close_run(check, succeeded=True)
    first = _version(task)
    with closing(sqlite3.connect(folder / "mlflow.db")) as store, store:
        store.row_factory = sqlite3.Row
        _copy(store, first, count)
    last = str(count)
    client.set_registered_model_alias(task, "champion", last)
    registry.tag_version(task, last, {"answers": f"{registry.get(task, last).run_id}/challenger"})
    return last


def _version(task: str) -> str:
    """The first version, and the id of its run, whose artifacts all copies have."""
    run = open_run(task, "refresh", {"perpetune.kind": "refresh", "perpetune.trigger": "decay"}, {"epochs": 3})
    log_metrics(run, {DEVICE_HOURS: 0.1, LABELS: 100.0, "data/train_rows": 300.0, "challenger/frozen/score": 0.9})
    log_text(run, _answers(), "answers/challenger.jsonl")
    close_run(run, succeeded=True)
    version = MlflowClient().create_model_version(task, f"runs:/{run.id}/model", run.id)
    registry.tag_version(
        task, str(version.version), {"decision": "promote", "data.version": "d", "adapter.digest": "a"}
    )
    return run.id


def _answers() -> str:
    rows = (
        RecordedAnswer(
            id=f"f{number}",
            holdout="frozen",
            output="bad" if number % 10 == 0 else "good",
            confidence=0.9,
            score=float(number % 10 != 0),
        )
        for number in range(80)
    )
    return "".join(row.model_dump_json() + "\n" for row in rows)


def _copy(store: sqlite3.Connection, first: str, count: int) -> None:
    checks = [row["run_uuid"] for row in store.execute("SELECT run_uuid FROM runs WHERE run_uuid != ?", (first,))]
    templates = {run: {table: _rows(store, table, "run_uuid", run) for table in _OF_RUN} for run in (first, *checks)}
    [version] = _rows(store, "model_versions", "version", 1)
    tags = _rows(store, "model_version_tags", "version", 1)
    now = int(time.time() * 1000)
    for number in range(2, count + 1):
        began = now - _YEAR_MS * (count - number + 1) // count
        run = _copy_run(store, templates[first], began)
        made = {"version": number, "run_id": run, "creation_time": began, "last_updated_time": began}
        _insert(store, "model_versions", {**version, **made})
        for tag in tags:
            _insert(store, "model_version_tags", {**tag, "version": number})
        for each in checks:
            _copy_run(store, templates[each], began)


def _copy_run(store: sqlite3.Connection, template: Mapping[str, list[Row]], began: int) -> str:
    run = uuid.uuid4().hex
    for table, rows in template.items():
        for row in rows:
            times = {"start_time": began, "end_time": began + 60_000} if table == "runs" else {}
            _insert(store, table, {**row, "run_uuid": run, **times})
    return run


def _rows(store: sqlite3.Connection, table: str, column: str, value: object) -> list[Row]:
    return [dict(row) for row in store.execute(f"SELECT * FROM {table} WHERE {column} = ?", (value,))]


def _insert(store: sqlite3.Connection, table: str, row: Row) -> None:
    names = ", ".join(f'"{name}"' for name in row)
    store.execute(f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(row))})", tuple(row.values()))
