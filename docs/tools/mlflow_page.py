"""The reference of what a run and a version hold in MLflow."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from markdown_text import ROOT, code, linked, table
from mlflow_names import FAMILIES, METRICS, RUN_TAGS, VERSION_TAGS

PAGE = "reference/mlflow.md"
_WRITERS = ("loop", "monitoring", "tuning", "tracking")
METRIC = re.compile(r"[a-z]+/[a-z0-9_]+")
TAG = re.compile(r"[a-z]+(\.[a-z_]+)+")


def mlflow_page() -> str:
    parts = [
        "# MLflow: aliases, tags and metrics",
        "One experiment and one registered model for each task, both named after it.",
        "## Aliases of the registered model",
        table(
            ["Alias", "Meaning"],
            [
                (code("champion"), "The version that answers."),
                (code("challenger"), "The newest candidate; it gets traffic only during a trial."),
                (code("previous"), "The champion before; `perpetune rollback` makes it champion again."),
            ],
        ),
        *_section("Tags of a run", "Tag", RUN_TAGS),
        *_section("Tags of a version", "Tag", VERSION_TAGS),
        *_section("Metrics", "Metric", METRICS),
        "Names in capitals stand for a value:",
        _table("Metric", FAMILIES),
    ]
    return linked("\n\n".join(parts) + "\n", PAGE)


def _section(title: str, what: str, names: dict[str, str]) -> tuple[str, str]:
    return f"## {title}", _table(what, names)


def _table(what: str, names: dict[str, str]) -> str:
    return table([what, "Meaning"], [(code(name), text) for name, text in names.items()])


def names_in_code(pattern: re.Pattern[str]) -> set[str]:
    """Keys of dictionaries, and constants, with names of this form in the packages that write into MLflow."""
    files = (path for folder in _WRITERS for path in (ROOT / "perpetune" / folder).rglob("*.py"))
    return {name for path in files for name in _keys(path) if pattern.fullmatch(name)}


def _keys(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Dict):
            values = [key for key in node.keys if key is not None]
        elif isinstance(node, ast.Assign):
            values = [*_parts(node.value), *(each.slice for each in node.targets if isinstance(each, ast.Subscript))]
        else:
            continue
        yield from (each.value for each in values if isinstance(each, ast.Constant) and isinstance(each.value, str))


def _parts(value: ast.expr) -> list[ast.expr]:
    return value.elts if isinstance(value, ast.Tuple) else [value]
