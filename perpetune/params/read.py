"""`params.yaml` read and checked; every fault names its line."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from perpetune.errors import PerpetuneError
from perpetune.output_schema import position, schema_error
from perpetune.params.renamed_settings import RENAMED, SCHEMA, SCHEMA_KEY
from perpetune.params.sections.kinds import NUMBER
from perpetune.params.sections.whole import Params

UPGRADE = "`perpetune params upgrade` writes the new names into the file and keeps a copy of the old one"


def load_params(path: Path) -> Params:
    """Read and check `params.yaml`.

    Raises PerpetuneError naming file, line and field of the first fault, with all others listed; for settings that
    were renamed, of all those.
    """
    node, values = read_yaml(path)
    if isinstance(values, dict):
        require_known_schema(values.pop(SCHEMA_KEY, 1), node, path)
    if old := old_settings(node):
        lines = [f"{path}:{line}: {name} is now called {RENAMED[name]}" for name, line in old.items()]
        raise PerpetuneError("\n".join(lines), do=UPGRADE)
    _read_schema_file(values, path)
    try:
        return Params.model_validate(values)
    except ValidationError as fault:
        faults = [_sentence(error, path, node) for error in fault.errors()]
        raise PerpetuneError(
            "\n".join(faults), do="correct params.yaml; the reference of settings describes its fields"
        ) from None


def as_yaml(params: Params) -> str:
    """Every setting with its value, as a params.yaml that says all."""
    values = {SCHEMA_KEY: SCHEMA, **params.model_dump(mode="json")}
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def read_yaml(path: Path) -> tuple[yaml.Node | None, Any]:
    """The file as a tree with positions, and its values. Raises PerpetuneError if there is none or it is not YAML."""
    if not path.is_file():
        raise PerpetuneError(
            "there is no such file",
            where=str(path),
            do="run this in the folder that holds params.yaml, or make one with `perpetune init FOLDER`",
        )
    text = path.read_text(encoding="utf-8")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.MarkedYAMLError as fault:
        line = fault.problem_mark.line + 1 if fault.problem_mark else 1
        raise PerpetuneError(
            f"not valid YAML: {fault.problem}", where=f"{path}:{line}", do="correct that line"
        ) from None
    _refuse_repeated_keys(node, path)
    return node, values


def require_known_schema(schema: object, node: yaml.Node | None, path: Path) -> None:
    """Raises PerpetuneError if the file says a schema that this perpetune does not read."""
    where = f"{path}:{_line(node, [SCHEMA_KEY])}"
    if type(schema) is not int or schema < 1:
        raise PerpetuneError(f"schema: {schema!r} is no version of params.yaml", where=where, do=f"write {SCHEMA}")
    if schema > SCHEMA:
        raise PerpetuneError(
            f"schema {schema} is newer than this perpetune {version('perpetune')}, which reads up to schema {SCHEMA}",
            where=where,
            do="install a newer perpetune",
        )


def old_settings(node: yaml.Node | None) -> dict[str, int]:
    """The settings of the file that are called otherwise today, with their lines."""
    return {
        name: key.start_mark.line + 1
        for section in _pairs(node)
        for key, _ in _pairs(section[1])
        if (name := f"{section[0].value}.{key.value}") in RENAMED
    }


def _pairs(node: yaml.Node | None) -> list[tuple[yaml.Node, yaml.Node]]:
    return node.value if isinstance(node, yaml.MappingNode) else []


def _read_schema_file(values: object, path: Path) -> None:
    """Put the schema in the place of the name of its file, which is relative to params.yaml. Raises PerpetuneError."""
    task = values.get("task") if isinstance(values, dict) else None
    if not isinstance(task, dict) or not isinstance(name := task.get("output_schema"), str):
        return
    file = path.parent / name
    try:
        schema = json.loads(file.read_text(encoding="utf-8"))
    except OSError as fault:
        why, do = f"task.output_schema cannot be read: {fault.strerror}", "write the schema there, or into params.yaml"
        raise PerpetuneError(why, where=str(file), do=do) from None
    except ValueError as fault:
        raise PerpetuneError(f"task.output_schema is not JSON: {fault}", where=str(file), do="correct it") from None
    if not isinstance(schema, dict):
        raise PerpetuneError("task.output_schema must be a JSON object", where=str(file), do="correct it")
    if found := schema_error(schema):
        at = position(("task", "output_schema", *found[0]))
        raise PerpetuneError(f"{at}: {found[1]}", where=str(file), do="correct it")
    task["output_schema"] = schema


def _refuse_repeated_keys(node: yaml.Node | None, path: Path) -> None:
    """YAML readers differ in which of two equal keys they believe, and DVC reads this file too."""
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if key.value in lines:
            raise PerpetuneError(
                f"{key.value}: this setting stands here and on line {lines[key.value]}",
                where=f"{path}:{line}",
                do="delete one of them",
            )
        lines[key.value] = line
        _refuse_repeated_keys(value, path)


def _sentence(error: ErrorDetails, path: Path, node: yaml.Node | None) -> str:
    location = [part for part in error["loc"] if isinstance(part, (str, int)) and part != NUMBER]
    if error["type"] in ("json_schema", "deep"):
        location += error["ctx"]["path"]
        return f"{path}:{_line(node, location)}: {position(tuple(location))}: {error['msg']}"
    field = ".".join(str(part) for part in location) or "(the whole file)"
    problem = {
        "missing": "this field is missing",
        "extra_forbidden": "there is no such setting",
    }.get(error["type"], f"{error['msg']}, got {error['input']!r}")
    return f"{path}:{_line(node, location)}: {field}: {problem}"


def _line(node: yaml.Node | None, location: list[str | int]) -> int:
    """The line of the deepest part of `location` that the file has."""
    line = 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == part]
            if not found:
                break
            key, node = found[0]
            line = key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line
