"""Restoring a backup into an empty folder: all of it is checked before anything is in place."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from perpetune.backup.create import LOG, folder_of
from perpetune.backup.databases import require_empty, restore_postgresql
from perpetune.backup.manifest import BackedUpFile, Manifest, Place, read_manifest
from perpetune.errors import PerpetuneError

Say = Callable[[str], None]

_STAGE = ".perpetune-restore"
_SPARED = {".git", ".venv", "venv", "assets", _STAGE}
_CHUNK = 1 << 20


def restore_backup(
    address: str, root: Path, say: Say, *, log: str | None = None, databases: Mapping[str, str] | None = None
) -> Manifest:
    """Restore a backup into an empty folder, and its dumps into empty PostgreSQL databases: the prediction log into `log`.

    Raises PerpetuneError if the folder or a database is not empty, a database is not named, or a file of the backup is
    missing or damaged. Nothing is in place then.
    """
    place = Place(address)
    manifest = read_manifest(place)
    _require_empty(root)
    urls = {**({LOG: log} if log else {}), **(databases or {})}
    dumps = [each for each in manifest.files if each.kind == "postgresql"]
    for each in dumps:
        if each.name not in urls or not urls[each.name].startswith("postgres"):
            do = "PERPETUNE_DATABASE_URL" if each.name == LOG else f"--database {each.name}=URL"
            raise PerpetuneError(
                f"the backup has the database {each.name}", do=f"name an empty PostgreSQL database: {do}"
            )
        require_empty(urls[each.name])
    stage = root / _STAGE
    shutil.rmtree(stage, ignore_errors=True)  # of a restore that was interrupted
    try:
        for each in manifest.files:
            _fetch(place, each, stage)
        say(f"{len(manifest.files):,} files have the digests of the manifest")
        for each in dumps:
            restore_postgresql(urls[each.name], _staged(stage, each))
            say(f"the database {each.name} is restored")
        for entry in (stage / folder_of("file")).iterdir():
            entry.rename(root / entry.name)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return manifest


def _require_empty(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    if found := sorted(entry.name for entry in root.iterdir() if entry.name not in _SPARED):
        raise PerpetuneError(
            f"the folder is not empty: {', '.join(found[:5])}", where=str(root), do="restore into an empty folder"
        )


def _staged(stage: Path, file: BackedUpFile) -> Path:
    path = stage / folder_of(file.kind) / file.name
    if not path.resolve().is_relative_to(stage.resolve()):
        raise PerpetuneError(
            "the manifest names a file outside the workspace", where=file.name, do="use another backup"
        )
    return path


def _fetch(place: Place, file: BackedUpFile, stage: Path) -> None:
    path, digest = _staged(stage, file), hashlib.sha256()
    path.parent.mkdir(parents=True, exist_ok=True)
    name = f"{folder_of(file.kind)}/{file.name}"
    try:
        with place.open(name, "rb") as source, path.open("wb") as target:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                target.write(chunk)
    except FileNotFoundError:
        raise _damaged(place, name, "is missing") from None
    except OSError as fault:
        raise place.unreachable(fault) from fault
    if digest.hexdigest() != file.sha256:
        raise _damaged(place, name, "is damaged: its content has another digest than the manifest says")
    path.chmod(file.mode)


def _damaged(place: Place, name: str, what: str) -> PerpetuneError:
    return PerpetuneError(f"a file of the backup {what}", where=f"{place.address}/{name}", do="use another backup")
