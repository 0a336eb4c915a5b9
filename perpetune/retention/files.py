"""Files of the home folder that are due: downloads of versions, and log files of services."""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from perpetune.retention.due import Due
from perpetune.tracking import registry
from perpetune.workspace import Workspace

_MB = 1e6


def due_downloads(workspace: Workspace, now: datetime) -> Due:
    days = workspace.params.retention.release_days
    found = [] if days is None else list(_unused_downloads(workspace, now - timedelta(days=days)))

    def delete() -> None:
        for folder in found:
            shutil.rmtree(folder, ignore_errors=True)

    return Due("downloads of versions that do not serve", len(found), sum(map(_size, found)), delete)


def due_logs(workspace: Workspace) -> Due:
    """Log files that have grown too large. Their services go on writing: they append, wherever the end is."""
    most = workspace.params.retention.log_megabytes
    files = sorted((workspace.home / "logs").glob("*.log"))
    found = [path for path in files if most is not None and path.stat().st_size > most * _MB]

    def delete() -> None:
        for path in found:
            _rotate(path)

    return Due("large log files of services", len(found), sum(path.stat().st_size for path in found), delete)


def _rotate(path: Path) -> None:
    """Compress the file into its only predecessor and empty it. What is written in between, a line at most, is lost."""
    unfinished = path.with_name(f".{path.name}.gz.tmp")
    with path.open("rb") as log, gzip.open(unfinished, "wb") as packed:
        shutil.copyfileobj(log, packed)
    unfinished.replace(path.with_name(f"{path.name}.gz"))
    os.truncate(path, 0)


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
