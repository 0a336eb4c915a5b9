"""`perpetune demo` and `up`: the services of one machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perpetune.cli.console import Json, console, errors, for_people, print_json
from perpetune.settings import Settings
from perpetune.workspace import open_workspace

commands = typer.Typer()

PrefectPort = Annotated[int | None, typer.Option(help="Where Prefect listens; else 4200 or the next free port.")]
MlflowPort = Annotated[int | None, typer.Option(help="Where MLflow listens; else 5000 or the next free port.")]
GatewayPort = Annotated[int | None, typer.Option(help="Where the gateway listens; else 8000 or the next free port.")]


@commands.command(epilog="Example: `perpetune demo --folder /tmp/demo`")
def demo(
    folder: Annotated[Path, typer.Option(help="The folder of the demo; an earlier demo in it is replaced.")] = Path(
        "demo"
    ),
    keep: Annotated[bool, typer.Option("--keep", help="Leave the services running at the end, until Ctrl-C.")] = False,
    json_: Json = False,
) -> None:
    """Run the whole loop on real data: fine-tune, serve, decay, detect, retrain, swap."""
    from perpetune.demo.script import tell

    with for_people():
        summary = tell(Settings().assets.absolute(), folder.absolute(), keep=keep, console=errors if json_ else console)
        if json_:
            print_json(summary)


@commands.command(epilog="Example: `perpetune up --gateway-port 8080`")
def up(prefect_port: PrefectPort = None, mlflow_port: MlflowPort = None, gateway_port: GatewayPort = None) -> None:
    """Run all services on this machine until Ctrl-C."""
    from perpetune.model.weights import fetch_wheels
    from perpetune.runtime.ports import NamedPorts
    from perpetune.runtime.up import run_until_interrupted

    with for_people():
        workspace = open_workspace()
        fetch_wheels(workspace.params.models, workspace.assets)
        run_until_interrupted(workspace, NamedPorts(prefect_port, mlflow_port, gateway_port), console)
