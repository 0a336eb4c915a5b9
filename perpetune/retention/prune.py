"""Retention: what is old and nothing needs is planned, written into the audit log, and deleted.

Each kind of thing may be deleted again after an interruption, so a retention that was killed goes on with the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from perpetune.audit.actor import actor
from perpetune.audit.entry import Event
from perpetune.audit.store import append_first
from perpetune.errors import PerpetuneError
from perpetune.loop.run_context import use_mlflow
from perpetune.prediction_log.database import error_text, open_log
from perpetune.prediction_log.writes import count_older, delete_older
from perpetune.retention.data import dvc_at_rest, unneeded_objects
from perpetune.retention.due import Due
from perpetune.retention.files import due_downloads, due_logs
from perpetune.retention.needed import needed
from perpetune.retention.runs import deletion_of_runs, due_checks, due_refreshes, due_reports
from perpetune.tracking import registry
from perpetune.tracking.old_runs import runs_before
from perpetune.tracking.registry import Version
from perpetune.tracking.runs import MlflowError
from perpetune.workspace import Workspace


@dataclass(frozen=True)
class Removal:
    """What goes, or would: its name, how many, and their bytes as far as they are known."""

    name: str
    count: int
    bytes: int

    @property
    def line(self) -> str:
        return f"{self.count:,} {self.name}" + (f", {self.bytes / 1e6:,.1f} MB" if self.bytes else "")


def prune(workspace: Workspace, now: datetime, *, dry_run: bool) -> list[Removal]:
    """Delete what `retention` and `log.retention_days` in params.yaml do not keep; with `dry_run` only say what would go.

    Raises PerpetuneError if MLflow, its artifact store, the database or DVC fails; what was deleted until then stays so.
    """
    use_mlflow(workspace)
    try:
        found = plan(workspace, now)
        if not dry_run and any(each.count for each in found):
            _audit(workspace, found)
            for each in found:
                each.delete()
    except (MlflowError, SQLAlchemyError, OSError) as fault:
        why = error_text(fault) if isinstance(fault, SQLAlchemyError) else str(fault)
        raise PerpetuneError(
            f"not everything could be deleted: {why}",
            do="see that MLflow, its artifact store and the prediction log can be reached; the next run goes on",
        ) from fault
    return [Removal(each.name, each.count, each.bytes) for each in found]


def plan(workspace: Workspace, now: datetime) -> list[Due]:
    """Everything that is due, in the order in which it is deleted: versions before their data."""
    versions = registry.versions(workspace.params.task.name)
    kept = needed(workspace, versions, now)
    checks = due_checks(workspace, kept, now)
    refreshes = due_refreshes(workspace, kept, now)
    going = frozenset(each.run.id for each in (*checks, *refreshes))
    return [
        _rows(workspace, now),
        due_reports(workspace, now, going),
        deletion_of_runs("runs of checks", checks, (), workspace),
        deletion_of_runs("runs of refreshes whose versions never served", refreshes, versions, workspace),
        due_downloads(workspace, now),
        _data(workspace, [each for each in versions if each.run_id not in going], going, now),
        due_logs(workspace),
    ]


def _rows(workspace: Workspace, now: datetime) -> Due:
    """Rows of the prediction log, which gateways delete too while they run."""
    days, task = workspace.params.log.retention_days, workspace.params.task.name
    before = None if days is None else now - timedelta(days=days)
    log = open_log(workspace.settings.prediction_log)
    try:
        count = 0 if before is None else count_older(log, task, before)
    finally:
        log.dispose()

    def delete() -> None:
        log = open_log(workspace.settings.prediction_log)
        try:
            while before is not None and delete_older(log, task, before):
                pass
        finally:
            log.dispose()

    return Due("rows of the prediction log", count, 0, delete)


def _data(workspace: Workspace, versions: Sequence[Version], going: frozenset[str], now: datetime) -> Due:
    """Objects of DVC that neither these versions nor the runs that stay need."""
    days, root = workspace.params.retention.data_days, workspace.root
    name = "objects of DVC that no kept version needs"
    if days is None or not (root / ".dvc").is_dir():
        return Due(name, 0, 0, lambda: None)
    before = now - timedelta(days=days)
    wanted = {*(each.tags.get("data.version") for each in versions), *_data_of_runs(workspace, going, now)} - {None}
    commits = {each.tags.get("git.commit", "").rstrip("+") for each in versions} - {"", "unknown"}

    def unneeded() -> list[Path]:
        return unneeded_objects(root, map(str, wanted), commits, before)

    def delete() -> None:
        with dvc_at_rest(root):
            for path in unneeded():  # dvc.lock may name others than when the plan was made
                path.unlink(missing_ok=True)

    found = unneeded()
    return Due(name, len(found), sum(path.stat().st_size for path in found), delete)


def _data_of_runs(workspace: Workspace, going: frozenset[str], now: datetime) -> set[str | None]:
    """The data of refreshes that stay: one that was interrupted goes on with them."""
    runs = runs_before(workspace.params.task.name, "refresh", now)
    return {each.data.params.get("data.version") for each in runs if each.info.run_id not in going}


def _audit(workspace: Workspace, found: Sequence[Due]) -> None:
    """Append what will be deleted. A deletion that nobody could trace is not made, so this comes first."""
    details = {each.name: ", ".join((f"{each.count}", *each.which)) for each in found if each.count}
    append_first(
        workspace.settings.prediction_log,
        Event(actor(), "began to delete what retention does not keep", workspace.params.task.name, details),
        "the deletion",
        "see that the database can be written, and run the command again",
    )
