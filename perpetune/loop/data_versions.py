"""Versions of the data by what people call them: the MD5 of DVC or its beginning, a model version, or `now`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from perpetune.curation.difference import Splits
from perpetune.curation.erased import load_tombstones
from perpetune.curation.running import dvc
from perpetune.curation.running.layout import SPLITS
from perpetune.errors import PerpetuneError
from perpetune.loop.curate import SPLIT_NAMES
from perpetune.records import Example, read_jsonl
from perpetune.tracking import registry
from perpetune.workspace import Workspace

NOW = "now"
_MD5 = re.compile(r"[0-9a-f]{4,32}")


@dataclass(frozen=True)
class DataVersionEntry:
    """A version of the data, the model versions that were trained on it, and how many of its texts were erased."""

    version: str
    models: tuple[str, ...]
    now: bool
    erased: int


def data_versions(workspace: Workspace) -> list[DataVersionEntry]:
    """The version in the workspace, if there is one, and those of the registered models, newest first."""
    tombstones = load_tombstones(workspace.root)
    return [
        DataVersionEntry(
            version,
            tuple(models),
            version == _current(workspace),
            sum(len(each.texts) for each in tombstones.of_version(version)),
        )
        for version, models in _models_by_version(workspace).items()
    ]


def resolved(workspace: Workspace, name: str) -> str:
    """The MD5 of a version by its name. Raises PerpetuneError if no version, or more than one, has it."""
    known = _models_by_version(workspace)
    if name == NOW:
        return dvc.data_version(workspace.root).version
    if name.isdecimal() and (found := [each for each in known if name in known[each]]):
        return found[0]
    matching = [each for each in known if _MD5.fullmatch(name) and each.startswith(name)]
    if len(matching) == 1:
        return matching[0]
    if not matching and re.fullmatch(r"[0-9a-f]{32}", name):
        return name  # of a commit that no model was trained on
    raise PerpetuneError(
        f"{name!r} {'names more than one version' if matching else 'is no version'} of the data",
        do="name `now`, a model version, or a data version: `perpetune data list` shows them",
    )


@contextmanager
def splits_of(workspace: Workspace, version: str) -> Iterator[Splits]:
    """The rows of a version by split. Raises PerpetuneError if neither DVC's cache nor its remote has it."""
    with TemporaryDirectory(prefix="perpetune-") as folder:
        here = workspace.root / SPLITS
        found = here if dvc.has_version(workspace.root, version) else _checked_out(workspace, version, Path(folder))
        yield {name: _rows(found / f"{name}.jsonl") for name in SPLIT_NAMES}


def _checked_out(workspace: Workspace, version: str, folder: Path) -> Path:
    return dvc.checkout_splits(workspace.root, version, folder)


def _rows(path: Path) -> list[Example]:
    return read_jsonl(path, Example) if path.is_file() else []


def _current(workspace: Workspace) -> str | None:
    try:
        return dvc.data_version(workspace.root).version
    except PerpetuneError:
        return None


def _models_by_version(workspace: Workspace) -> dict[str, list[str]]:
    current = _current(workspace)
    found: dict[str, list[str]] = {current: []} if current else {}
    for each in registry.versions(workspace.params.task.name):
        version = each.tags.get("data.version")
        if version:
            found.setdefault(version, []).append(each.version)
    return found
