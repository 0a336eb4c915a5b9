"""The strings below the attributes of a module's classes, which Python itself does not keep.

pydantic can read them when it makes a class (`use_attribute_docstrings`), but then every process that imports the
settings takes a tenth of a second longer for what only these pages need.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from inspect import cleandoc, getsource
from itertools import pairwise
from types import ModuleType
from typing import Any


def attribute_docstrings(module: ModuleType) -> dict[str, dict[str, str]]:
    """The docstring of each attribute that has one, by class and attribute."""
    classes = (node for node in ast.parse(getsource(module)).body if isinstance(node, ast.ClassDef))
    return {each.name: dict(_documented(each)) for each in classes}


def describe(schema: Mapping[str, Any], docstrings: Mapping[str, Mapping[str, str]]) -> None:
    """Write the docstrings into the JSON Schema of a model, unless a description is there."""
    for name, model in {schema["title"]: schema, **schema["$defs"]}.items():
        for attribute, text in docstrings.get(name, {}).items():
            model["properties"].get(attribute, {}).setdefault("description", text)


def _documented(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for attribute, following in pairwise(node.body):
        match attribute, following:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, cleandoc(text)
