"""`perpetune data suspects`: the rows whose label is probably wrong."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from perpetune.cli.console import Json, console, for_people, print_json, say
from perpetune.workspace import open_workspace

commands = typer.Typer()


@commands.command(epilog="Example: `perpetune data suspects --limit 50`")
def suspects(
    limit: Annotated[int, typer.Option(help="Show so many, the most certain first.", min=1)] = 20,
    json_: Json = False,
) -> None:
    """The rows whose label is probably wrong, with the label that is likelier, as of the last `dvc repro`."""
    from perpetune.curation.suspects import load_suspects

    with for_people():
        found, summary = load_suspects(open_workspace().root)
        if json_:
            print_json(
                {"summary": summary.model_dump(exclude={"shown"}), "suspects": [each.model_dump() for each in found]}
            )
            return
        if found:
            table = Table("row", "input", "label", "likelier", "margin")
            for each in found[:limit]:
                name = f"{each.source} · {each.id}{' (frozen)' if each.is_frozen else ''}"
                table.add_row(*map(Text, (name, each.input, each.label, each.suggested, f"{each.margin:+.2f}")))
            console.print(table)
        say(summary.sentence)
