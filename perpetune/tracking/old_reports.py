"""Reports of checks that are old: a check leaves 1.6 MB of HTML, which an hourly schedule makes 14 GB a year."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient

from perpetune.tracking.old_runs import runs_before

_GONE = "perpetune.report_deleted"  # tag of a run


@dataclass(frozen=True)
class OldReport:
    run_id: str
    artifact_uri: str
    name: str
    bytes: int


def old_reports(experiment: str, name: str, before: datetime, kept_outcomes: frozenset[str]) -> Iterator[OldReport]:
    """The report `name` of each finished check that began before then, unless its decision is among `kept_outcomes`."""
    for run in runs_before(experiment, "watch", before):
        unfinished = run.info.status != "FINISHED"
        if unfinished or run.data.tags.get("decision") in kept_outcomes or _GONE in run.data.tags:
            continue
        found = [each for each in get_artifact_repository(run.info.artifact_uri).list_artifacts() if each.path == name]
        yield from (OldReport(run.info.run_id, run.info.artifact_uri, name, each.file_size or 0) for each in found)


def delete_report(report: OldReport) -> None:
    """Delete the report; the run with its numbers and its decision record stays."""
    store: Any = get_artifact_repository(report.artifact_uri)
    store.delete_artifacts(report.name)
    MlflowClient().set_tag(report.run_id, _GONE, "true")
