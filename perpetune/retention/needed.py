"""What may not be deleted, however old it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from perpetune.loop.approve import pending_approvals
from perpetune.loop.assess.holdout_uses import TAG as HOLDOUT_VERDICTS
from perpetune.loop.label_rule import label_rule
from perpetune.policy.retraining import LONGEST_COOLDOWN
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.labels.requests import versions_of_open_requests
from perpetune.tracking import registry
from perpetune.tracking.registry import Version
from perpetune.tracking.runs import newest_of_any_status, newest_run, newest_tagged, read_run
from perpetune.workspace import Workspace

NEVER_SERVED = (None, "refused", "aborted")


@dataclass(frozen=True)
class Needed:
    """Runs that stay, by their ids, with the versions that they made; refreshes that began at or after `since` stay too."""

    runs: frozenset[str]
    since: datetime


def needed(workspace: Workspace, versions: list[Version], now: datetime) -> Needed:
    """What the registry, the next refresh, the next check and open label requests read."""
    task = workspace.params.task.name
    kept = _kept_versions(workspace, versions)
    of_versions = [each for each in versions if each.version in kept]
    return Needed(
        frozenset([*(run for each in of_versions for run in _runs_of(each)), *_newest_runs(task)]),
        min([_since(workspace, now), *_starts_of_champions(task)]),
    )


def _kept_versions(workspace: Workspace, versions: list[Version]) -> frozenset[str]:
    """Versions with an alias, that ever served (the anchor is chosen among them), or that wait for a person or for labels."""
    task = workspace.params.task.name
    served = {each.version for each in versions if _may_have_served(each)}
    waiting = {each.version for each in pending_approvals(workspace)}
    log = open_log(workspace.settings.prediction_log)
    try:
        asked = versions_of_open_requests(log, task, label_rule(workspace))
    finally:
        log.dispose()
    return frozenset({*registry.aliases_of(task), *served, *waiting, *asked})


def _may_have_served(version: Version) -> bool:
    """Also a version of an older perpetune, which wrote down less, and one that is promoted and not yet released."""
    return version.tags.get(registry.STATE) not in NEVER_SERVED or version.tags.get("decision") == "promote"


def _runs_of(version: Version) -> Iterator[str]:
    """The run that made the version, and the one that evaluated it last."""
    yield version.run_id
    if "answers" in version.tags:
        yield version.tags["answers"].partition("/")[0]


def _newest_runs(task: str) -> Iterator[str]:
    """Runs by which the next one goes on: a refresh that may be unfinished or wait for labels, and counts of verdicts."""
    for kind in ("refresh", "watch"):
        finished, newest = newest_run(task, kind), newest_of_any_status(task, kind)
        yield from [finished[0].id] if finished else []
        yield from [newest.run.id] if newest else []
    counted = newest_tagged(task, HOLDOUT_VERDICTS, but="")
    yield from [counted] if counted else []


def _since(workspace: Workspace, now: datetime) -> datetime:
    """Cooldown and budget count the refreshes of this time."""
    return now - timedelta(minutes=max(LONGEST_COOLDOWN, workspace.params.refresh.cooldown_minutes))


def _starts_of_champions(task: str) -> Iterator[datetime]:
    """The cooldown counts the refreshes since that of the champion, which after a rollback is the previous one."""
    for found in (registry.find(task, "champion"), registry.find(task, "previous")):
        if found is not None:
            yield read_run(found.run_id).started
