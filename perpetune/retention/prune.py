"""Old reports of checks, and downloads of versions that do not serve.

Decision records, versions, the prediction log and data stay. A report of a check that found decay stays too.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from perpetune.loop.run_context import use_mlflow
from perpetune.loop.watch.check import REPORT
from perpetune.tracking import registry
from perpetune.tracking.old_reports import OldReport, delete_report, old_reports
from perpetune.workspace import Workspace

KEPT_OUTCOMES = frozenset({"retrain", "roll back"})


@dataclass(frozen=True)
class Removal:
    """What goes, or would: its name, how many, and their bytes."""

    name: str
    count: int
    bytes: int


def prune(workspace: Workspace, days: float, now: datetime, *, dry_run: bool) -> list[Removal]:
    """Delete what is older than `days`; with `dry_run` only say what would go. Raises PerpetuneError without MLflow."""
    use_mlflow(workspace)
    before = now - timedelta(days=days)
    reports = list(old_reports(workspace.params.task.name, REPORT, before, KEPT_OUTCOMES))
    downloads = {path: _size(path) for path in _unused_downloads(workspace, before)}
    if not dry_run:
        _delete(reports, list(downloads))
    return [
        Removal("drift reports of checks", len(reports), sum(each.bytes for each in reports)),
        Removal("downloads of versions that do not serve", len(downloads), sum(downloads.values())),
    ]


def _delete(reports: list[OldReport], downloads: list[Path]) -> None:
    for report in reports:
        delete_report(report)
    for folder in downloads:
        shutil.rmtree(folder)


def _unused_downloads(workspace: Workspace, before: datetime) -> Iterator[Path]:
    """Folders VERSION-DIGEST of versions without an alias, unchanged since then: MLflow has them."""
    task = workspace.params.task.name
    named = set(registry.aliases_of(task))
    folder = workspace.home / "releases" / task
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        version = path.name.partition("-")[0]
        if path.is_dir() and version.isdecimal() and version not in named and path.stat().st_mtime < before.timestamp():
            yield path


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
