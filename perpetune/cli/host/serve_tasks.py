"""`perpetune serve`: the gateway alone, and the workspaces whose tasks it serves too."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perpetune.cli.console import Json, console, for_people, print_json, say, services, shown
from perpetune.workspace import open_workspace

commands = typer.Typer(
    help="Run the gateway, or choose the workspaces whose tasks it serves too.", invoke_without_command=True
)


@commands.callback(epilog="Example: `perpetune serve --port 8080`")
def serve(
    context: typer.Context,
    host: Annotated[
        str, typer.Option(help="Address to listen on; the default is for this machine only.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
) -> None:
    """Run the gateway of this workspace, with the tasks of the registered ones, until Ctrl-C.

    It uses the MLflow of MLFLOW_TRACKING_URI, else that of a running `perpetune up`, else starts one.
    """
    if context.invoked_subcommand is not None:
        return
    from perpetune.gateway.__main__ import log_to_stderr
    from perpetune.gateway.server import serve as serve_until_signal

    with for_people(), services(worker=False, prefect=False) as workspace:
        log_to_stderr()
        serve_until_signal(workspace, host, port)


@commands.command("add", epilog="Example: `perpetune serve add ../intents`")
def serve_add(
    folder: Annotated[Path, typer.Argument(help="The folder of another workspace, with the same base and engine.")],
    json_: Json = False,
) -> None:
    """Serve the task of another workspace too, from the next start of `perpetune up` or `perpetune serve` on."""
    from perpetune.runtime.served.registered import register

    with for_people():
        workspace = open_workspace()
        other = register(workspace, folder)
        names = [workspace.params.task.name, other.params.task.name]
        if json_:
            print_json({"task": names[1], "folder": str(other.root)})
            return
        say(f"{names[1]} of {shown(other.root)} will be served beside {names[0]}, from the next start on")
        if (other.home / "mlflow").is_dir() and workspace.settings.mlflow_tracking_uri is None:
            say("its versions so far stay in the MLflow of its own `perpetune up`: here it begins with a first version")


@commands.command("list", epilog="Example: `perpetune serve list --json`")
def serve_list(json_: Json = False) -> None:
    """List the tasks that this workspace serves, its own first."""
    from rich.table import Table

    from perpetune.runtime.served.registered import registered

    with for_people():
        workspace = open_workspace()
        rows = [(workspace.params.task.name, "."), *((each.task, each.folder) for each in registered(workspace))]
        if json_:
            print_json([{"task": task, "folder": folder} for task, folder in rows])
            return
        table = Table("task", "folder")
        for row in rows:
            table.add_row(*row)
        console.print(table)


@commands.command("remove", epilog="Example: `perpetune serve remove intents`")
def serve_remove(
    task: Annotated[str, typer.Argument(help="The name of the task.")],
    json_: Json = False,
) -> None:
    """Serve a task no longer, from the next start on. Its workspace, versions and log stay as they are."""
    from perpetune.runtime.served.registered import unregister

    with for_people():
        gone = unregister(open_workspace(), task)
        if json_:
            print_json({"task": gone.task, "folder": gone.folder})
        else:
            say(f"{gone.task} will not be served here from the next start on; {gone.folder} stays as it is")
