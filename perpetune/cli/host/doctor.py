"""`perpetune doctor`: what is misconfigured, and what to do about it."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path

import typer

from perpetune.cli.console import Json, console, for_people, print_json

commands = typer.Typer()

_STYLES = {"ok": "green", "warning": "yellow", "fault": "red", "not checked": "dim"}


@commands.command(epilog="Example: `perpetune doctor`")
def doctor(json_: Json = False) -> None:
    """Check settings, machine, data, databases and services. Exits with 1 if there is a fault."""
    from rich.text import Text

    from perpetune.doctor.examine import examine

    with for_people():
        found = []
        for each in examine(Path.cwd()):
            found.append(each)
            if not json_:
                line = Text.assemble((f"{each.level:<12}", _STYLES[each.level]), f"{each.subject}: {each.what}")
                console.print(line, soft_wrap=True)
                if each.do and each.level in ("warning", "fault"):
                    console.print(Text(f"{'':<12}-> {each.do}"), soft_wrap=True)
        counts = Counter(each.level for each in found)
        if json_:
            print_json([asdict(each) for each in found])
        else:
            console.print(f"{len(found)} checks; faults: {counts['fault']}, warnings: {counts['warning']}")
        if counts["fault"]:
            raise typer.Exit(1)
