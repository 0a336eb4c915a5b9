"""Objects of DVC that no kept version needs: of the cache, and of the remote that is a folder of the workspace.

`dvc gc` keeps what commits name. Versions of models name their data by its MD5, whether or not it was committed, so
what they, the present dvc.lock, branches and tags name is kept here. A remote elsewhere is not touched: other workspaces may
use it, and what is deleted here comes back from there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import yaml

from perpetune.curation.running.dvc import LOCAL_REMOTE
from perpetune.errors import PerpetuneError
from perpetune.git import git, is_in_repository

_OBJECTS = Path("files") / "md5"
_DIR = ".dir"


def unneeded_objects(root: Path, versions: Iterable[str], commits: Iterable[str], before: datetime) -> list[Path]:
    """Objects older than `before` that neither these data versions, nor these commits, branches, tags or the workspace need.

    Lists of files come first: none may name an object that is gone. Raises PerpetuneError if a list cannot be read.
    """
    stores = [store for store in (root / ".dvc/cache" / _OBJECTS, root / LOCAL_REMOTE / _OBJECTS) if _is_ours(store)]
    roots = {*(f"{version}{_DIR}" for version in versions), *_named_here(root), *_named_in_git(root, commits)}
    kept = {*roots, *(entry for oid in roots if oid.endswith(_DIR) for entry in _entries(stores, oid))}
    found = [path for store in stores for path in store.glob("??/*") if path.is_file()]
    old = [path for path in found if _oid(path) not in kept and path.stat().st_mtime < before.timestamp()]
    return sorted(old, key=lambda path: not path.name.endswith(_DIR))


@contextmanager
def dvc_at_rest(root: Path) -> Iterator[None]:
    """Wait until no DVC command runs in the workspace, and keep others waiting; DVC forgets what it knew of its objects.

    Raises PerpetuneError if DVC is at work for longer.
    """
    from dvc.lock import LockError
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo, repo.lock:
            repo.drop_data_index()
            yield
    except LockError as fault:
        raise PerpetuneError(
            "DVC is at work in this workspace, so its cache was left alone",
            where=str(root),
            do="run the command again when the refresh has curated its data",
        ) from fault


def _is_ours(store: Path) -> bool:
    """Whether it is a folder of the workspace itself: a link leads to a store that others may use."""
    return store.is_dir() and not any(folder.is_symlink() for folder in (store, *list(store.parents)[:3]))


def _oid(path: Path) -> str:
    return path.parent.name + path.name


def _entries(stores: Iterable[Path], oid: str) -> Iterator[str]:
    for path in (store / oid[:2] / oid[2:] for store in stores):
        if not path.is_file():
            continue
        try:
            yield from (str(entry["md5"]) for entry in json.loads(path.read_bytes()))
        except (ValueError, KeyError, TypeError) as fault:
            raise PerpetuneError(
                "this list of files cannot be read, so it is not known what a data version needs",
                where=str(path),
                do="delete it, and run `dvc fetch`",
            ) from fault
        return


def _named_here(root: Path) -> Iterator[str]:
    for path in (root / "dvc.lock", *root.rglob("*.dvc")):
        if path.is_file():
            yield from _named_in(path.read_text(encoding="utf-8"), str(path))


def _named_in_git(root: Path, commits: Iterable[str]) -> Iterator[str]:
    """What files of DVC name in these commits, as far as the repository has them, and in all branches and tags."""
    if not is_in_repository(root):
        return
    tips = git(root, "for-each-ref", "--format=%(objectname)").split()
    for commit in {*tips, *_known(root, {*commits, "HEAD"})}:
        files = git(root, "ls-tree", "-r", "--name-only", commit).splitlines()
        for name in files:
            if Path(name).name == "dvc.lock" or name.endswith(".dvc"):
                yield from _named_in(git(root, "show", f"{commit}:./{name}"), f"{name} of commit {commit}")


def _known(root: Path, commits: Iterable[str]) -> Iterator[str]:
    for commit in commits:
        try:
            yield git(root, "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}")
        except PerpetuneError:
            continue


def _named_in(text: str, where: str) -> Iterator[str]:
    """The MD5 of every dependency and output in a dvc.lock or a .dvc file."""
    try:
        yield from _md5s(yaml.safe_load(text))
    except yaml.YAMLError as fault:
        raise PerpetuneError(
            "this file of DVC cannot be read, so it is not known what data it needs", where=where, do="correct it"
        ) from fault


def _md5s(tree: object) -> Iterator[str]:
    if isinstance(tree, dict):
        if isinstance(tree.get("md5"), str):
            yield tree["md5"]
        for value in tree.values():
            yield from _md5s(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _md5s(value)
