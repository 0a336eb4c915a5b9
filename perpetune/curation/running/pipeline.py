"""Which steps a workspace's dvc.yaml has, and what each of them reads.

A workspace keeps the dvc.yaml that it was made with, so it may lack steps of this release: a step reads what the last of
the steps before it wrote.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from perpetune.curation.running.layout import (
    CLEAN,
    DIVIDED,
    LABEL_ERRORS,
    LANGUAGE,
    LEAKAGE,
    PRIVATE,
    RAW,
    REPAIRED,
    SELECTION,
    SPLITS,
    VALID,
)
from perpetune.errors import PerpetuneError

FOLDERS = {
    "validate": VALID,
    "repair": REPAIRED,
    "language": LANGUAGE,
    "private": PRIVATE,
    "clean": CLEAN,
    "label_errors": LABEL_ERRORS,
    "split": LEAKAGE,
    "select": SELECTION,
}
"""By step, in their order: the folder with the rows that it quarantined, and up to the split with those that it kept."""

_ALWAYS = ("validate", "clean", "split")


def steps_of(workspace: Path) -> tuple[str, ...]:
    """The steps that quarantine rows, in their order."""
    stages = _stages(workspace)
    return tuple(step for step in FOLDERS if step in stages)


def input_of(step: str, workspace: Path) -> Path:
    """The folder with the rows that a step up to the split reads, relative to the workspace.

    Raises PerpetuneError if dvc.yaml does not say so: DVC would not run the step again if these rows change.
    """
    stages, order = _stages(workspace), list(FOLDERS)
    before = [other for other in order[: order.index(step)] if other in stages]
    folder = FOLDERS[before[-1]] if before else RAW
    _require_dependency(step, folder, stages.get(step) or {}, workspace)
    return folder


def output_of_split(workspace: Path) -> Path:
    """Where `split` writes: to the splits, unless `select` chooses among its rows."""
    return DIVIDED if "select" in steps_of(workspace) else SPLITS


def _require_dependency(step: str, folder: Path, stage: dict[str, Any], workspace: Path) -> None:
    paths = [PurePosixPath(*each) if isinstance(each, dict) else PurePosixPath(each) for each in stage.get("deps", ())]
    read = PurePosixPath(folder)
    if "deps" in stage and not any(path == read or path in read.parents or read in path.parents for path in paths):
        raise PerpetuneError(
            f"the stage {step} reads {read} and does not depend on it",
            where=str(workspace / "dvc.yaml"),
            do=f"add {read} to the deps of {step}",
        )


def _stages(workspace: Path) -> dict[str, dict[str, Any]]:
    """The stages of dvc.yaml by name; without the file, those that every pipeline has."""
    path = workspace / "dvc.yaml"
    if not path.is_file():
        return {step: {} for step in _ALWAYS}
    stages: dict[str, dict[str, Any]] = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("stages") or {}
    return stages
