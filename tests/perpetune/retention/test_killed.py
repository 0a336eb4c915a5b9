"""A retention that is killed goes on with the next one, on either database, and nothing that is kept is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy
from mlflow.tracking import MlflowClient
from postgres_server import postgres_server
from sqlalchemy import func, select

from perpetune.audit.entry import verify
from perpetune.audit.store import entries
from perpetune.params import RetentionParams
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.queries import counts
from perpetune.prediction_log.tables import feedback, label_requests, predictions
from perpetune.prediction_log.writes import record_rows
from perpetune.records import Feedback, Prediction
from perpetune.retention.prune import prune
from perpetune.tracking.runs import close_run, open_run, tag
from perpetune.workspace import Workspace

pytestmark = pytest.mark.slow

NOW = datetime.now(UTC) + timedelta(days=1000)
BATCH, BATCHES, KEPT = 500, 3, 100  # rows that one transaction deletes, how many of them are due, rows that stay
OLD = BATCH * BATCHES
# The process is killed inside the transaction of its second batch, when its rows are deleted and nothing is committed.
PRUNE = """
import os
import signal
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path
import sqlalchemy
from perpetune.params import Params
from perpetune.retention.prune import prune
from perpetune.settings import Settings
from perpetune.workspace import Workspace

deletions = []

@sqlalchemy.event.listens_for(sqlalchemy.Engine, "after_cursor_execute")
def kill(connection, cursor, statement, *_):
    deletions.extend([statement] if statement.startswith("DELETE FROM predictions") else [])
    if len(deletions) == 2:
        os.kill(os.getpid(), signal.SIGKILL)

root, params, settings, now = sys.argv[1:]
workspace = Workspace(Path(root), Params.model_validate_json(params), Settings.model_validate_json(settings))
prune(workspace, datetime.fromisoformat(now), dry_run=False)
"""


@contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    if kind == "postgresql":
        with postgres_server() as postgres:
            yield postgres.url
    else:
        yield f"sqlite:///{folder / 'predictions.db'}"


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_killed_retention_goes_on(
    kind: str,
    tmp_path: Path,
    new_loop_workspace: Callable[[Path], Workspace],
    prediction: Callable[..., Prediction],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with database(kind, tmp_path) as url:
        monkeypatch.setenv("PERPETUNE_DATABASE_URL", url)
        workspace = _keeping_recent(new_loop_workspace(tmp_path), url)
        log = open_log(url)
        try:
            kept = _fill(log, prediction)
            checks = [_check() for _ in range(3)]
            for killed in (1, 2):
                _kill_at_the_second_batch(workspace)
                assert _rows(log) == OLD - killed * BATCH + KEPT, "the batch that was killed came back whole"
                assert kept <= _ids(log)
            found = {each.name: each.count for each in prune(workspace, NOW, dry_run=False)}
            assert found["rows of the prediction log"] == OLD - 2 * BATCH
            assert (_ids(log), _rows(log, feedback), _rows(log, label_requests)) == (kept, KEPT, 0)
            assert counts(log, "colours").versions == {"1": KEPT}, "the counts that triggers keep are those of the rows"
            assert _active_runs() == {checks[-1]}, "the newest check stays"
            assert not any(each.count for each in prune(workspace, NOW, dry_run=True))
            verify(entries(log))
        finally:
            log.dispose()


def _keeping_recent(workspace: Workspace, url: str) -> Workspace:
    params = workspace.params.model_copy(
        update={
            "log": workspace.params.log.model_copy(update={"retention_days": 30}),
            "retention": RetentionParams.model_validate({"check_days": 30, "release_days": None, "data_days": None}),
        }
    )
    return replace(workspace, params=params, settings=workspace.settings.model_copy(update={"database_url": url}))


def _fill(log: sqlalchemy.Engine, prediction: Callable[..., Prediction]) -> set[str]:
    """Old rows and newer ones, each with feedback; returns the ids of the newer ones."""
    one = prediction(0, task="colours")
    times = [NOW - timedelta(days=31, seconds=number) for number in range(OLD)]
    times += [NOW - timedelta(days=29, seconds=number) for number in range(KEPT)]
    rows = [one.model_copy(update={"id": f"chatcmpl-{n}", "time": time}) for n, time in enumerate(times)]
    labels = [Feedback(request_id=row.id, time=row.time, label="red") for row in rows[OLD - KEPT :]]
    record_rows(log, [*rows, *labels])
    return {row.id for row in rows[OLD:]}


def _check() -> str:
    run = open_run("colours", "check", {"perpetune.kind": "watch"}, {})
    tag(run, {"decision": "no decay"})
    close_run(run, succeeded=True)
    return run.id


def _kill_at_the_second_batch(workspace: Workspace) -> None:
    """Run a retention in a process of its own, which dies there as by `kill -9`."""
    settings = workspace.settings.model_dump_json(by_alias=False)
    given = (str(workspace.root), workspace.params.model_dump_json(), settings, NOW.isoformat())
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", PRUNE, *given], env=path, capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr


def _rows(log: sqlalchemy.Engine, table: sqlalchemy.Table = predictions) -> int:
    with log.connect() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


def _ids(log: sqlalchemy.Engine) -> set[str]:
    with log.connect() as connection:
        return set(connection.execute(select(predictions.c.id)).scalars())


def _active_runs() -> set[str]:
    found = MlflowClient().get_experiment_by_name("colours")
    assert found is not None
    return {each.info.run_id for each in MlflowClient().search_runs([found.experiment_id])}
