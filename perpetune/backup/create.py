"""Making a backup while everything runs.

What refers comes before what it refers to: the spool before the log that its rows go to, databases before the artefacts
that they name, dvc.lock before the cache. What was written in between is in the backup twice, or named by nobody.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from sqlalchemy import make_url

from perpetune.backup.databases import copy_sqlite, dump_postgresql
from perpetune.backup.manifest import NAME, BackedUpFile, Kind, Manifest, Place
from perpetune.errors import PerpetuneError
from perpetune.runtime.last_backup import note_backup
from perpetune.workspace import Workspace

Say = Callable[[str], None]

LOG = "log"  # the name of the prediction log among the databases
_PACKAGES = ("perpetune", "mlflow", "prefect", "dvc", "sqlalchemy")
# In the home folder: what the next run makes again, or gets from MLflow.
_MADE_AGAIN = ("logs", "releases", "checkpoints", "reproductions", "runs", "addresses.env", "up.lock")
_OF_DVC = ("dvc.lock", ".dvc/config", ".dvc/config.local")
_SECRETS = (".env",)
_SQLITE = b"SQLite format 3\x00"
_CHUNK = 1 << 20


def create_backup(
    workspace: Workspace,
    to: str,
    say: Say,
    databases: Mapping[str, str] | None = None,
    *,
    files_only: bool = False,
) -> Manifest:
    """Copy the state of the workspace to an empty place; returns what is in it.

    `databases` are further PostgreSQL databases by name, such as MLflow's. With `files_only` no PostgreSQL database is in
    it: tasks that share one need it in one backup. Raises PerpetuneError if the place has files, or
    something cannot be read or written; what is there then is no backup.
    """
    place = Place(to)
    if not place.is_empty():
        raise PerpetuneError("the backup's folder has files already", where=to, do="name a new folder")
    dumps = {} if files_only else {**_log_database(workspace), **(databases or {})}
    try:
        files = tuple(_copied(workspace, place, dumps, say))
        manifest = Manifest(
            task=workspace.params.task.name,
            time=datetime.now(UTC),
            versions={name: version(name) for name in _PACKAGES},
            files=files,
            left_out=tuple(_left_out(workspace, dumps)),
        )
        with place.open(NAME, "wb") as file:
            file.write(manifest.model_dump_json(indent=1).encode())
    except OSError as fault:
        raise place.unreachable(fault) from fault
    note_backup(workspace.home, manifest.time, to)
    return manifest


def _log_database(workspace: Workspace) -> dict[str, str]:
    url = workspace.settings.prediction_log
    return {LOG: url} if url.startswith("postgres") else {}


def _copied(workspace: Workspace, place: Place, dumps: Mapping[str, str], say: Say) -> Iterator[BackedUpFile]:
    root, home = workspace.root, workspace.home
    say("rows that wait for the log")
    yield from _files(place, root, _below(home / "spool"))
    say("databases")
    for name, url in dumps.items():
        yield _dump(place, name, url)
    yield from _databases(place, root, _sqlite_files(workspace))
    say("settings and data")
    yield from _files(place, root, (root / name for name in _OF_DVC))
    yield from _files(place, root, _own_files(root))
    yield from _files(place, root, _below(root / "data"))
    say("artefacts, caches and the data of all versions")
    kept = (path for path in _below(home, _MADE_AGAIN) if "spool" not in path.relative_to(home).parts[:1])
    yield from _files(place, root, (path for path in kept if not _is_sqlite(path)))
    yield from _files(place, root, _below(root / ".dvc" / "cache"))


def _own_files(root: Path) -> Iterator[Path]:
    """Settings, sources and code that lie in the workspace's folder itself; further folders are Git's."""
    for path in sorted(root.iterdir()):
        if path.is_file() and path.name not in (*_SECRETS, *_OF_DVC) and not _is_sqlite(path):
            yield path


def _sqlite_files(workspace: Workspace) -> list[Path]:
    """The databases in the home folder, and those that settings name elsewhere in the workspace. The log comes first."""
    urls = (workspace.settings.prediction_log, workspace.settings.mlflow_tracking_uri or "")
    named = [Path(str(make_url(url).database)) for url in urls if url.startswith("sqlite")]
    for path in named:
        if not path.is_relative_to(workspace.root):
            raise PerpetuneError(
                "a database lies outside the workspace", where=str(path), do="move it into the workspace"
            )
    inside = [path for path in _below(workspace.home, _MADE_AGAIN) if _is_sqlite(path)]
    companions = ("-wal", "-shm", "-journal")
    found = [path for path in [*named, *inside] if path.is_file() and not path.name.endswith(companions)]
    return list(dict.fromkeys(found))


def _is_sqlite(path: Path) -> bool:
    """Whether it is a SQLite file or one of its companions."""
    for ending in ("-wal", "-shm", "-journal"):
        if path.name.endswith(ending):
            path = path.with_name(path.name.removesuffix(ending))
    try:
        with path.open("rb") as file:
            return file.read(len(_SQLITE)) == _SQLITE
    except OSError:
        return False


def _below(folder: Path, but: tuple[str, ...] = ()) -> Iterator[Path]:
    """All files below the folder, in order; `but` names entries of the folder itself."""
    for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
        if entry.name in but or entry.name.endswith(".tmp"):
            continue
        if entry.is_dir() and not entry.is_symlink():
            yield from _below(entry)
        elif entry.is_file():
            yield entry


def _databases(place: Place, root: Path, paths: list[Path]) -> Iterator[BackedUpFile]:
    for path in paths:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".backup") as folder:
            copy = Path(folder) / path.name
            copy_sqlite(path, copy)
            yield _file(place, copy, path.relative_to(root).as_posix(), path.stat().st_mode)


def _dump(place: Place, name: str, url: str) -> BackedUpFile:
    with tempfile.TemporaryDirectory() as folder:
        dump = Path(folder) / name
        dump_postgresql(url, dump)
        return _file(place, dump, name, 0o600, kind="postgresql")


def _files(place: Place, root: Path, paths: Iterator[Path]) -> Iterator[BackedUpFile]:
    for path in paths:
        try:
            mode = path.stat().st_mode
            yield _file(place, path, path.relative_to(root).as_posix(), mode)
        except FileNotFoundError:  # deleted since it was listed, as rows of the spool are when the log has them
            continue


def _file(place: Place, path: Path, name: str, mode: int, kind: Kind = "file") -> BackedUpFile:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as source, place.open(f"{folder_of(kind)}/{name}", "wb") as target:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
            target.write(chunk)
    return BackedUpFile(name=name, sha256=digest.hexdigest(), bytes=size, mode=mode & 0o777, kind=kind)


def folder_of(kind: Kind) -> str:
    """The folder in the backup."""
    return "files" if kind == "file" else "databases"


def _left_out(workspace: Workspace, dumps: Mapping[str, str]) -> Iterator[str]:
    """What belongs to the state and lies elsewhere, in sentences."""
    settings = workspace.settings
    if LOG in _log_database(workspace) and LOG not in dumps:
        yield "the prediction log in PostgreSQL (--files-only)"
    if (
        (settings.mlflow_tracking_uri or "").startswith("http")
        and "mlflow" not in dumps
        and os.environ.get("MLFLOW_TRACKING_URI")
    ):
        yield f"MLflow at {settings.mlflow_tracking_uri}: its database (--database mlflow=URL) and its artefacts"
    if settings.prefect_api_url and "prefect" not in dumps:
        yield "Prefect: the history of runs; deployments and automations are made again when the worker starts"
    if settings.dvc_remote:
        yield f"the DVC remote {settings.dvc_remote}"
    if (workspace.root / ".git").exists():
        yield "the Git repository: push it to a remote"
