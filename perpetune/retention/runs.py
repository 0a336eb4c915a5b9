"""Runs of checks and refreshes that are due, with reports, versions and scratch files."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from perpetune.loop.watch.check import REPORT
from perpetune.retention.due import Due
from perpetune.retention.needed import Needed
from perpetune.tracking import registry
from perpetune.tracking.old_reports import OldReport, delete_report, old_reports
from perpetune.tracking.old_runs import OldRun, delete_old_run, old_run, runs_before
from perpetune.tracking.registry import Version
from perpetune.workspace import Workspace

KEPT_OUTCOMES = frozenset({"retrain", "roll back"})


def due_reports(workspace: Workspace, now: datetime, gone: frozenset[str]) -> Due:
    """Drift reports of checks; those of runs that are `gone` are counted there."""
    days, found = workspace.params.retention.report_days, list[OldReport]()
    if days is not None:
        before = now - timedelta(days=days)
        found = [
            each
            for each in old_reports(workspace.params.task.name, REPORT, before, KEPT_OUTCOMES)
            if each.run_id not in gone
        ]

    def delete() -> None:
        for each in found:
            delete_report(each)

    return Due("drift reports of checks", len(found), sum(each.bytes for each in found), delete)


def due_checks(workspace: Workspace, needed: Needed, now: datetime) -> list[OldRun]:
    """Runs of checks that found no decay."""
    days, task = workspace.params.retention.check_days, workspace.params.task.name
    if days is None:
        return []
    found = runs_before(task, "watch", now - timedelta(days=days))
    return [
        old_run(each) for each in found if _is_due(each, needed) and each.data.tags.get("decision") not in KEPT_OUTCOMES
    ]


def due_refreshes(workspace: Workspace, needed: Needed, now: datetime) -> list[OldRun]:
    """Runs of refreshes that made no version which is needed."""
    days, task = workspace.params.retention.refresh_days, workspace.params.task.name
    if days is None:
        return []
    found = runs_before(task, "refresh", min(now - timedelta(days=days), needed.since))
    return [old_run(each) for each in found if _is_due(each, needed)]


def _is_due(run: Any, needed: Needed) -> bool:
    return run.info.status != "RUNNING" and run.info.run_id not in needed.runs


def deletion_of_runs(name: str, runs: Sequence[OldRun], versions: Sequence[Version], workspace: Workspace) -> Due:
    """The deletion of runs, their versions first: nobody can be given a version whose files are half gone."""
    made = _versions_by_run(versions)

    def delete() -> None:
        for each in runs:
            _delete(workspace, each, made.get(each.run.id, ()))

    which = sorted((each.version for run in runs for each in made.get(run.run.id, ())), key=int)
    freed = sum(each.bytes for each in runs)
    return Due(name, len(runs), freed, delete, tuple(f"version {number}" for number in which))


def _versions_by_run(versions: Sequence[Version]) -> Mapping[str, Sequence[Version]]:
    found: dict[str, list[Version]] = defaultdict(list)
    for each in versions:
        found[each.run_id].append(each)
    return found


def _delete(workspace: Workspace, run: OldRun, made: Sequence[Version]) -> None:
    named = registry.aliases_of(workspace.params.task.name)
    if any(each.version in named for each in made):
        return  # promoted by hand since the plan was made
    for each in made:
        registry.delete_version_alone(each.task, each.version)
    shutil.rmtree(workspace.home / "runs" / run.run.id, ignore_errors=True)
    delete_old_run(run)
