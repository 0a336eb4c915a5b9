"""`perpetune retention`: delete what is old and nothing needs."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Annotated

import typer

from perpetune.cli.console import Json, for_people, print_json, say, services
from perpetune.workspace import Workspace

commands = typer.Typer()


@commands.command(epilog="Example: `perpetune retention --yes`")
def retention(
    days: Annotated[
        float | None,
        typer.Option(min=1, help="Instead of retention.report_days and retention.release_days in params.yaml."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete it; without, only say what would go.")] = False,
    json_: Json = False,
) -> None:
    """Delete what params.yaml does not keep (section retention). What a version that serves or served needs stays."""
    from perpetune.retention.prune import prune

    with for_people(), services(worker=False, prefect=False) as workspace:
        found = prune(_with_days(workspace, days), datetime.now(UTC), dry_run=not yes)
        if json_:
            print_json({"deleted": yes, "found": [asdict(each) for each in found]})
            return
        for each in found:
            say(f"{'deleted' if yes else 'would delete'} {each.line}")
        if not yes:
            say("nothing was deleted; `--yes` does it")


def _with_days(workspace: Workspace, days: float | None) -> Workspace:
    if days is None:
        return workspace
    params = workspace.params
    wanted = params.retention.model_copy(update={"report_days": days, "release_days": days})
    return replace(workspace, params=params.model_copy(update={"retention": wanted}))
