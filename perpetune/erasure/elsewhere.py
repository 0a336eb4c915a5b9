"""What holds a row and is not perpetune's to change: the user's own files, and services and logs of others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from perpetune.annotation.bring import RECORD
from perpetune.curation.erased import TOMBSTONES
from perpetune.curation.inbox.files import source_name
from perpetune.curation.readers.reader import read_examples
from perpetune.erasure.contents import cleaned
from perpetune.erasure.scrubber import Scrubber
from perpetune.erasure.selection import Targets
from perpetune.errors import PerpetuneError
from perpetune.records import Example
from perpetune.workspace import Workspace

_NO_PATHS = ("inbox", "traffic", "reviews")
"""Sources that are no files of the user."""
_NOT_OURS = frozenset({".git", ".venv", "venv", "node_modules", "__pycache__"})
_THIS_MACHINE = ("127.0.0.1", "localhost", "::1")  # whose Prefect keeps its database in the home folder
_LARGEST = 256 << 20  # bytes of a file that is searched


def own_files(workspace: Workspace) -> list[Path]:
    """The files of fetch.sources that lie outside data/."""
    named = [workspace.root / each for each in workspace.params.fetch.sources if each not in _NO_PATHS]
    paths = [path for each in named for path in (sorted(each.rglob("*")) if each.is_dir() else [each])]
    return [path for path in paths if path.is_file() and not path.is_relative_to(workspace.data)]


def examples_of(path: Path) -> tuple[Example, ...]:
    """The rows of a file as curation reads them; none if it cannot."""
    try:
        return read_examples(path, source_name(path)).examples
    except (PerpetuneError, OSError):
        return ()


def files_with_rows(workspace: Workspace, targets: Targets, scrubber: Scrubber) -> list[str]:
    """The user's files that hold a row: those of fetch.sources, and all others in the workspace's folder."""
    sources = own_files(workspace)
    found = [path for path in sources if _holds(path, targets, scrubber) or any(map(targets.holds, examples_of(path)))]
    others = set(_other_files(workspace)) - set(sources)
    found += sorted(path for path in others if _holds(path, targets, scrubber))
    return [str(each.relative_to(workspace.root) if each.is_relative_to(workspace.root) else each) for each in found]


def _other_files(workspace: Workspace) -> Iterator[Path]:
    """All files of the workspace's folder that perpetune, DVC, git and Python do not own."""
    skipped = {workspace.data, workspace.home, workspace.assets, workspace.root / ".dvc"}
    for folder, folders, names in os.walk(workspace.root):
        here = Path(folder)
        folders[:] = [name for name in folders if name not in _NOT_OURS and here / name not in skipped]
        yield from (here / name for name in names if here / name != workspace.root / TOMBSTONES)


def _holds(path: Path, targets: Targets, scrubber: Scrubber) -> bool:
    try:
        if path.is_symlink() or path.stat().st_size > _LARGEST:
            return False
        return cleaned(path.read_bytes(), targets, scrubber).data is not None
    except OSError:
        return False


def out_of_reach(workspace: Workspace) -> list[str]:
    """What may hold the rows and cannot be changed from here, one sentence each."""
    settings, notes = workspace.settings, []
    if (workspace.root / RECORD).is_file() and not settings.label_studio_url:
        notes.append(
            "tasks that went to people by a file (`perpetune annotate push --out`) are still in their annotation tool: "
            "delete them there"
        )
    if not settings.prediction_log.startswith("sqlite"):
        notes.append(
            "the prediction log's PostgreSQL keeps deleted rows in its write-ahead log, archives and backups until they "
            "are recycled"
        )
    if workspace.params.log.redact:
        notes.append(
            "requests are in the prediction log without personal data (log.redact), so that those of a person can only be "
            "found by --id"
        )
    if settings.prefect_api_url and urlsplit(settings.prefect_api_url).hostname not in _THIS_MACHINE:
        notes.append(f"the Prefect server at {settings.prefect_api_url} may hold texts in logs of flow runs")
    return notes
