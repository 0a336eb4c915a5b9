"""`perpetune db`: the database of the prediction log."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from perpetune.cli.console import Json, errors, for_people, print_json, say
from perpetune.workspace import open_workspace

commands = typer.Typer(help="The database of the prediction log.", no_args_is_help=True)


@commands.callback()
def _group() -> None:
    """A group of commands, though there is one only."""


@commands.command("migrate", epilog="Example: `perpetune db migrate --to postgresql://USER:PASSWORD@HOST/perpetune`")
def db_migrate(
    to: Annotated[str, typer.Option(help="An empty database: postgresql://... or sqlite:////FILE.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a copy that was interrupted.")] = False,
    json_: Json = False,
) -> None:
    """Move the prediction log to another database. Gateways go on answering; their rows wait until they are restarted."""
    from perpetune.prediction_log.moving import move_log

    def report(line: str) -> None:
        errors.print(line, markup=False, soft_wrap=True)

    with for_people():
        moved = move_log(open_workspace().settings.prediction_log, to, report, resume=resume)
        if json_:
            print_json(asdict(moved))
            return
        say(f"moved {sum(moved.rows.values()):,} rows to {moved.target}; the old log takes no more")
        say("next: set PERPETUNE_DATABASE_URL to it everywhere, and restart gateways and worker with the same home:")
        say("      what gateways have answered meanwhile is in their spools, and goes to the new log")
