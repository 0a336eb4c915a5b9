"""`perpetune retention`: delete what is old and nobody needs."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer

from perpetune.cli.console import Json, for_people, print_json, say, services

commands = typer.Typer()


@commands.command(epilog="Example: `perpetune retention --days 90 --yes`")
def retention(
    days: Annotated[float, typer.Option(min=1, help="What is younger stays.")] = 30,
    yes: Annotated[bool, typer.Option("--yes", help="Delete it; without, only say what would go.")] = False,
    json_: Json = False,
) -> None:
    """Delete old drift reports and downloads of versions that do not serve. Records, versions, log and data stay."""
    from perpetune.retention.prune import prune

    with for_people(), services(worker=False, prefect=False) as workspace:
        found = prune(workspace, days, datetime.now(UTC), dry_run=not yes)
        if json_:
            print_json({"deleted": yes, "found": [asdict(each) for each in found]})
            return
        for each in found:
            say(f"{'deleted' if yes else 'would delete'} {each.count:,} {each.name}, {each.bytes / 1e6:,.1f} MB")
        if not yes:
            say("nothing was deleted; `--yes` does it")
