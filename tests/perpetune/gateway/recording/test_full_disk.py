"""The gateway where spool and database are on a disk without room: a tmpfs, if this machine can mount one."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from waiting import eventually

from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.queries import recent_predictions

pytestmark = pytest.mark.slow

KIB = 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", folder], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a small file system cannot be mounted: run the tests as root on Linux")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def log(disk: Path) -> Iterator[sqlalchemy.Engine]:
    """In place of the usual one: `start` puts the spool beside it."""
    log = open_log(f"sqlite:///{disk / 'predictions.db'}")
    yield log
    log.dispose()


def fill(disk: Path) -> Path:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        while shutil.disk_usage(disk).free:
            file.write(bytes(4 * KIB))
    return filler


def test_answers_go_out_and_nothing_is_said_to_be_recorded(
    start: Callable[..., object], disk: Path, log: sqlalchemy.Engine
) -> None:
    gateway: Any = start()
    first = gateway.ask("before").json()["id"]
    filler = fill(disk)
    answered = []
    for number in range(40):
        reply = gateway.ask(f"{number} {'a' * 500}")
        assert reply.status_code == 200
        answered.append(reply.json()["id"])
    refused = gateway.post("/v1/feedback", {"request_id": answered[-1], "label": "good"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "log_unavailable")
    assert refused.headers["retry-after"]
    ready = gateway.get("/readyz")
    assert ready.status_code == 200
    assert "the spool cannot be written (" in ready.json()["log"]  # for want of any room, or of enough
    assert "so rows wait in memory" in ready.json()["log"]
    [in_memory] = [
        line for line in gateway.get("/metrics").text.splitlines() if line.startswith("perpetune_log_rows_in_memory")
    ]
    assert float(in_memory.split()[1]) > 0

    filler.unlink()
    eventually(lambda: gateway.ask("after").status_code == 200 and gateway.get("/readyz").json()["log"] == "ok")
    said = gateway.post("/v1/feedback", {"request_id": answered[-1], "label": "good"})
    assert said.status_code == 200
    stored = {row.id: row.label for row in recent_predictions(gateway.log, "reviews", limit=None)}
    assert {first, *answered} <= stored.keys()
    assert stored[answered[-1]] == "good"
