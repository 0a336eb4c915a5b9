from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from perpetune.retention.prune import prune
from perpetune.tracking.runs import artifact_names, close_run, log_text, open_run, tag
from perpetune.workspace import Workspace

pytestmark = pytest.mark.slow


def test_only_what_is_old_and_needed_by_nobody_goes(
    tmp_path: Path, new_loop_workspace: Callable[[Path], Workspace]
) -> None:
    workspace, runs = new_loop_workspace(tmp_path), {}
    for outcome in ("no decay", "retrain"):
        run = open_run("colours", "check", {"perpetune.kind": "watch"}, {})
        tag(run, {"decision": outcome})
        log_text(run, "<html>", "drift.html")
        log_text(run, "{}", "decision.json")
        close_run(run, succeeded=True)
        runs[outcome] = run.id
    old, new = (workspace.home / f"releases/colours/{version}-ab" for version in (1, 2))
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / "adapter").write_text("weights")
    later = datetime.now(UTC) + timedelta(days=40)
    os.utime(new, (later.timestamp(), later.timestamp()))

    assert [each.count for each in prune(workspace, 60, later, dry_run=False)] == [0, 0]
    expected = [(1, 6), (1, 7)]
    for dry_run in (True, False):
        assert [(each.count, each.bytes) for each in prune(workspace, 30, later, dry_run=dry_run)] == expected
        assert old.exists() == dry_run and new.exists()
        assert artifact_names(runs["retrain"], "") == ["decision.json", "drift.html"]
        assert ("drift.html" in artifact_names(runs["no decay"], "")) == dry_run
        assert "decision.json" in artifact_names(runs["no decay"], "")
    assert [each.count for each in prune(workspace, 30, later, dry_run=True)] == [0, 0]
