"""The reference of Prefect's events, from the constants that name them and the docstrings below these."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from itertools import pairwise

from markdown_text import ROOT, code, linked, table

PAGE = "reference/events.md"
_SOURCE = ROOT / "perpetune" / "runtime" / "events.py"


@dataclass(frozen=True)
class Event:
    name: str
    description: str


def events() -> tuple[Event, ...]:
    body = ast.parse(_SOURCE.read_text(encoding="utf-8")).body
    return tuple(
        Event(statement.value.value, _docstring(below))
        for statement, below in pairwise(body)
        if isinstance(statement, ast.Assign)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _docstring(statement: ast.stmt) -> str:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return " ".join(str(statement.value.value).split())
    return ""


def events_page() -> str:
    rows = [(code(each.name), each.description) for each in events()]
    text = (
        "# Prefect events\n\n"
        "Each event has the resource `perpetune.model.NAME` with the task's name, so an automation of your own can act "
        "on one task's events. Generated from `perpetune/runtime/events.py`.\n\n" + table(["Event", "Meaning"], rows)
    )
    return linked(text, PAGE)
