"""Evidence for the first refresh: labelled requests and rows that no refresh has used."""

from __future__ import annotations

from datetime import UTC, datetime

from perpetune.curation.rows.sources import is_traffic
from perpetune.curation.running.layout import INBOX
from perpetune.curation.steps.fetch import fetch
from perpetune.errors import NoExamples
from perpetune.loop.label_rule import label_rule
from perpetune.loop.watch.refresh_history import newest_refresh, refreshes_before
from perpetune.policy.first_refresh import FirstRefreshEvidence
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.queries import labelled_since
from perpetune.tracking.registry import Version
from perpetune.workspace import Workspace


def first_refresh_evidence(workspace: Workspace, champion: Version) -> FirstRefreshEvidence:
    """Count the unused labels and rows, and gather what a refresh has to wait for."""
    used_until = newest_refresh(champion.task)
    refreshes = refreshes_before(champion, workspace.params.refresh.cooldown_minutes)
    return FirstRefreshEvidence(
        labelled=_labelled(workspace, used_until),
        rows=_rows(workspace, used_until),
        minutes_since_refresh=refreshes.minutes_since,
        unsuccessful_refreshes=refreshes.failures,
        device_hours=refreshes.device_hours,
    )


def _labelled(workspace: Workspace, since: float | None) -> int:
    log = open_log(workspace.settings.prediction_log)
    try:
        return labelled_since(log, workspace.params.task.name, _time(since), label_rule(workspace))
    finally:
        log.dispose()


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _rows(workspace: Workspace, since: float | None) -> int:
    """Rows of all sources but traffic; after a refresh those that were ingested since."""
    sources = workspace.params.fetch.sources
    if since is None:
        try:
            found = fetch(sources, workspace.root, workspace.assets).examples
        except NoExamples:
            return 0
        return sum(not is_traffic(row) for row in found)
    if "inbox" not in sources:
        return 0
    files = [file for file in (workspace.root / INBOX).glob("*.jsonl") if file.stat().st_mtime > since]
    return sum(file.read_bytes().count(b"\n") for file in files)
