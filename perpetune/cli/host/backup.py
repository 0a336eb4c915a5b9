"""`perpetune backup`: the whole state of the workspace in one place, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perpetune.cli.console import Json, errors, for_people, print_json, say
from perpetune.settings import Settings
from perpetune.workspace import open_workspace

commands = typer.Typer(help="Backup and restore of the whole state.", no_args_is_help=True)

Databases = Annotated[
    list[str] | None,
    typer.Option(
        "--database", help="NAME=postgresql://..., of MLflow or Prefect if theirs is PostgreSQL; several times."
    ),
]


@commands.command("create", epilog="Example: `perpetune backup create s3://backups/reviews/2026-12-01`")
def backup_create(
    to: Annotated[str, typer.Argument(help="A new folder, or any address that fsspec knows.")],
    database: Databases = None,
    files_only: Annotated[
        bool,
        typer.Option("--files-only", help="Without PostgreSQL: the backup of another task has the database of both."),
    ] = False,
    json_: Json = False,
) -> None:
    """Copy settings, data of all versions, prediction log, models and histories. Everything may go on running."""
    from perpetune.backup.create import create_backup

    with for_people():
        done = create_backup(open_workspace(), to, _report, _by_name(database), files_only=files_only)
        if json_:
            print_json({"backup": to, "files": len(done.files), "bytes": done.bytes, "left_out": done.left_out})
            return
        say(f"backed up {len(done.files):,} files, {done.bytes / 1e6:,.1f} MB, to {to}")
        for each in done.left_out:
            say(f"not in it: {each}")


@commands.command("restore", epilog="Example: `perpetune backup restore s3://backups/reviews/2026-12-01`")
def backup_restore(
    source: Annotated[str, typer.Argument(metavar="FROM", help="The folder or address of a backup.")],
    folder: Annotated[Path, typer.Option(help="An empty folder, which becomes the workspace.")] = Path(),
    database: Databases = None,
    json_: Json = False,
) -> None:
    """Restore a backup into an empty folder, after every file of it was checked."""
    from perpetune.backup.restore import restore_backup

    with for_people():
        log, named = Settings().database_url, _by_name(database)
        done = restore_backup(source, folder.absolute(), _report, log=log, databases=named)
        if json_:
            print_json({"folder": str(folder.absolute()), "files": len(done.files), "versions": done.versions})
            return
        say(f"restored {len(done.files):,} files of {done.time:%Y-%m-%d %H:%M UTC} into {folder.absolute()}")
        say("next: perpetune download, perpetune up, perpetune status")


def _by_name(given: list[str] | None) -> dict[str, str]:
    pairs = [each.partition("=") for each in given or ()]
    if any(not url.startswith("postgres") for _, _, url in pairs):
        raise typer.BadParameter("write it as NAME=postgresql://...", param_hint="--database")
    return {name: url for name, _, url in pairs}


def _report(line: str) -> None:
    errors.print(line, markup=False, soft_wrap=True)
