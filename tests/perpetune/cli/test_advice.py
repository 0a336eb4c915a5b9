"""Every option of a command that a message or a page names exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from perpetune.cli import app
from perpetune.runtime.processes.ports import NamedPorts

ROOT = Path(__file__).parents[3]
PAGES = [
    *(ROOT / "perpetune").rglob("*.py"),
    *(ROOT / "flows").glob("*.py"),
    *(ROOT / "tasks").glob("*.py"),
    *(ROOT / "docs").rglob("*.md"),
    ROOT / "README.md",
]
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def commands(of: Any, name: str = "") -> Iterator[tuple[str, set[str]]]:
    """Each command with its options."""
    yield name, {option for each in of.params for option in (*each.opts, *each.secondary_opts)} | {"--help"}
    for word, inner in getattr(of, "commands", {}).items():
        yield from commands(inner, f"{name} {word}".strip())


OPTIONS = dict(commands(get_command(app)))
GROUPS = {name.partition(" ")[0] for name in OPTIONS if " " in name}
ADVICE = re.compile(rf"perpetune ((?:(?:{'|'.join(sorted(GROUPS))}) )?[a-z]+)([^`\n]*)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_options_of_a_command_exist(page: Path) -> None:
    named = [(command, option) for command, rest in ADVICE.findall(page.read_text()) for option in OPTION.findall(rest)]
    assert [f"perpetune {one} {option}" for one, option in named if option not in OPTIONS.get(one, {option})] == []


def test_the_port_of_every_service_can_be_chosen() -> None:
    """The error of a port in use names the option."""
    assert {f"--{each.name}-port" for each in fields(NamedPorts)} <= OPTIONS["up"]
