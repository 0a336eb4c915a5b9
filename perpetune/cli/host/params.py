"""`perpetune params`: the file of settings."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from perpetune.cli.console import Json, console, for_people, print_json, say, shown

commands = typer.Typer(help="The file of settings, params.yaml.", no_args_is_help=True)


@commands.command(epilog="Example: `perpetune params upgrade --dry-run`")
def upgrade(
    file: Annotated[Path, typer.Argument(help="The file to upgrade.")] = Path("params.yaml"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, and write nothing.")] = False,
    json_: Json = False,
) -> None:
    """Write the new names of settings that were renamed into params.yaml; comments stay, and so does a copy."""
    from perpetune.params.upgrade import upgrade as upgrade_file

    with for_people():
        done = upgrade_file(file, dry_run=dry_run)
        if json_:
            print_json(asdict(done))
        elif not done.diff:
            say(f"{shown(file)} is up to date: schema {done.to_schema}")
        elif dry_run:
            console.print(done.diff, end="", markup=False, soft_wrap=True)
        else:
            renamed = "1 setting" if len(done.renamed) == 1 else f"{len(done.renamed)} settings"
            say(f"{shown(file)} has schema {done.to_schema} now, {renamed} renamed")
            say(f"the old file is {shown(done.copy)}")


@commands.command(epilog="Example: `perpetune params show`")
def show(json_: Json = False) -> None:
    """Print every setting with the value that holds, be it from params.yaml or a default."""
    from perpetune.params import as_yaml, load_params

    with for_people():
        params = load_params(Path("params.yaml"))
        if json_:
            print_json(params.model_dump(mode="json"))
        else:
            typer.echo(as_yaml(params), nl=False)
