"""The retention flow on a real MLflow store and a real Prefect server."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from prefect import get_client
from workspaces import write_params

from perpetune.audit.store import entries
from perpetune.flows.retention import retention
from perpetune.prediction_log.database import open_log
from perpetune.workspace import open_workspace

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect"), pytest.mark.timeout(300, method="thread")]


def test_it_reports_until_a_setting_lets_it_delete(
    tmp_path: Path, new_mlflow_store: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_params(tmp_path, task={"name": "colours"})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", new_mlflow_store(tmp_path))
    download = tmp_path / ".perpetune/releases/colours/1-ab"
    download.mkdir(parents=True)
    (download / "adapter").write_bytes(b"x" * 150_000)
    os.utime(download, (0, datetime.now(UTC).timestamp() - 31 * 24 * 3600))
    what = "1 downloads of versions that do not serve, 0.1 MB"

    assert retention() == f"would delete {what}"
    assert download.is_dir()
    settings = yaml.safe_load((tmp_path / "params.yaml").read_text())
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings | {"retention": {"delete": True}}))
    assert retention(trigger="schedule") == f"deleted {what}"
    assert not download.exists()
    assert retention() == "deleted nothing"
    with get_client(sync_client=True) as client:
        found = client.read_artifacts()
    assert [each.description for each in found if each.key == "retention"].count(f"deleted {what}") == 1
    log = open_log(open_workspace().settings.prediction_log)
    [entry] = entries(log)
    log.dispose()
    assert entry.event.details == {"downloads of versions that do not serve": "1"}
