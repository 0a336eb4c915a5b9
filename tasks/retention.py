"""Prefect task: delete what is old and no longer needed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from perpetune.retention.prune import Removal
from perpetune.retention.prune import prune as prune_workspace
from perpetune.tasks.retries import unless_user_error
from perpetune.tasks.time_limits import limited_task
from perpetune.workspace import Workspace


@limited_task(
    "other",
    name="prune",
    task_run_name="delete what is old and no longer needed",
    retries=1,
    retry_delay_seconds=60,
    retry_condition_fn=unless_user_error,
    cache_policy=NO_CACHE,
)
def prune(workspace: Workspace, *, delete: bool) -> str:
    """Delete it, or say what would go; returns that in one line, and makes a table of it."""
    found = prune_workspace(workspace, datetime.now(UTC), dry_run=not delete)
    did = "deleted" if delete else "would delete"
    line = summary(did, found)
    create_table_artifact(
        [{"what": each.name, "count": each.count, "MB": round(each.bytes / 1e6, 1)} for each in found],
        key="retention",
        description=line,
    )
    print(line)
    if not delete:
        print("nothing was deleted: set retention.delete: true in params.yaml")
    return line


def summary(did: str, found: Sequence[Removal]) -> str:
    """What was deleted in one line."""
    lines = [each.line for each in found if each.count]
    return f"{did} {'; '.join(lines)}" if lines else f"{did} nothing"
