"""DVC's objects: the cache, and every remote that the workspace's configuration names.

An object is named by the hash of its content, so one that holds an erased row cannot stay. Its content without the row is
added under its own hash, the lists of files (`.dir`) of old data versions then name that one, and the old object is
deleted last: whatever interrupts this, a second run finds what is left. An old data version so keeps its name and comes
back without the row: `dvc checkout` and `dvc pull` of an older commit give it. A file that no list names, such as one that
was added with `dvc add`, keeps its name itself. See docs/decisions/0025.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perpetune.erasure.contents import Cleaned, examples_in
from perpetune.errors import PerpetuneError
from perpetune.records import Example

Clean = Callable[[bytes], Cleaned]
_OBJECT = re.compile(r"(?:^|/)([0-9a-f]{2})/([0-9a-f]{30})(\.dir)?$")
_DIR = ".dir"


@dataclass(frozen=True)
class Store:
    """A place of DVC's objects: `name` is the cache's or the remote's; `odb` is DVC's database of objects.

    `is_legacy` is the folder beside it that DVC 2 wrote to.
    """

    name: str
    odb: Any
    is_legacy: bool = False

    def oids(self) -> Iterator[str]:
        """The names of all objects. In the folder of DVC 2 only those directly in it."""
        root = str(self.odb.path).rstrip("/")
        if not self.odb.fs.exists(root):
            return
        for path in self.odb.fs.find(root):
            found = _OBJECT.search(str(path))
            if found and str(path)[: found.start()].rstrip("/").endswith(root.lstrip("/")):
                yield "".join(part or "" for part in found.groups())

    def read(self, oid: str) -> bytes:
        with self.odb.fs.open(self.odb.oid_to_path(oid), "rb") as file:
            return bytes(file.read())

    def write(self, oid: str, data: bytes) -> None:
        """Write an object; one that is there is replaced whole."""
        path = self.odb.oid_to_path(oid)
        if _is_local(self.odb):
            _write_local(Path(path), data)
        else:
            self.odb.fs.makedirs(self.odb.fs.parent(path), exist_ok=True)
            self.odb.fs.pipe_file(path, data)

    def delete(self, oid: str) -> None:
        path = self.odb.oid_to_path(oid)
        if self.odb.fs.exists(path):
            self.odb.fs.remove(path)


@dataclass(frozen=True)
class StoreResult:
    """What was removed from a store: rows, in objects; `versions` maps a data version to the files that held a row."""

    name: str
    rows: int
    objects: int
    versions: dict[str, tuple[str, ...]]


@contextmanager
def stores(workspace: Path) -> Iterator[list[Store]]:
    """The cache and all remotes; none if DVC was not initialised. Raises PerpetuneError if a remote cannot be opened."""
    if not (workspace / ".dvc").is_dir():
        yield []
        return
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(workspace)) as repo:
            found = [Store("DVC cache", repo.cache.local), Store("DVC cache", repo.cache.legacy, True)]
            for name in repo.config["remote"]:
                remote = repo.cloud.get_remote(name)
                found += [Store(f"DVC remote {name}", remote.odb), Store(f"DVC remote {name}", remote.legacy_odb, True)]
            yield found
            repo.drop_data_index()
    except DvcException as fault:
        raise PerpetuneError(
            f"DVC cannot open a remote, so it may still hold the rows: {fault}",
            where=".dvc/config",
            do="make it reachable and run the command again: it goes on where it stopped",
        ) from fault


def examples_of(store: Store) -> Iterator[Example]:
    """The examples in all objects of a store."""
    for oid in store.oids():
        if not oid.endswith(_DIR):
            yield from examples_in(store.read(oid))


def clean_store(store: Store, clean: Clean, *, dry_run: bool) -> StoreResult:
    """Replace every object that holds an erased row. Raises PerpetuneError if the store cannot be read or written."""
    try:
        return _cleaned(store, clean, dry_run=dry_run)
    except OSError as fault:
        raise PerpetuneError(
            f"it may still hold the rows: {fault}",
            where=store.name,
            do="make it reachable and run the command again: it goes on where it stopped",
        ) from fault


def _cleaned(store: Store, clean: Clean, *, dry_run: bool) -> StoreResult:
    oids = list(store.oids())
    listed = {str(entry.get("md5")) for oid in oids if oid.endswith(_DIR) for entry in json.loads(store.read(oid))}
    replaced: dict[str, str] = {}
    rows = 0
    for oid in oids:
        if oid.endswith(_DIR):
            continue
        result = clean(store.read(oid))
        if result.data is None:
            continue
        rows += result.rows
        replaced[oid] = hashlib.md5(result.data).hexdigest() if oid in listed else oid
        if not dry_run:
            store.write(replaced[oid], result.data)
    versions: dict[str, tuple[str, ...]] = {}
    for oid in oids:
        if oid.endswith(_DIR) and (files := _redirected(store, oid, replaced, dry_run=dry_run)):
            versions[oid.removesuffix(_DIR)] = files
    if not dry_run:
        for oid, new in replaced.items():
            if new != oid:
                store.delete(oid)
    return StoreResult(store.name, rows, len(replaced), versions)


def _redirected(store: Store, oid: str, replaced: dict[str, str], *, dry_run: bool) -> tuple[str, ...]:
    """Let a list of files name the new objects; returns the paths of the files."""
    entries = json.loads(store.read(oid))
    files = tuple(str(entry["relpath"]) for entry in entries if entry.get("md5") in replaced)
    if files and not dry_run:
        new = [{**entry, "md5": replaced.get(entry["md5"], entry["md5"])} for entry in entries]
        store.write(oid, json.dumps(new, sort_keys=True).encode())
    return files


def _is_local(odb: Any) -> bool:
    return bool(odb.fs.protocol == "local")


def _write_local(path: Path, data: bytes) -> None:
    """Atomically, and read-only: DVC takes an object that nobody can have changed for what it is named."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    unfinished.write_bytes(data)
    unfinished.chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
    unfinished.replace(path)
