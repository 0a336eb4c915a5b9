"""`perpetune init`: a folder that holds a task and in which every command works."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

import yaml
from jinja2 import Environment, StrictUndefined
from pydantic import ValidationError

from perpetune.curation.running import dvc
from perpetune.errors import PerpetuneError
from perpetune.git import git
from perpetune.output_schema import position, schema_error
from perpetune.params import Params, TaskParams, load_params

Git = Literal["made", "found", "missing"]
# What a folder may hold that is a workspace in a moment: a clone of an empty repository, and where perpetune is installed.
SPARED = {".git", ".venv", "venv"}
SCHEMA_FILE = "output_schema.json"


@dataclass(frozen=True)
class Task:
    """What `perpetune init` asks for. `output_schema` is a file with a JSON Schema."""

    name: str
    instruction: str
    kind: str = "classification"
    labels: tuple[str, ...] = ()
    output_schema: Path | None = None


@dataclass(frozen=True)
class Created:
    """What was made. `git` says whether a repository was made, is around the folder, or git is not installed."""

    folder: Path
    files: tuple[str, ...]
    git: Git


def create(folder: Path, task: Task, *, beside_files: bool = False) -> Created:
    """Make the workspace. Raises PerpetuneError, with nothing written, if the folder holds files or the task is wrong.

    With `beside_files` other files may be there, but none of those that a workspace has.
    """
    written = _texts(task)
    _require_room(folder, None if beside_files else SPARED, written)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in written.items():
        (folder / name).write_text(text, encoding="utf-8")
    load_params(folder / "params.yaml")
    repository = _init_git(folder)
    dvc.prepare(folder, None)
    if repository != "missing":
        git(folder, "add", "--", *written)  # as `dvc init` does with its own files
    return Created(folder, tuple(written), repository)


def template(name: str) -> str:
    """The text of a file that every workspace has."""
    return files(__package__).joinpath("templates", name).read_text(encoding="utf-8")


def task_fault(task: Task) -> str | None:
    """What is wrong with it, in a sentence that names the setting; None if nothing is."""
    if task.labels and task.kind == "generation":
        return "labels: task.kind generation answers with free text and has none"
    if task.output_schema and task.kind == "classification":
        return "output_schema: it is for task.kind generation, classification answers with a label"
    try:
        TaskParams.model_validate({"name": task.name, "kind": task.kind, "instruction": task.instruction})
    except ValidationError as fault:
        first = fault.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}, got {first['input']!r}"
    return None


def _require_room(folder: Path, spared: set[str] | None, written: Iterable[str]) -> None:
    """Refuse a folder that holds more than what is spared; if that is None, one that holds files of the names to write."""
    if folder.exists() and not folder.is_dir():
        raise PerpetuneError("this is a file", where=str(folder), do="name a folder")
    names = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
    held = sorted(names & set(written) if spared is None else names - spared)
    if "params.yaml" in held:
        raise PerpetuneError("this is a workspace already: it has a params.yaml", where=str(folder), do="use it")
    if held:
        raise PerpetuneError(
            f"this folder is not empty: it has {', '.join(held[:3])}{', ...' if held[3:] else ''}",
            where=str(folder),
            do="name a new folder; nothing is ever overwritten",
        )


def _texts(task: Task) -> dict[str, str]:
    """Every file of the workspace with what is in it. Raises PerpetuneError if the task is wrong."""
    if fault := task_fault(task):
        raise PerpetuneError(fault, do="see `perpetune init --help`")
    schema = {SCHEMA_FILE: _schema_text(task.output_schema)} if task.output_schema else {}
    return {
        "params.yaml": _params_text(task),
        "dvc.yaml": template("dvc.yaml"),
        ".gitignore": template("gitignore"),
        ".dvcignore": template("dvcignore"),
        **schema,
    }


def _params_text(task: Task) -> str:
    page = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    return page.from_string(template("params.yaml.jinja")).render(
        name=task.name,
        kind=task.kind,
        instruction=_scalar(task.instruction),
        labels=f"[{', '.join(map(_scalar, task.labels))}]" if task.labels else "null",
        output_schema=SCHEMA_FILE if task.output_schema else None,
        base=Params.model_fields["base"].default,
    )


def _scalar(text: str) -> str:
    """Text as YAML on one line, in quotes if need be."""
    plain = yaml.safe_dump([text], default_flow_style=True, allow_unicode=True, width=2**31).strip()
    return plain.removeprefix("[").removesuffix("]")


def _schema_text(file: Path) -> str:
    try:
        schema = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise PerpetuneError(f"there is no JSON Schema to read: {fault}", where=str(file), do="correct it") from None
    if not isinstance(schema, dict):
        raise PerpetuneError("a JSON Schema is a JSON object", where=str(file), do="correct it")
    if found := schema_error(schema):
        raise PerpetuneError(f"{position(tuple(found[0]))}: {found[1]}", where=str(file), do="correct it")
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _init_git(folder: Path) -> Git:
    if shutil.which("git") is None:
        return "missing"
    try:
        git(folder, "rev-parse", "--git-dir")
        return "found"
    except PerpetuneError:
        git(folder, "init", "--quiet")
        return "made"
