"""The reference of the command line, from Typer's own help."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import typer
from markdown_text import code, linked, table

from perpetune.cli import app

PAGE = "reference/commands.md"


@dataclass(frozen=True)
class CommandText:
    """One command; `options` are pairs of an option (or argument) and what it does."""

    name: str
    usage: str
    description: str
    example: str
    options: tuple[tuple[str, str], ...]


def commands() -> tuple[CommandText, ...]:
    return tuple(_commands(typer.main.get_command(app), "perpetune"))


def _commands(command: Any, name: str) -> Iterator[CommandText]:
    """Typer carries its own copy of click, whose classes have no public names."""
    if children := getattr(command, "commands", None):
        for child, below in children.items():
            yield from _commands(below, f"{name} {child}")
        return
    context = command.context_class(command, info_name=name)
    options = (each.get_help_record(context) for each in command.get_params(context))
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    shown = tuple((option, text) for option, text in filter(None, options) if not option.startswith("--help"))
    yield CommandText(name, usage, command.help or "", (command.epilog or "").removeprefix("Example: "), shown)


def commands_page() -> str:
    parts = [
        "# Commands",
        "Generated from the command line itself; `perpetune COMMAND --help` prints the same. Exit codes: 0 done, 1 "
        "refused or failed, 2 wrong usage, 130 interrupted.",
        *(_entry(each) for each in commands()),
    ]
    return linked("\n\n".join(parts) + "\n", PAGE)


def _entry(command: CommandText) -> str:
    options = [(code(" ".join(option.split())), text) for option, text in command.options]
    return "\n\n".join(
        [
            f"## {command.name}",
            command.description,
            f"```\n{command.usage}\n```",
            *([f"Example: {command.example}"] if command.example else []),
            *([table(["Option", "Meaning"], options)] if options else []),
        ]
    )
