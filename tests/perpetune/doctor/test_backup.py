from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from workspaces import write_params

from perpetune.backup.create import create_backup
from perpetune.doctor.data import backup
from perpetune.runtime.last_backup import last_backup, note_backup
from perpetune.workspace import open_workspace


def test_a_workspace_is_warned_of_until_there_is_a_young_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "workspace"
    root.mkdir()
    monkeypatch.chdir(root)
    write_params(root, retention={"backup_days": 7})
    workspace, now = open_workspace(root), datetime.now(UTC)
    assert (backup(workspace, now).level, backup(workspace, now).what) == (
        "warning",
        "no backup was made of this workspace",
    )
    made = create_backup(workspace, str(tmp_path / "backup"), lambda _: None)
    assert backup(workspace, now + timedelta(days=6)).level == "ok"
    assert str(tmp_path / "backup") in backup(workspace, now).what
    late = backup(workspace, made.time + timedelta(days=7, seconds=1))
    assert late.level == "warning" and "older than 7 days" in late.what
    (workspace.home / "last-backup.json").write_text("{")
    assert backup(workspace, now).level == "warning"
    write_params(root, retention={"backup_days": None})
    assert backup(open_workspace(root), now).level == "not checked"


def test_the_note_of_a_backup_holds_no_password(tmp_path: Path) -> None:
    note_backup(tmp_path, datetime.now(UTC), "sftp://ana:PASSWORD@host/backups/1")
    found = last_backup(tmp_path)
    assert found is not None and found.place == "sftp://host/backups/1"
