"""A copy of a workspace in an object store, for as long as a refresh runs on it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from perpetune.errors import PerpetuneError
from perpetune.training.remote.store import JobStore

FOLDER = "workspace"
MANIFEST = "manifest.json"
# What the next process makes again, what belongs to a machine, and secrets.
_LEFT_OUT = {".env", ".git", ".venv", "assets", "secrets", "__pycache__"}
_LEFT_OUT_OF_HOME = {
    "logs",
    "releases",
    "reproductions",
    "addresses.env",
    "up.lock",
    "spool",
    "prefect",
    "mlflow",
    "s3",
}
_DATABASE = "predictions.db"
_LEFT_OUT_OF_DVC = {"tmp", "config.local"}
_Digests = dict[str, str]


def send(root: Path, store: JobStore) -> None:
    """Copy the workspace to the store; what is there already with the same content is not sent again."""
    before, now = read_manifest(store), _digests(root)
    for name, digest in now.items():
        if before.get(name) != digest:
            store.upload(root / name, f"{FOLDER}/{name}")
    store.write(MANIFEST, json.dumps(now).encode())


def fetch(store: JobStore, root: Path) -> None:
    """Make the files below `root` those of the store; others stay. Raises PerpetuneError if a file has another digest."""
    root.mkdir(parents=True, exist_ok=True)
    here = _digests(root)
    _download(store, root, {name: digest for name, digest in read_manifest(store).items() if here.get(name) != digest})


def bring(store: JobStore, root: Path, sent: _Digests) -> None:
    """Take over what changed in the copy since it was sent.

    Raises PerpetuneError, and changes nothing, if the same file was changed in the workspace meanwhile.
    """
    here, theirs = _digests(root), read_manifest(store)
    changed = {name: digest for name, digest in theirs.items() if sent.get(name) != digest}
    both = sorted(name for name, digest in changed.items() if here.get(name) not in (sent.get(name), digest))
    if both:
        raise PerpetuneError(
            f"the workspace changed while a copy of it was refreshed: {', '.join(both[:3])}",
            where=str(root),
            do=f"the copy stays at {store.address}: take from it what you want, or refresh again",
        )
    _download(store, root, changed)


def read_manifest(store: JobStore) -> _Digests:
    content = store.read(MANIFEST)
    return dict(json.loads(content)) if content is not None else {}


def _download(store: JobStore, root: Path, files: _Digests) -> None:
    for name, digest in files.items():
        store.download(f"{FOLDER}/{name}", _inside(root, name))
        if _digest(root / name) != digest:
            raise PerpetuneError("a file of the copy is damaged", where=f"{store.address}/{FOLDER}/{name}")


def _inside(root: Path, name: str) -> Path:
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise PerpetuneError("the copy names a file outside the workspace", where=name)
    return path


def _digests(root: Path) -> _Digests:
    return {path.relative_to(root).as_posix(): _digest(path) for path in sorted(_files(root))}


def _files(root: Path) -> Iterator[Path]:
    for entry in root.iterdir():
        if entry.name in _LEFT_OUT or entry.is_symlink():
            continue
        if entry.is_file():
            yield entry
        elif entry.name in ("data", ".dvc", ".perpetune"):  # other folders are Git's
            without = {".dvc": _LEFT_OUT_OF_DVC, ".perpetune": _LEFT_OUT_OF_HOME}.get(entry.name, set())
            for below in entry.iterdir():
                if below.name not in without and not below.name.startswith(_DATABASE):
                    yield from (path for path in [below, *below.rglob("*")] if path.is_file())


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
