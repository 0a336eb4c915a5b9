"""The workspace's own files: the inbox, everything under data/, and what services and runs left in the home folder."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from perpetune.curation.running.dvc import LOCAL_REMOTE
from perpetune.erasure.contents import Cleaned, examples_in
from perpetune.erasure.data_store import Clean
from perpetune.errors import PerpetuneError
from perpetune.records import Example

_SQLITE = b"SQLite format 3\x00"
_WEIGHTS = (".safetensors", ".bin", ".pt", ".gguf", ".whl", ".npy", ".npz", ".png")
_INBOX = "inbox"
PATIENCE = 60.0


@dataclass(frozen=True)
class FileResult:
    """What was removed: rows, and files in which something changed."""

    name: str
    rows: int
    files: int


def data_files(workspace: Path) -> Iterator[Path]:
    """Every file below data/."""
    yield from (path for path in sorted((workspace / "data").rglob("*")) if path.is_file())


def home_files(workspace: Path, home: Path, journal: Path) -> Iterator[Path]:
    """Every file of the home folder that may hold text: not the DVC remote, databases, weights or the journal."""
    remote = workspace / LOCAL_REMOTE
    for folder, folders, names in os.walk(home):
        here = Path(folder)
        folders[:] = sorted(name for name in folders if here / name != remote and name != "assets")
        for name in sorted(names):
            path = here / name
            if path != journal and not path.is_symlink() and path.suffix not in _WEIGHTS and not is_database(path):
                yield path


def databases(home: Path) -> Iterator[Path]:
    """The SQLite files of the home folder."""
    yield from (path for path in sorted(home.rglob("*")) if path.is_file() and is_database(path))


def is_database(path: Path) -> bool:
    """Whether it is a SQLite file, or one of its two companions."""
    if path.name.endswith(("-wal", "-shm", "-journal")):
        return is_database(path.with_name(path.name.rpartition("-")[0]))
    try:
        with path.open("rb") as file:
            return file.read(len(_SQLITE)) == _SQLITE
    except OSError:
        return False


def examples_of(path: Path) -> Iterator[Example]:
    yield from examples_in(path.read_bytes())


def clean_files(name: str, paths: Iterator[Path], clean: Clean, *, dry_run: bool) -> FileResult:
    """Clean each file, whole or not at all; one of the inbox without a row left is deleted."""
    rows = files = 0
    for path in list(paths):
        result = _cleaned(path, clean)
        if result.data is None:
            continue
        rows, files = rows + result.rows, files + 1
        if dry_run:
            continue
        if not result.data.strip() and _INBOX in path.parts:
            path.unlink()
        else:
            _replace(path, result.data)
    return FileResult(name, rows, files)


def _cleaned(path: Path, clean: Clean) -> Cleaned:
    """Nothing to change in a file that a running process has just deleted, or writes to: `wait_for_spool` went before."""
    try:
        return Cleaned(None) if _is_locked(path) else clean(path.read_bytes())
    except FileNotFoundError:
        return Cleaned(None)


def _replace(path: Path, data: bytes) -> None:
    if path.suffix == ".log":  # its writer goes on writing to this very file
        path.write_bytes(data)
        return
    mode = path.stat().st_mode
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_bytes(data)
    unfinished.chmod(mode | 0o200)
    unfinished.replace(path)


def wait_for_spool(spool: Path, clean: Clean, patience: float = PATIENCE) -> None:
    """Wait until a running gateway has written the requests that are to be erased to the prediction log.

    Raises PerpetuneError if it holds one for longer than `patience` seconds.
    """
    deadline = time.monotonic() + patience
    while held := next((path for path in sorted(spool.glob("*.jsonl")) if _is_held(path, clean)), None):
        if time.monotonic() > deadline:
            raise PerpetuneError(
                "a running gateway holds a request that is to be erased, and cannot write it to the prediction log",
                where=str(held),
                do="stop it and run the command again: it goes on where it stopped",
            )
        time.sleep(0.1)


def _is_held(path: Path, clean: Clean) -> bool:
    try:
        return _is_locked(path) and clean(path.read_bytes()).data is not None
    except FileNotFoundError:
        return False


def _is_locked(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
